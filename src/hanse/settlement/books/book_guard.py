"""A provider's book that is older than what it has signed must sign nothing.

A broker that goes on with an older copy of its database numbers requests that it has numbered
before. Two receipts for one sequence prove an equivocation, and take the stake. Four things tell:

| what | sees | looked at |
| --- | --- | --- |
| the chain's claims | a copy from before the last settlement | at the start, and every request: a \
node may have lagged at the start |
| a mark beside the database | a copy from before the mark's last writing | at the start, and \
every 5 s: a server may be replaced by its copy |
| what this process has signed | the same, sooner | every request |
| a caller that acknowledges more receipts than were signed | any copy, one caller | every request |

What remains unseen is a copy of both, database and mark, for callers that send nothing of what they
hold: docs/how-to/never-be-slashed.md.

Source: `docs/decisions/0016-disputes.md`.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from hanse.protocol.errors import HanseError, InvariantError, RequestError, TransientError
from hanse.protocol.signatures import Address
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.store.database import Database

MARK_NAME = "receipts.mark"

MARK_INTERVAL_S = 5.0
"""Between writings of the mark: a copy that is older than this is noticed."""

MARK_CHARS_MAX = 32
"""A mark is one decimal number."""

SIGNED_KEPT_MAX = 100_000
"""Sub-accounts whose last sequence a process remembers, about 300 bytes each: those served last."""

SUB_ACCOUNTS_CHECKED_MAX = 1_000_000
"""Sub-accounts of one provider; more than any has."""

_LIST = "SELECT user_address, signer, sequence, cumulative_fee FROM receipt_sub_accounts LIMIT ?"
_COUNT = "SELECT COALESCE(SUM(sequence), 0) FROM receipt_sub_accounts"

WHAT_TO_DO = (
    "This database is an older copy, or another process signs with the same key. To go on would "
    "sign receipts twice, which costs the stake. Restore the newest copy; if there is none, sell "
    "under a new provider address (docs/how-to/never-be-slashed.md)"
)


async def verify_book_is_newest(
    folder: Path, database: Database, funds: Iterable[tuple[Address, Address, SubAccountFunds]]
) -> "ReceiptMark":
    """Everything that is looked at before anything is signed; see the module.

    Returns:
        The mark, to be written from time to time.

    Raises:
        RequestError: `configuration_invalid`, with the two values that disagree and what to do.
    """
    await verify_book_covers_chain(database, funds)
    mark = ReceiptMark(folder, database)
    await mark.verify()
    return mark


async def verify_book_covers_chain(
    database: Database, funds: Iterable[tuple[Address, Address, SubAccountFunds]]
) -> None:
    """Check at the start that the chain shows nothing claimed that the book does not hold.

    Args:
        database: with the tables of the book.
        funds: (user, signer, funds) of every sub-account, as the chain shows them.

    Raises:
        RequestError: `configuration_invalid`, naming both values of the first that disagrees.
    """
    rows = await database.read(lambda tx: tx.find_all(_LIST, (SUB_ACCOUNTS_CHECKED_MAX,)))
    held = {(row[0], row[1]): (int(row[2]), int(row[3])) for row in rows}
    for user, signer, of in funds:
        sequence, fee = held.get((user, signer), (0, 0))
        if of.claimed > fee or of.sequence > sequence:
            raise RequestError(
                "configuration_invalid",
                f"sub-account {user} / {signer}: the chain shows {of.claimed} base units claimed "
                f"over {of.sequence} requests, the book holds {fee} over {sequence}. {WHAT_TO_DO}",
            )


def verify_acknowledged(sequence: int, acknowledged: int) -> None:
    """Check that a caller does not hold receipts that this book has not signed.

    Raises:
        TransientError: `book_outdated`: nothing is signed for it here.
    """
    if acknowledged > sequence:
        raise TransientError(
            "book_outdated",
            f"you hold receipts up to {acknowledged}, this broker's book ends at {sequence}: one "
            "of us goes on with an older copy; buy elsewhere",
        )


def verify_covers_claim(sequence: int, cumulative_fee: int, funds: SubAccountFunds) -> None:
    """Check that the chain shows nothing claimed of a sub-account that this book does not hold.

    Raises:
        TransientError: `book_outdated`, with both values: nothing is signed for it here.
    """
    if funds.claimed > cumulative_fee or funds.sequence > sequence:
        raise TransientError(
            "book_outdated",
            f"the chain shows {funds.claimed} base units claimed over {funds.sequence} requests, "
            f"this broker's book holds {cumulative_fee} over {sequence}: it goes on with an older "
            "copy; buy elsewhere",
        )


class SignedSequences:
    """The last sequence that this process signed of each sub-account, in memory.

    A database server can be replaced by an older copy (a failover, a restore) under a running
    broker: the mark tells within seconds, this before the next receipt.
    """

    def __init__(self, kept_max: int = SIGNED_KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._last: dict[tuple[Address, Address], int] = {}

    def note(self, user: Address, signer: Address, sequence: int) -> None:
        """A receipt of this sequence is durable."""
        last = self._last.pop((user, signer), 0)
        self._last[user, signer] = max(last, sequence)
        if len(self._last) > self._kept_max:
            self._last.pop(next(iter(self._last)))

    def verify(self, user: Address, signer: Address, sequence: int) -> None:
        """Check that the book holds at least what this process signed.

        Raises:
            TransientError: `book_outdated`: nothing is signed here.
        """
        last = self._last.get((user, signer), 0)
        if last > sequence:
            raise TransientError(
                "book_outdated",
                f"this broker signed receipts up to {last}, its book ends at {sequence}: the "
                "database was replaced by an older copy; buy elsewhere",
            )


class ReceiptMark:
    """A number in a file: so many receipts were signed, at least.

    It is written after the database, so it is never ahead of a database that lost nothing.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self._path = folder / MARK_NAME
        self._database = database
        self._written = -1
        self._seen = 0

    async def verify(self) -> None:
        """Check at the start that the database holds as much as the mark says.

        Raises:
            RequestError: `configuration_invalid`, with both numbers.
        """
        marked, held = self._read(), await self._count()
        self._seen = held
        if marked > held:
            raise RequestError(
                "configuration_invalid",
                f"{self._path} says that {marked} receipts were signed, the book holds {held}. "
                f"{WHAT_TO_DO}",
            )

    async def write(self) -> None:
        """Bring the mark up to date.

        Raises:
            TransientError: `store_unavailable` if the file cannot be written.
            InvariantError: `invariant_broken`: the database holds fewer receipts than before.
        """
        count = await self._count()
        if count < self._seen:
            raise InvariantError(
                "invariant_broken",
                f"{self._seen} receipts were signed, the book holds {count}. {WHAT_TO_DO}",
            )
        self._seen = count
        if count == self._written:
            return
        try:
            _replace(self._path, f"{count}\n")
        except OSError as error:
            raise TransientError(
                "store_unavailable", f"cannot write {self._path}: {error.strerror}"
            ) from None
        self._written = count

    async def close(self) -> None:
        """Write it once more, if that can be done."""
        with contextlib.suppress(HanseError):
            await self.write()

    async def _count(self) -> int:
        row = await self._database.read(lambda tx: tx.find_one(_COUNT))
        return int(row[0]) if row else 0

    def _read(self) -> int:
        """The mark; 0 without one, and for one that a crash of the machine left empty."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._path.read_text()[:MARK_CHARS_MAX])
        return 0


def _replace(path: Path, content: str) -> None:
    """The whole file or none of it, for its owner only."""
    beside = path.with_suffix(".new")
    with open(os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    beside.replace(path)
