"""The events that moved one party's money, and which of them a balance came from.

Of a balance the oldest units leave first. So what is there now came with the newest that came in:
`trace_origins` goes back from the newest event until the balance is covered. What no event covers
was there before the first block that we read; that is said, never guessed.

Source: the events of `Escrow.vy` and `Registry.vy`, and ERC-20's `Transfer`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from hanse.protocol.signatures import Address, Hash32


class JournalEntry(msgspec.Struct, frozen=True):
    """One event that moved this party's money. Amounts are base units, as text in JSON.

    Attributes:
        name: the event's; a transfer of the asset is `Received` or `Sent`.
        amount: what moved.
        provider, signer: of the sub-account; empty for the account's own, and for transfers.
        transaction_hash, block_number, timestamp_s: where and when.
        unlock_time_s: of a refund, or of a stake that unbonds; 0 elsewhere.
        from_refund: of `Funded`, how much of it a pending refund gave.
        party: the other side of a transfer; zero for newly made units.
    """

    name: str
    amount: str
    provider: Address
    signer: Address
    transaction_hash: Hash32
    block_number: int
    timestamp_s: int
    unlock_time_s: int = 0
    from_refund: str = "0"
    party: Address = ""


@dataclass(frozen=True)
class Origin:
    """Units of a place, and the transaction that put them there.

    Attributes:
        amount: base units.
        event: what put them there; `before` if it was before `block_number`, the first that we
            read.
        transaction_hash: empty for `before`.
        block_number: of the transaction.
    """

    amount: int
    event: str
    transaction_hash: Hash32
    block_number: int


BEFORE = "before"
"""Event of units that were there before the first block that we read."""

Change = Callable[[JournalEntry], int]
"""What an entry added to a place, base units; negative if it took."""


def trace_origins(
    balance: int, journal: Iterable[JournalEntry], change: Change, start_block: int
) -> tuple[Origin, ...]:
    """Where a balance came from, newest first; the amounts add up to it.

    Args:
        balance: of the place now, base units.
        journal: oldest first.
        change: what an entry means for the place.
        start_block: the first block that was read.
    """
    origins: list[Origin] = []
    left = balance
    for entry in reversed(list(journal)):
        came = change(entry)
        if left <= 0:
            break
        if came <= 0:
            continue
        part = min(came, left)
        origins.append(Origin(part, entry.name, entry.transaction_hash, entry.block_number))
        left -= part
    if left > 0:
        origins.append(Origin(left, BEFORE, "", start_block))
    return tuple(origins)


def split_origins(
    origins: tuple[Origin, ...], amounts: Iterable[int]
) -> tuple[tuple[Origin, ...], ...]:
    """The same units in consecutive parts, the newest units in the first part."""
    rest = list(origins)
    parts = []
    for amount in amounts:
        part: list[Origin] = []
        left = amount
        while left > 0 and rest:
            first = rest.pop(0)
            taken = min(first.amount, left)
            part.append(_resize(first, taken))
            if first.amount > taken:
                rest.insert(0, _resize(first, first.amount - taken))
            left -= taken
        parts.append(tuple(part))
    return tuple(parts)


def get_wallet_change(entry: JournalEntry) -> int:
    """Of the wallet, by the asset's transfers."""
    return {"Received": 1, "Sent": -1}.get(entry.name, 0) * int(entry.amount)


def get_account_change(entry: JournalEntry) -> int:
    """Of the account in Escrow."""
    if entry.name == "Funded":
        return int(entry.from_refund) - int(entry.amount)
    sign = {"Withdrawn": -1, "Deposited": 1, "RefundClaimed": 1, **dict.fromkeys(PROOFS, 1)}
    return sign.get(entry.name, 0) * int(entry.amount)


def get_sub_account_change(entry: JournalEntry) -> int:
    """Of the sub-account that the entry names."""
    if entry.name == "Funded":
        return int(entry.amount) - int(entry.from_refund)
    return {"RefundClaimed": -1, "Settled": -1}.get(entry.name, 0) * int(entry.amount)


def get_stake_change(entry: JournalEntry) -> int:
    """Of the stake in Registry."""
    sign = {"Registered": 1, "StakeAdded": 1, "UnbondingFinished": -1, "Condemned": -1}
    return sign.get(entry.name, 0) * int(entry.amount)


PROOFS = ("OverclaimProven", "EquivocationProven")
"""Events of a proven fraud; their compensation goes to the victim's account."""


def _resize(origin: Origin, amount: int) -> Origin:
    return Origin(amount, origin.event, origin.transaction_hash, origin.block_number)
