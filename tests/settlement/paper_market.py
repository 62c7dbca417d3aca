"""A market on paper: a provider's book, settler and scheduler over the reference ledger.

    market = await open_paper_market()
    await market.sell(user, fee=60)
    await market.scheduler.settle(asked=True)

The chain is `hanse.protocol.ledger`, which a stateful test holds equal to the contracts; the outbox
mines what it is waited for. So nothing forks, listens or sleeps, and a test can hold each step.
What a real chain and a real outbox do stands in `test_settler` and `test_scheduler`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hanse.chain import Call, ChainError, OutboxEntry
from hanse.chain.chain_types import Event, TransactionReceipt
from hanse.chain.storage import MemoryOutboxStorage, TransactionState
from hanse.contracts import Claim, encode_settle
from hanse.protocol import ledger as rules
from hanse.protocol.errors import RequestError
from hanse.protocol.intents import Fund
from hanse.protocol.ledger import Ledger, PendingRefund, Rules, SubAccountId, VoucherClaim
from hanse.protocol.signatures import to_hex
from hanse.provider import StaticChainView
from hanse.settlement import ReceiptBook, SubAccountFunds, open_receipt_book
from hanse.settlement.netting.gas import GasMarket, SettlementRules
from hanse.settlement.netting.plan import SettlementPlan
from hanse.settlement.netting.round_storage import MemoryRoundStorage, RoundTimes
from hanse.settlement.netting.scheduler import Scheduler
from hanse.settlement.netting.settler import Settler
from hanse.store import open_database
from tests.settlement.book_parts import (
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_KEY,
    SIGNER_KEY,
    admit_voucher,
    outcome_of,
    sign_voucher,
)

SIGNER = SIGNER_KEY.address
LOCK_TIME_S = 3_600


def user_of(number: int) -> str:
    return f"0x{number:040x}"


@dataclass
class PaperChain:
    """Escrow, its node, and the outbox of the provider's receipt key, as the settler uses them."""

    ledger: Ledger
    view: StaticChainView
    storage: MemoryOutboxStorage = field(default_factory=MemoryOutboxStorage)
    scope: str = f"31337:{RECEIPT_KEY.address}"
    time_s: int = NOW_S
    block: int = 10
    view_is_stuck: bool = False
    shows_no_event: bool = False
    sent: list[Call] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    before_mining: Callable[[], Awaitable[None]] | None = None
    _acts: dict[bytes, Callable[[], rules.Step]] = field(default_factory=dict)
    _events: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    # the chain as others see and change it

    def apply(self, step: rules.Step) -> None:
        self.ledger = step.ledger
        self.block += 1
        if not self.view_is_stuck:
            self.show()

    def show(self) -> None:
        """The view catches up."""
        for key, account in self.ledger.sub_accounts.items():
            refund = self.ledger.refunds.get(key, PendingRefund())
            pending = min(refund.amount, account.balance)
            unlock_s = refund.unlock_time_s
            self.view.set_funds(
                key.user,
                key.signer,
                SubAccountFunds(
                    account.balance, account.claimed, account.sequence, pending, unlock_s
                ),
            )
        self.view.block = self.block

    def fund(self, user: str, amount: int, signer: str = SIGNER) -> None:
        self.apply(rules.apply_deposit(self.ledger, user, amount))
        self.apply(rules.apply_fund(self.ledger, user, Fund(PROVIDER, signer, amount)))

    def ask_back(self, user: str, amount: int, signer: str = SIGNER) -> None:
        key = SubAccountId(user, PROVIDER, signer)
        self.apply(rules.apply_request_refund(self.ledger, key, amount, self.time_s))

    # Escrow

    @property
    def contract(self) -> "PaperChain":
        return self

    @property
    def rpc(self) -> "PaperChain":
        return self

    def settle(self, provider: str, claims: list[Claim], records_head: bytes) -> Call:
        data = encode_settle(provider, claims, records_head)
        rows = [
            VoucherClaim(
                claim.user,
                claim.signer,
                claim.cumulative_max,
                claim.claimed,
                claim.sequence,
                claim.sequence_max,
                to_hex(claim.request_hash),
                claim.r,
                claim.vs,
            )
            for claim in claims
        ]
        head = to_hex(records_head)
        self._acts[data] = lambda: rules.apply_settle(
            self.ledger, RECEIPT_KEY.address, provider, rows, head
        )
        return Call(DOMAIN.escrow, data)

    def claim_refund(self, user: str, provider: str, signer: str) -> Call:
        data = f"claim_refund {user} {provider} {signer}".encode()
        key = SubAccountId(user, provider, signer)
        self._acts[data] = lambda: rules.apply_claim_refund(self.ledger, key, self.time_s)
        return Call(DOMAIN.escrow, data)

    def find_event(self, log: Event, timestamp_s: int) -> Event | None:
        return log if log.name != "Unknown" else None

    async def fetch_receipt(self, transaction_hash: str) -> TransactionReceipt | None:
        if self.shows_no_event:
            return None
        logs: Any = self._events[transaction_hash]
        return TransactionReceipt(transaction_hash, self.block, "0x", True, 1, 1, logs)

    # the outbox

    async def find(self, key: str) -> OutboxEntry | None:
        return await self.storage.find_entry(self.scope, key)

    async def enqueue(self, key: str, call: Call) -> OutboxEntry:
        if (found := await self.find(key)) is None:
            ordinal, _ = await self.storage.read_last(self.scope)
            found = OutboxEntry(self.scope, key, ordinal + 1, call)
            await self.storage.put_entries([found])
            self.sent.append(call)
        return found

    async def submit(self, key: str, call: Call) -> OutboxEntry:
        return await self.wait_final((await self.enqueue(key, call)).key)

    async def wait_final(self, key: str) -> OutboxEntry:
        entry = await self.find(key)
        assert entry is not None
        if not entry.is_final:
            entry = await self._mine(entry)
        if entry.state is TransactionState.FAILED:
            raise ChainError(f"refused: {entry.reason}", reason=entry.reason)
        return entry

    async def _mine(self, entry: OutboxEntry) -> OutboxEntry:
        if self.before_mining:
            await self.before_mining()
        _, nonce = await self.storage.read_last(self.scope)
        try:
            step = self._acts[entry.call.data]()
        except RequestError as error:
            failed = replace(
                entry, state=TransactionState.FAILED, reason=str(error.details["revert"])
            )
            await self.storage.put_entries([failed])
            return failed
        self.apply(step)
        mined = replace(
            entry,
            state=TransactionState.CONFIRMED,
            nonce=nonce + 1,
            block_number=self.block,
            transaction_hash=f"0x{self.block:064x}",
            gas_used=70_000 + self.block,
        )
        await self.storage.put_entries([mined])
        self.done.append(entry.key)
        self._events[mined.transaction_hash] = (
            _to_event("Unknown", {}),
            _to_event("Condemned", {"results": [0]}),
            *(_to_event(e.name, _pack(e.fields)) for e in step.effects if hasattr(e, "name")),
        )
        return mined


def _to_event(name: str, fields: dict[str, Any]) -> Event:
    return Event("Escrow", name, fields, DOMAIN.escrow, 1, "0x", 0, "0x", 0)


def _pack(fields: Any) -> dict[str, Any]:
    results = fields.get("results", ())
    words = [int(r.status) << 128 | r.sequence << 96 | r.paid for r in results]
    return {**fields, "results": words}


@dataclass
class PaperMarket:
    """The provider's side over a paper chain."""

    chain: PaperChain
    book: ReceiptBook
    settler: Settler
    scheduler: Scheduler
    rounds: MemoryRoundStorage
    shown: list[tuple[SettlementPlan, RoundTimes]]
    gas_price_wei: int = 10**7
    block_gas_limit: int = 30_000_000
    steps: list[str] = field(default_factory=list)

    async def sell(self, user: str, fee: int, key: Any = SIGNER_KEY, signed_by: Any = None) -> None:
        """One finished request; `signed_by` signs in the signer's place."""
        state = await self.book.find_state(user, key.address)
        done, spent = (state.book.sequence, state.book.cumulative_fee) if state else (0, 0)
        signed = sign_voucher(spent + fee, done + 1, fee, user=user, key=signed_by or key)
        signed = replace_signer(signed, key.address)
        funds = self.chain.view.find_funds(user, key.address)
        assert funds is not None
        admission = await admit_voucher(self.book, signed, funds, acknowledged=0, now_s=NOW_S)
        await self.book.finish(admission, outcome_of(fee))

    def make_settler(self) -> Settler:
        """Another process's settler over the same book, chain and outbox."""
        chain: Any = self.chain
        return Settler(
            self.book,
            chain,
            chain,
            chain.storage,
            PROVIDER,
            chain.view,
            self.steps.append,
        )


def replace_signer(signed: Any, signer: str) -> Any:
    return type(signed)(signed.voucher, signed.request, signer, signed.signature)


async def open_paper_market(
    settlement_rules: SettlementRules | None = None, users: int = 0, funds: int = 1_000
) -> PaperMarket:
    """A registered provider, and so many users with a funded sub-account each."""
    terms = Rules(DOMAIN, LOCK_TIME_S, 1_000, 7_200, 20_000, 900)
    step = rules.apply_register(Ledger(terms), PROVIDER, 1_000, RECEIPT_KEY.address, PROVIDER)
    chain = PaperChain(step.ledger, StaticChainView())
    for number in range(1, users + 1):
        chain.fund(user_of(number), funds)
    database = await open_database(":memory:")
    book = await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY)
    rounds, shown = MemoryRoundStorage(), []
    face: Any = chain
    steps: list[str] = []
    settler = Settler(book, face, face, chain.storage, PROVIDER, chain.view, steps.append)

    async def fetch_market() -> GasMarket:
        return GasMarket(market.gas_price_wei, market.block_gas_limit, chain.time_s)

    scheduler = Scheduler(
        settler,
        settlement_rules or SettlementRules(),
        fetch_market,
        rounds,
        lambda plan, times: shown.append((plan, times)),
    )
    market = PaperMarket(chain, book, settler, scheduler, rounds, shown, steps=steps)
    return market
