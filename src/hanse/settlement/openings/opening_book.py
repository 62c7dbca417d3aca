"""The provider's openings: token and fingerprint of each position it has committed to.

    book = await open_opening_book(database)
    await book.keep(user, signer, request_id, entries, now_s)     # before the receipt is signed
    await book.find(user, signer, request_id, now_s)              # encode_opening's bytes, or None
    await book.sweep(now_s)                                       # what is past the audit window

An opening is durable before the receipt with its root is: a provider that signs a root and has lost
what stands behind it could not answer an audit. One whose receipt was never signed is swept like
the others.

Under 16 bytes a token (`kept_form`), and some 300 an answer for its row, for OPENING_RETAINED_S:
27 MB a day at 20 tokens a second. Whoever may see an opening has bought the answer: it is found by
the sub-account's user and signer alone.

In the broker's database, in a table and a commit of its own. Source:
`docs/decisions/0031-proof-carrying-engines.md`.
"""

import asyncio
from collections.abc import Sequence
from weakref import WeakValueDictionary

from hanse.protocol.commitments.tree import (
    OPENING_RETAINED_S,
    OPENING_TAG,
    Entry,
    encode_opening,
)
from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.openings.kept_form import decode_kept, encode_kept
from hanse.store.database import Database, Transaction

COMPONENT = "opening_book"

STEPS = (
    """
    CREATE TABLE receipt_openings (
        request_id TEXT NOT NULL,
        signer TEXT NOT NULL,
        user_address TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        opening BLOB NOT NULL,
        PRIMARY KEY (request_id, signer)
    );
    CREATE INDEX receipt_openings_expiry ON receipt_openings (expires_at)
    """,
    # What is stored is no longer what is sent; a program that does not know so must not send it.
    "ALTER TABLE receipt_openings RENAME COLUMN opening TO kept",
)

SWEPT_MAX = 1_000
"""Openings that one write lets go of, at most, so that no commit waits for a day's worth."""

ENCODED_AT_ONCE_MAX = 2048
"""Positions encoded on the loop: 8 ms, as long as other streams may wait."""

_KEEP = (
    "INSERT INTO receipt_openings (request_id, signer, user_address, expires_at, kept) "
    "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_FIND = (
    "SELECT kept FROM receipt_openings "
    "WHERE request_id = ? AND signer = ? AND user_address = ? AND expires_at > ?"
)
_SWEEP = (
    "DELETE FROM receipt_openings WHERE (request_id, signer) IN ("
    "SELECT request_id, signer FROM receipt_openings WHERE expires_at <= ? LIMIT ?)"
)


class OpeningBook:
    """Over a database that `open_opening_book` has brought up to date."""

    def __init__(self, database: Database, retained_s: int = OPENING_RETAINED_S) -> None:
        self._database = database
        self._retained_s = retained_s
        self._turns: WeakValueDictionary[tuple[Address, Address], asyncio.Lock] = (
            WeakValueDictionary()
        )

    async def keep(
        self,
        user: Address,
        signer: Address,
        request_id: Hash32,
        entries: Sequence[Entry],
        now_s: int,
    ) -> None:
        """Store one opening; durable on return. The first one of a request stands.

        Raises:
            TransientError: `store_unavailable`; nothing is kept then.
        """
        kept = (
            encode_kept(entries)
            if len(entries) <= ENCODED_AT_ONCE_MAX
            else await asyncio.to_thread(encode_kept, entries)
        )
        row = (request_id, signer, user, now_s + self._retained_s, kept)
        await self._database.write(lambda tx: tx.execute(_KEEP, row))

    async def find(
        self, user: Address, signer: Address, request_id: Hash32, now_s: int
    ) -> bytes | None:
        """The opening of one request of this sub-account as it is sent, or None.

        A sub-account's are read one after another: the longest takes seconds of the processor, and
        whoever asked for it a hundred times at once would keep everybody else's waiting.

        Raises:
            InvariantError: `invariant_broken` if what is kept was damaged.
        """

        def find(tx: Transaction) -> bytes | None:
            found = tx.find_one(_FIND, (request_id, signer, user, now_s))
            return bytes(found[0]) if found else None

        async with self._turns.setdefault((user, signer), asyncio.Lock()):
            kept = await self._database.read(find)
            if kept is None or kept.startswith(OPENING_TAG):  # a row from before the kept form
                return kept
            return encode_opening(await asyncio.to_thread(decode_kept, kept))

    async def sweep(self, now_s: int) -> int:
        """Let go of openings past the audit window, at most SWEPT_MAX; returns how many."""
        return await self._database.write(lambda tx: tx.execute(_SWEEP, (now_s, SWEPT_MAX)))


async def open_opening_book(database: Database) -> OpeningBook:
    """Bring the table up to date."""
    await database.migrate(COMPONENT, STEPS)
    return OpeningBook(database)
