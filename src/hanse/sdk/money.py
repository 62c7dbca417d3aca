"""Every unit of a wallet, by place, with the transaction that put it there.

| place | means |
| --- | --- |
| wallet | the asset's own balance of the address |
| account | free in Escrow; `withdraw` pays it out |
| free | of a sub-account: may be committed to new requests |
| reserved | of a sub-account: for requests in flight |
| accrued | of a sub-account: receipted, not claimed by the provider yet |
| refund | of a sub-account: asked back, free at `unlock_time_s` |
| stake | in Registry, if the wallet is a provider too |

Adding up is checked twice: each sub-account's parts are its balance on the chain, and what the
events say (deposits less withdrawals less what was paid) is what the chain holds for the user.
`Money.differences` names each sum that does not agree; it is empty when all do.

Source: `Escrow.vy`; complaints 1 and 4 in the peers' notes.
"""

from dataclasses import dataclass

from hanse.protocol.books import UserBook
from hanse.protocol.signatures import Address, Hash32
from hanse.sdk.account import Account
from hanse.sdk.chain_view import IndexedChain, JournalEntry
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_records import SubAccountBook


@dataclass(frozen=True)
class Place:
    """Base units at one place.

    Attributes:
        place: see the module's table.
        amount: base units.
        provider, signer: of the sub-account; empty elsewhere.
        transaction_hash: of the newest transaction that changed it; empty if none is known.
        unlock_time_s: of a refund, unix seconds; 0 elsewhere.
    """

    place: str
    amount: int
    provider: Address = ""
    signer: Address = ""
    transaction_hash: Hash32 = ""
    unlock_time_s: int = 0


@dataclass(frozen=True)
class Money:
    """All of it, at one confirmed block.

    Attributes:
        user: whose.
        block: the confirmed block.
        places: every place, also empty ones.
        paid: base units that providers have claimed so far; not the user's any more.
        differences: sums that do not agree, in words; empty if all do.
        journal: the events that moved the money, oldest first.
    """

    user: Address
    block: int
    places: tuple[Place, ...]
    paid: int
    differences: tuple[str, ...]
    journal: tuple[JournalEntry, ...]

    @property
    def total(self) -> int:
        """Base units of all places together."""
        return sum(place.amount for place in self.places)


async def read_money(
    account: Account, chain: IndexedChain, books: list[SubAccountBook], user: Address
) -> Money:
    """Read chain and books together; see the module.

    Raises:
        TransientError: `chain_unavailable`.
    """
    await chain.refresh()
    block = chain.checkpoint.number if chain.checkpoint else await account.read_block()
    wallet = await account.asset.read_balance(user, block=block)
    held = await account.escrow.read_account(user, block=block)
    provider = await account.registry.read_provider(user, block=block)
    known = {(b.key.provider, b.key.signer): b.book for b in books if b.key.user == user}
    journal = chain.list_journal()
    places = [
        Place("wallet", wallet),
        Place("account", held, transaction_hash=_find_last(journal, _ACCOUNT_EVENTS)),
    ]
    differences = []
    funds = chain.list_funds()
    for name, signer, of in funds:
        on_chain = await account.escrow.read_sub_account(user, name, signer, block=block)
        if (of.balance, of.claimed) != (on_chain.balance, on_chain.claimed):
            differences.append(
                f"sub-account with {name}: events make a balance of {of.balance} and "
                f"{of.claimed} claimed, the chain says {on_chain.balance} and {on_chain.claimed}"
            )
        places += split_sub_account(name, signer, of, known.get((name, signer)), journal)
    if provider.stake:
        places.append(Place("stake", provider.stake))
    differences += find_differences(chain.get_account(), held, funds, journal)
    paid = sum(of.claimed for _, _, of in funds)
    return Money(user, block, tuple(places), paid, tuple(differences), tuple(journal))


def split_sub_account(
    provider: Address,
    signer: Address,
    funds: SubAccountFunds,
    book: UserBook | None,
    journal: list[JournalEntry],
) -> list[Place]:
    """A sub-account's balance in its parts; they add up to it exactly.

    Accrued comes first, since the provider can claim it already; then what is in flight, then the
    refund, then what is left. Where the balance is too small for a part, the part is cut.
    """
    book = book or UserBook(acknowledged_fee=funds.claimed)
    left = funds.balance
    parts = {}
    for name, wanted in (
        ("accrued", book.acknowledged_fee - funds.claimed),
        ("reserved", book.in_flight_fee),
        ("refund", funds.pending_refund),
    ):
        parts[name] = max(0, min(wanted, left))
        left -= parts[name]
    funded_by = _find_last(journal, ("Funded",), provider, signer)
    refunded_by = _find_last(journal, ("RefundRequested",), provider, signer)
    return [
        Place("free", left, provider, signer, funded_by),
        Place("reserved", parts["reserved"], provider, signer, funded_by),
        Place("accrued", parts["accrued"], provider, signer, funded_by),
        Place(
            "refund",
            parts["refund"],
            provider,
            signer,
            refunded_by if parts["refund"] else "",
            funds.refund_unlock_s if parts["refund"] else 0,
        ),
    ]


def find_differences(
    by_events: int,
    held: int,
    funds: list[tuple[Address, Address, SubAccountFunds]],
    journal: list[JournalEntry],
) -> list[str]:
    """What does not add up between events and chain; empty if all does."""
    found = []
    if by_events != held:
        found.append(f"account: events make {by_events}, the chain holds {held}")
    moved = {"Deposited": 0, "Withdrawn": 0, "Settled": 0}
    for entry in journal:
        if entry.name in moved:
            moved[entry.name] += int(entry.amount)
    inside = held + sum(of.balance for _, _, of in funds)
    expected = moved["Deposited"] - moved["Withdrawn"] - moved["Settled"]
    if inside != expected:
        found.append(
            f"Escrow holds {inside} for the user; {moved['Deposited']} deposited less "
            f"{moved['Withdrawn']} withdrawn and {moved['Settled']} paid make {expected}"
        )
    return found


_ACCOUNT_EVENTS = ("Deposited", "Withdrawn", "Funded", "RefundClaimed")


def _find_last(
    journal: list[JournalEntry],
    names: tuple[str, ...],
    provider: Address = "",
    signer: Address = "",
) -> Hash32:
    for entry in reversed(journal):
        if entry.name in names and (
            not provider or (entry.provider, entry.signer) == (provider, signer)
        ):
            return entry.transaction_hash
    return ""
