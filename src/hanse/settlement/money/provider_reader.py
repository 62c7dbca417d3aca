"""Reads a provider's money: the chain at its confirmed block, the book, and what is on its way.

    money = await ProviderMoneyReader(...).read()

The running broker gives its own view of the chain; without one the command line gives a view that
it has just read. Needs no key.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hanse.chain import Deployment, OutboxEntry, OutboxStorage, Rpc
from hanse.chain.asset import Asset
from hanse.chain.registry import Registry
from hanse.contracts import load_artifact
from hanse.protocol.signatures import ZERO_ADDRESS, Address
from hanse.settlement.books.receipt_book import ReceiptBook
from hanse.settlement.books.receipt_records import DueClaim, SubAccountFunds
from hanse.settlement.books.receipt_totals import read_totals
from hanse.settlement.money.provider_money import (
    OwedSubAccount,
    ProviderFacts,
    ProviderMoney,
    get_provider_money,
)
from hanse.settlement.money.waiting import read_waiting
from hanse.settlement.netting.gas import SettlementRules
from hanse.settlement.netting.settler import SubAccountView
from hanse.store.database import Database

_AMOUNT_MASK = 2**96 - 1


@dataclass(frozen=True)
class ProviderMoneyReader:
    """All that a provider's money is read from.

    Attributes:
        name: of its keys at its operator's, for the commands.
        provider: the owner's address.
        receipt_key: whose outbox the settlements are in.
        rpc, deployment: the chain.
        database, book: the receipts.
        outbox: the settlements on their way.
        view: the sub-accounts.
        rules: when it settles.
    """

    name: str
    provider: Address
    receipt_key: Address
    rpc: Rpc
    deployment: Deployment
    database: Database
    book: ReceiptBook
    outbox: OutboxStorage
    view: SubAccountView
    rules: SettlementRules

    async def read(self) -> ProviderMoney:
        """Look now.

        Raises:
            TransientError: the chain's node or the store does not answer.
        """
        head = await self.rpc.fetch_head()
        block = max(0, head.number - self.deployment.confirmations)
        asset = Asset(self.rpc, self.deployment.asset)
        registry = Registry(self.rpc, self.deployment.registry)
        info = await registry.read_provider(self.provider, block=block)
        totals = await read_totals(self.database)
        facts = ProviderFacts(
            name=self.name,
            provider=self.provider,
            paid_to=self.provider if info.payee == ZERO_ADDRESS else info.payee,
            block=block,
            now_s=head.timestamp_s,
            wallet=await asset.read_balance(self.provider, block=block),
            stake=info.stake,
            unbonding_until_s=info.unbonding_until_s,
            condemned=info.is_condemned,
            earned=totals.fees,
            at_work=totals.reserved,
            owed=await self._read_owed(),
            refunds=[entry for entry in self.view.list_funds() if entry[2].pending_refund],
            schedule_s=self.rules.interval_s,
            margin_s=self.rules.refund_margin_s,
            minimum=self.rules.value_min,
        )
        symbol = await asset.read_symbol(block=block)
        return get_provider_money(facts, symbol, await asset.read_decimals(block=block))

    async def _read_owed(self) -> list[OwedSubAccount]:
        claims = await self.book.read_due_claims()
        claims.sort(key=lambda claim: -claim.due)
        funds = {(c.user, c.signer): self._find_funds(c) for c in claims}
        waiting = await read_waiting(
            self.database, [(*name, of.sequence) for name, of in funds.items()]
        )
        scope = f"{self.deployment.chain_id}:{self.receipt_key}"
        sent = read_sent(await self.outbox.read_entries(scope, open_only=True))
        return [
            OwedSubAccount(
                claim.user,
                claim.signer,
                claim.cumulative_fee,
                funds[claim.user, claim.signer],
                sent.get((claim.user, claim.signer), 0),
                waiting.get((claim.user, claim.signer), 0),
            )
            for claim in claims
        ]

    def _find_funds(self, claim: DueClaim) -> SubAccountFunds:
        """As the view shows them; unknown ones hold nothing beyond what was claimed."""
        found = self.view.find_funds(claim.user, claim.signer)
        return found or SubAccountFunds(0, claim.settled_fee)


def read_sent(entries: Iterable[OutboxEntry]) -> dict[tuple[Address, Address], int]:
    """Cumulative base units that open settlements claim, by user and signer."""
    escrow = load_artifact("Escrow")
    sent: dict[tuple[Address, Address], int] = {}
    for entry in entries:
        try:
            name, arguments = escrow.decode_call(entry.call.data)
        except KeyError:
            continue  # a publication, or a refund that is completed
        if name != "settle":
            continue
        for word0, word1, *_ in arguments["claims"]:
            names = (f"0x{word0 >> 96:040x}", f"0x{word1 >> 96:040x}")
            sent[names] = max(sent.get(names, 0), word0 & _AMOUNT_MASK)
    return sent
