"""Every unit of a wallet, by place, with its words and the transactions that put it there.

    money = await read_money(account, chain, book, user)
    money.places, money.total, money.alarms, money.differences

The places and their words are `hanse.settlement.money.user_money`'s; here is what they are read
from: the chain at one confirmed block, its events, and the user's book.

Adding up is checked twice: each sub-account's parts are its balance on the chain, and what the
events say (deposits less withdrawals less what was paid) is what the chain holds for the user.
`Money.differences` names each sum that does not agree; it is empty when all do.

Source: `Escrow.vy`; complaints 1 and 4 in the peers' notes.
"""

from dataclasses import dataclass
from typing import Any

from hanse.protocol.signatures import Address
from hanse.sdk.account import Account
from hanse.sdk.chain_view import IndexedChain, JournalEntry
from hanse.settlement.books.voucher_book import VoucherBook
from hanse.settlement.money.journal import Origin
from hanse.settlement.money.places import (
    Alarm,
    Place,
    alarm_to_json,
    place_to_json,
    sum_by_code,
    sum_by_place,
)
from hanse.settlement.money.user_money import (
    UserFacts,
    find_differences,
    find_user_alarms,
    get_user_places,
)

__all__ = [
    "Alarm",
    "Money",
    "Origin",
    "Place",
    "money_to_json",
    "read_money",
    "sum_by_code",
    "sum_by_place",
]


@dataclass(frozen=True)
class Money:
    """All of it, at one confirmed block.

    Attributes:
        user: whose.
        block: the confirmed block.
        places: every place, also empty ones.
        paid: base units that providers have claimed so far; not the user's any more.
        differences: sums that do not agree, in words; empty if all do.
        journal: the events of the contracts that moved the money, oldest first.
        transfers: of the wallet, oldest first.
        alarms: what should have moved by now and did not.
        symbol, decimals: how the asset is written.
    """

    user: Address
    block: int
    places: tuple[Place, ...]
    paid: int
    differences: tuple[str, ...]
    journal: tuple[JournalEntry, ...]
    transfers: tuple[JournalEntry, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    symbol: str = ""
    decimals: int = 0

    @property
    def total(self) -> int:
        """Base units of all places together."""
        return sum(place.amount for place in self.places)


async def read_money(
    account: Account, chain: IndexedChain, book: VoucherBook, user: Address
) -> Money:
    """Read chain and books together; see the module.

    Raises:
        TransientError: `chain_unavailable`.
    """
    await chain.refresh()
    await chain.refresh_transfers()
    block = chain.checkpoint.number if chain.checkpoint else await account.read_block()
    funds = {(provider, signer): of for provider, signer, of in chain.list_funds()}
    differences = []
    for (provider, signer), of in funds.items():
        on_chain = await account.escrow.read_sub_account(user, provider, signer, block=block)
        if (of.balance, of.claimed) != (on_chain.balance, on_chain.claimed):
            differences.append(
                f"sub-account with {provider}: events make a balance of {of.balance} and "
                f"{of.claimed} claimed, the chain says {on_chain.balance} and {on_chain.claimed}"
            )
    of_provider = await account.registry.read_provider(user, block=block)
    of_auditor = await account.disputes.read_auditor(user, block=block)
    deadlines: dict[tuple[Address, Address], int] = {}
    for voucher in await book.list_open_vouchers():
        name = (voucher.sub_account.provider, voucher.sub_account.signer)
        deadlines[name] = max(deadlines.get(name, 0), voucher.signed.request.deadline)
    facts = UserFacts(
        user,
        await account.read_clock(),
        account.lock_time_s,
        chain.start_block,
        await account.asset.read_balance(user, block=block),
        await account.escrow.read_account(user, block=block),
        of_provider.stake,
        of_provider.unbonding_until_s,
        funds,
        {
            (known.key.provider, known.key.signer): known.book
            for known in await book.list_sub_accounts()
            if known.key.user == user
        },
        deadlines,
        tuple(chain.list_journal()),
        tuple(chain.list_transfers(block)),
        chain.get_account(),
        of_provider.is_condemned,
        of_auditor.stake,
        await account.disputes.read_credit(user, block=block),
    )
    differences += find_differences(facts)
    return Money(
        user,
        block,
        get_user_places(facts),
        sum(of.claimed for of in funds.values()),
        tuple(differences),
        facts.journal,
        facts.transfers,
        find_user_alarms(facts, differences),
        await account.asset.read_symbol(block=block),
        await account.asset.read_decimals(block=block),
    )


def money_to_json(money: Money) -> dict[str, Any]:
    """Every place with its words; amounts are decimal strings, as everywhere on the wire."""
    return {
        "user": money.user,
        "block": money.block,
        "asset": {"symbol": money.symbol, "decimals": money.decimals},
        "total": str(money.total),
        "paid": str(money.paid),
        "places": [place_to_json(place) for place in money.places],
        "differences": list(money.differences),
        "alarms": [alarm_to_json(alarm) for alarm in money.alarms],
    }
