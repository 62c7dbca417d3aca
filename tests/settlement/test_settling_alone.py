"""The settler and the scheduler step by step, over a chain on paper (`paper_market`)."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from hanse.chain import ChainError, Key
from hanse.chain.storage import OutboxEntry, TransactionState
from hanse.contracts import Claim, encode_settle
from hanse.protocol.errors import TransientError
from hanse.protocol.ledger import SubAccount, SubAccountId, apply_claim_refund
from hanse.protocol.signatures import to_bytes, to_compact
from hanse.settlement import SubAccountFunds
from hanse.settlement.netting.gas import REFUND_GAS, GasMarket, SettlementRules
from hanse.settlement.netting.plan import Reason
from hanse.settlement.netting.round_storage import (
    MemoryRoundStorage,
    RoundTimes,
    open_round_storage,
)
from hanse.settlement.netting.scheduler import REFUNDS_PER_ROUND_MAX, fetch_gas_market
from hanse.settlement.netting.settled import SettledClaim, SettlementBatch
from hanse.settlement.netting.settler import Settler, no_records_head
from hanse.store import open_database
from tests.provider.broker_parts import until
from tests.settlement.book_parts import NOW_S, PROVIDER, USER
from tests.settlement.paper_market import (
    LOCK_TIME_S,
    SIGNER,
    PaperMarket,
    open_paper_market,
    user_of,
)

ONE, TWO, THREE = user_of(1), user_of(2), user_of(3)
WRONG_KEY = Key(b"\x09" * 32)
DAY_S = 86_400
PRICED = SettlementRules(native_price=10**9)
"""At the paper market's gas price a claim costs 130 base units, a transaction 600, a refund 700."""


def key_of(user: str) -> SubAccountId:
    return SubAccountId(user, PROVIDER, SIGNER)


# ---------------------------------------------------------------- one settlement


async def test_a_settlement_says_what_became_of_every_claim():
    market = await open_paper_market(users=3, funds=100)
    await market.sell(ONE, 60)
    await market.sell(TWO, 100)
    await market.sell(THREE, 20, signed_by=WRONG_KEY)
    market.chain.ask_back(TWO, 90)
    (batch,) = await market.scheduler.settle(asked=True)
    block = market.chain.block
    assert batch == SettlementBatch(
        f"0x{block:064x}",
        block,
        70_000 + block,
        160,
        (
            SettledClaim(TWO, SIGNER, 6, 100),
            SettledClaim(ONE, SIGNER, 6, 60),
            SettledClaim(THREE, SIGNER, 2, 0),
        ),
    )
    assert [claim.status_name for claim in batch.claims] == ["paid", "paid", "bad signature"]
    assert market.chain.ledger.sub_accounts[key_of(ONE)] == SubAccount(40, 60, 1)
    assert market.steps == ["settling", "settle_enqueued", "settle_confirmed"]
    assert await market.settler.sync_settled() == 0, "the round's second look saw it"


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (0, "status 0"),
        (1, "unknown sub-account"),
        (2, "bad signature"),
        (3, "over the voucher"),
        (4, "nothing new"),
        (5, "partial"),
        (6, "paid"),
        (7, "status 7"),
    ],
)
def test_a_status_has_a_name(status: int, name: str) -> None:
    assert SettledClaim(USER, SIGNER, status, 0).status_name == name


async def test_the_transaction_is_the_planned_one_to_the_byte():
    market = await open_paper_market(replace(PRICED, native_price=10**3), users=1)

    async def read_head() -> bytes:
        return b"\x5a" * 32

    market.settler.records_head = read_head
    await market.sell(ONE, 600)
    (due,) = await market.book.read_due_claims()
    plan = await market.scheduler.make_plan(asked=True)
    await market.settler.settle(plan.batches[0])
    r, vs = to_compact(due.signature)
    claim = Claim(ONE, SIGNER, 600, 600, 1, 1, to_bytes(due.request_hash), r, vs)
    (call,) = market.chain.sent
    assert call.data == encode_settle(PROVIDER, [claim], b"\x5a" * 32)
    assert call.fee_cap_wei == plan.batches[0].fee_cap_wei > 0
    digest = hashlib.sha256(call.data).hexdigest()[:32]
    assert market.chain.done == [f"settle:{digest}:0"]
    assert await no_records_head() == bytes(32)
    assert market.settler.records_head is read_head
    assert market.make_settler().records_head is no_records_head


async def test_a_refused_claim_is_said_once_and_not_sent_again(caplog):
    market = await open_paper_market(users=2)
    await market.sell(ONE, 50, signed_by=WRONG_KEY)
    await market.sell(TWO, 70)
    with caplog.at_level(logging.ERROR):
        (batch,) = await market.scheduler.settle(asked=True)
    assert {(claim.user, claim.status_name) for claim in batch.claims} == {
        (ONE, "bad signature"),
        (TWO, "paid"),
    }
    assert [record.getMessage() for record in caplog.records] == [
        f"claim on {ONE} / {SIGNER} refused: bad signature"
    ]
    assert await market.settler.read_payable() == []
    await market.sell(ONE, 1)
    assert [item.payable for item in await market.settler.read_payable()] == [51]
    assert [item.payable for item in await market.make_settler().read_payable()] == [51]


async def test_nothing_new_is_as_any_refusal_and_partial_is_not():
    market = await open_paper_market(users=2, funds=100)
    await market.sell(ONE, 100)
    await market.sell(TWO, 100)
    (plan_of_all,) = (await market.scheduler.make_plan(asked=True)).batches

    async def change_the_chain() -> None:
        accounts = {
            **market.chain.ledger.sub_accounts,
            key_of(ONE): SubAccount(100, 0, 9),
            key_of(TWO): SubAccount(30, 0, 0),
        }
        market.chain.ledger = replace(market.chain.ledger, sub_accounts=accounts)

    market.chain.before_mining = change_the_chain
    batch = await market.settler.settle(plan_of_all)
    assert {(c.user, c.status_name, c.paid) for c in batch.claims} == {
        (ONE, "nothing new", 0),
        (TWO, "partial", 30),
    }
    assert await market.settler.read_payable() == []
    market.chain.fund(ONE, 50)
    market.chain.fund(TWO, 50)
    payable = await market.settler.read_payable()
    assert [(item.claim.user, item.payable) for item in payable] == [(TWO, 50)]


async def test_the_same_bytes_once_more_are_another_transaction():
    """As after a claim that the chain took back, or that a block was too full for."""
    market = await open_paper_market(users=1)
    await market.sell(ONE, 60)
    (batch,) = (await market.scheduler.make_plan(asked=True)).batches
    for _ in range(3):
        await market.settler.settle(batch)
    assert [key.rpartition(":")[2] for key in market.chain.done] == ["0", "1", "2"]
    assert len({key.rpartition(":")[0] for key in market.chain.done}) == 1


async def test_an_open_transaction_with_the_same_bytes_is_waited_for_not_doubled():
    market = await open_paper_market(users=1)
    await market.sell(ONE, 60)
    (batch,) = (await market.scheduler.make_plan(asked=True)).batches
    cut = asyncio.CancelledError()

    async def die() -> None:
        market.chain.before_mining = None
        raise cut

    market.chain.before_mining = die
    with pytest.raises(asyncio.CancelledError):
        await market.settler.settle(batch)
    assert (await market.settler.settle(batch)).paid == 60
    assert len(market.chain.sent) == 1


@pytest.mark.parametrize("breaks", ["no receipt", "another event"])
async def test_a_transaction_without_its_event_is_an_error(breaks):
    market = await open_paper_market(users=1)
    await market.sell(ONE, 60)
    if breaks == "no receipt":
        market.chain.shows_no_event = True
    else:
        market.chain.find_event = lambda log, timestamp_s: None  # type: ignore[method-assign]
    with pytest.raises(ChainError) as caught:
        await market.scheduler.settle(asked=True)
    assert caught.value.reason == "no Settled event"
    assert caught.value.message == (
        f"transaction 0x{market.chain.block:064x} holds no Settled event; the node lags, or the "
        "Escrow is another one"
    )


async def test_what_was_mined_is_not_claimed_again_though_its_event_was_not_read():
    market = await open_paper_market(users=1)
    await market.sell(ONE, 60)
    market.chain.shows_no_event = market.chain.view_is_stuck = True
    with pytest.raises(ChainError):
        await market.scheduler.settle(asked=True)
    with pytest.raises(TransientError, match="the node lags"):
        await market.settler.read_payable()


async def test_a_node_that_leaves_out_a_result_is_not_believed():
    market = await open_paper_market(users=2)
    await market.sell(ONE, 60)
    await market.sell(TWO, 70)
    honest = market.chain.find_event

    def cut(log: Any, timestamp_s: int) -> Any:
        event = honest(log, timestamp_s)
        if event is None or event.name != "Settled":
            return event
        return replace(event, fields={**event.fields, "results": event.fields["results"][:1]})

    market.chain.find_event = cut  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="shorter"):
        await market.scheduler.settle(asked=True)


# ---------------------------------------------------------------- what is payable


@pytest.mark.parametrize(
    ("funds", "payable", "unlock_s"),
    [
        (SubAccountFunds(1_000, 0), 60, 0),
        (SubAccountFunds(60, 0), 60, 0),
        (SubAccountFunds(59, 0), 59, 0),
        (SubAccountFunds(1_000, 59), 1, 0),
        (SubAccountFunds(1, 0), 1, 0),
        (SubAccountFunds(0, 0), None, 0),
        (SubAccountFunds(1_000, 60), None, 0),
        (SubAccountFunds(1_000, 90), None, 0),
        (SubAccountFunds(1_000, 0, 0, 1, 77), 60, 77),
        (SubAccountFunds(1_000, 0, 0, 0, 77), 60, 0),
        (None, None, 0),
    ],
)
async def test_what_a_claim_would_bring_is_what_is_due_and_held(funds, payable, unlock_s):
    market = await open_paper_market(users=1)
    await market.sell(ONE, 60)
    if funds is None:
        market.chain.view._funds.clear()
    else:
        market.chain.view.set_funds(ONE, SIGNER, funds)
    found = await market.settler.read_payable()
    assert [(item.payable, item.unlock_s) for item in found] == (
        [(payable, unlock_s)] if payable else []
    )
    assert all(item.claim.user == ONE for item in found)


async def test_one_without_money_does_not_hide_those_behind_it():
    market = await open_paper_market(users=3)
    for user, fee in ((ONE, 90), (TWO, 80), (THREE, 70)):
        await market.sell(user, fee)
    market.chain.view.set_funds(ONE, SIGNER, SubAccountFunds(0, 0))
    market.chain.view.set_funds(TWO, SIGNER, SubAccountFunds(1_000, 80))
    found = await market.settler.read_payable()
    assert [(item.claim.user, item.payable) for item in found] == [(THREE, 70)]


async def test_what_the_chain_shows_is_copied_into_the_book():
    market = await open_paper_market(users=2)
    await market.sell(ONE, 60)
    await market.sell(TWO, 80)
    assert await market.settler.sync_settled() == 0
    market.chain.view.set_funds(ONE, SIGNER, SubAccountFunds(990, 10, 1))
    market.chain.view.set_funds(TWO, SIGNER, SubAccountFunds(900, 100, 1))
    assert await market.settler.sync_settled() == 90
    assert await market.settler.sync_settled() == 0
    (claim,) = await market.book.read_due_claims()
    assert (claim.user, claim.settled_fee, claim.due) == (ONE, 10, 50)
    state = await market.book.find_state(TWO, SIGNER)
    assert state is not None
    assert state.settled_fee == 100


# ---------------------------------------------------------------- a view that lags


async def test_a_settlement_returns_when_the_view_shows_it():
    market = await open_paper_market(users=1)
    await market.sell(ONE, 60)
    market.chain.view_is_stuck = True
    (batch,) = (await market.scheduler.make_plan(asked=True)).batches
    settling = asyncio.create_task(market.settler.settle(batch))
    await until(lambda: market.chain.done)
    assert not settling.done()
    with pytest.raises(TransientError) as caught:
        await market.settler.read_payable()
    before, after = market.chain.view.block, market.chain.block
    assert caught.value.code == "chain_unavailable"
    assert caught.value.message == (
        f"the chain view stands at block {before}, our last settlement is in {after}; the node "
        "lags, it is tried again later"
    )
    market.chain.show()
    assert (await settling).block_number == after
    assert await market.settler.read_payable() == []


class FastLoop(asyncio.SelectorEventLoop):
    """A loop on whose clock a minute passes in six hundredths of a second."""

    def time(self) -> float:
        return super().time() * 1_000


def run_fast(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        runner.run(work())


def test_a_view_that_never_comes_is_waited_for_a_minute(caplog):
    async def settle() -> None:
        market = await open_paper_market(users=1)
        await market.sell(ONE, 60)
        market.chain.view_is_stuck = True
        (batch,) = (await market.scheduler.make_plan(asked=True)).batches
        start_s = asyncio.get_running_loop().time()
        settled = await market.settler.settle(batch)
        assert asyncio.get_running_loop().time() - start_s > 60
        assert [record.getMessage() for record in caplog.records] == [
            f"the chain view lags behind block {settled.block_number}"
        ]

    run_fast(settle)


# ---------------------------------------------------------------- what a dead process left


async def leave_open(market: PaperMarket, user: str, fee: int) -> None:
    """A process dies after its settlement is durable and before it is mined."""
    await market.sell(user, fee)

    async def die() -> None:
        market.chain.before_mining = None
        raise asyncio.CancelledError

    market.chain.before_mining = die
    with pytest.raises(asyncio.CancelledError):
        await market.scheduler.settle(asked=True)


async def test_an_open_settlement_of_a_dead_process_is_waited_for_first():
    market = await open_paper_market(users=1)
    await leave_open(market, ONE, 60)
    await market.chain.enqueue(
        "refund:somebody's", market.chain.claim_refund(ONE, PROVIDER, SIGNER)
    )
    settler = market.make_settler()
    await settler.finish_open()
    assert market.chain.ledger.sub_accounts[key_of(ONE)].claimed == 60
    assert len(market.chain.done) == 1, "the refund is the outbox's own affair"
    assert await settler.read_payable() == []


async def test_the_one_after_a_foreign_entry_is_waited_for_too(caplog):
    market = await open_paper_market(users=2)
    await market.chain.enqueue("refund:x", market.chain.claim_refund(ONE, PROVIDER, SIGNER))
    bad = market.chain.settle(PROVIDER, [], bytes(32))
    await market.chain.enqueue("settle:bad:0", bad)
    await leave_open_after(market)
    with caplog.at_level(logging.ERROR):
        await market.make_settler().finish_open()
    assert market.chain.ledger.sub_accounts[key_of(ONE)].claimed == 60
    assert [record.getMessage() for record in caplog.records] == [
        "an earlier settlement failed: no claims"
    ]


async def leave_open_after(market: PaperMarket) -> None:
    await market.sell(ONE, 60)
    (batch,) = (await market.scheduler.make_plan(asked=True)).batches

    async def die() -> None:
        market.chain.before_mining = None
        raise asyncio.CancelledError

    market.chain.before_mining = die
    with pytest.raises(asyncio.CancelledError):
        await market.settler.settle(batch)


async def test_a_finished_settlement_that_the_view_has_not_seen_is_found_by_its_nonce():
    market = await open_paper_market(users=1)
    await market.sell(ONE, 60)
    market.chain.view_is_stuck = True
    (batch,) = (await market.scheduler.make_plan(asked=True)).batches
    settling = asyncio.create_task(market.settler.settle(batch))
    await until(lambda: market.chain.done)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    settler = market.make_settler()
    assert len(await settler.read_payable()) == 1, "it does not know yet"
    finishing = asyncio.create_task(settler.finish_open())
    await until(lambda: settler._settled_block)
    with pytest.raises(TransientError, match=f"last settlement is in {market.chain.block};"):
        await settler.read_payable()
    assert not finishing.done(), "it waits for the view"
    market.chain.show()
    await finishing
    assert await settler.read_payable() == []


def test_a_view_that_lags_at_the_start_is_waited_for_a_minute_and_then_said(caplog):
    async def start() -> None:
        market = await open_paper_market(users=1)
        await market.sell(ONE, 60)
        await market.scheduler.settle(asked=True)
        market.chain.view.block -= 1
        start_s = asyncio.get_running_loop().time()
        await market.make_settler().finish_open()
        assert asyncio.get_running_loop().time() - start_s > 60
        assert [record.getMessage() for record in caplog.records] == [
            f"the chain view lags behind block {market.chain.block}"
        ]

    run_fast(start)


@pytest.mark.parametrize(
    ("entries", "behind"),
    [
        ([], 0),
        ([(0, 50)], 50),
        ([(0, 50), (1, 60)], 60),
        ([(0, 50), (1, None)], 50),
        ([(7, 50), (22, None)], 50),
        ([(6, 50), (22, None)], 0),
        ([(5, 50), (22, None)], 0),
    ],
)
async def test_the_newest_mined_transaction_is_looked_for_among_the_last(entries, behind):
    market = await open_paper_market(users=1)
    call = market.chain.claim_refund(ONE, PROVIDER, SIGNER)
    made = [
        OutboxEntry(
            market.chain.scope,
            f"k{nonce}",
            nonce + 1,
            call,
            TransactionState.CONFIRMED if block else TransactionState.FAILED,
            nonce=nonce,
            block_number=block,
        )
        for nonce, block in entries
    ]
    await market.chain.storage.put_entries(made)
    market.chain.view.block = max(behind, market.chain.view.block)
    await market.settler.finish_open()
    assert market.settler._settled_block == behind
    market.chain.view.block = behind - 1
    if behind:
        with pytest.raises(TransientError, match=f"last settlement is in {behind};"):
            await market.settler.read_payable()
    market.chain.view.block = behind
    await market.settler.read_payable()


# ---------------------------------------------------------------- refunds


async def test_a_refund_is_completed_once_and_who_was_first_does_not_matter(caplog):
    market = await open_paper_market(users=1)
    market.chain.ask_back(ONE, 400)
    market.chain.time_s += LOCK_TIME_S
    funds = market.chain.view.find_funds(ONE, SIGNER)
    assert funds is not None
    block = market.chain.block
    assert await market.settler.complete_refund(ONE, SIGNER, funds) is True
    assert market.chain.done == [f"refund:{ONE}:{SIGNER}:{NOW_S + LOCK_TIME_S}:{block}"]
    assert market.chain.ledger.accounts[ONE] == 400
    with caplog.at_level(logging.INFO):
        assert await market.settler.complete_refund(ONE, SIGNER, funds) is False
    assert [r.getMessage() for r in caplog.records if r.name.endswith("settler")] == [
        "a refund was not completed: no refund"
    ]


async def test_a_completed_refund_is_waited_for_until_the_view_shows_it():
    market = await open_paper_market(users=1)
    market.chain.ask_back(ONE, 400)
    market.chain.time_s += LOCK_TIME_S
    funds = market.chain.view.find_funds(ONE, SIGNER)
    assert funds is not None
    market.chain.view_is_stuck = True
    completing = asyncio.create_task(market.settler.complete_refund(ONE, SIGNER, funds))
    await until(lambda: market.chain.done)
    assert not completing.done()
    market.chain.show()
    assert await completing


async def test_due_refunds_are_completed_the_largest_first_and_ten_at_a_time():
    count = REFUNDS_PER_ROUND_MAX + 2
    market = await open_paper_market(users=count)
    for number in range(1, count + 1):
        market.chain.ask_back(user_of(number), 100 + number)
    assert await market.scheduler.complete_due_refunds() == 0
    market.chain.time_s += LOCK_TIME_S - 1
    assert await market.scheduler.complete_due_refunds() == 0
    assert market.shown == [], "nothing is settled for refunds that are not due"
    market.chain.time_s += 1
    assert await market.scheduler.complete_due_refunds() == REFUNDS_PER_ROUND_MAX
    users = [key.split(":")[1] for key in market.chain.done]
    assert users == [user_of(number) for number in range(count, 2, -1)]
    assert await market.scheduler.complete_due_refunds() == 2
    assert await market.scheduler.complete_due_refunds() == 0


async def test_a_refund_that_is_due_beside_one_that_is_not():
    market = await open_paper_market(users=3)
    market.chain.ask_back(TWO, 300)
    market.chain.time_s += LOCK_TIME_S
    market.chain.ask_back(ONE, 200)
    assert await market.scheduler.complete_due_refunds() == 1
    assert market.chain.ledger.accounts == {ONE: 0, TWO: 300, THREE: 0}


async def test_one_that_was_overtaken_counts_as_none():
    market = await open_paper_market(users=2)
    for user in (ONE, TWO):
        market.chain.ask_back(user, 300)
    market.chain.time_s += LOCK_TIME_S
    market.chain.before_mining = lambda: take_first(market)
    assert await market.scheduler.complete_due_refunds() == 1


async def take_first(market: PaperMarket) -> None:
    """Somebody completes the refund that the provider is about to complete."""
    market.chain.before_mining = None
    first = next(user for user in (ONE, TWO) if market.chain.ledger.refunds[key_of(user)].amount)
    step = apply_claim_refund(market.chain.ledger, key_of(first), market.chain.time_s)
    market.chain.apply(step)


async def test_what_is_owed_is_claimed_before_a_refund_completes():
    market = await open_paper_market(users=1)
    await market.sell(ONE, 400)
    market.chain.ask_back(ONE, 1_000)
    market.chain.time_s += LOCK_TIME_S
    assert await market.scheduler.complete_due_refunds() == 1
    assert market.chain.ledger.sub_accounts[key_of(ONE)] == SubAccount(0, 400, 1)
    assert market.chain.ledger.accounts[ONE] == 600


async def test_a_refund_that_is_not_worth_its_gas_or_its_debt_is_left():
    """700 base units of gas are 1 % of 70,000; one base unit owed is a cost as well."""
    cost = REFUND_GAS // 100
    market = await open_paper_market(PRICED, users=3, funds=100 * cost)
    market.chain.ask_back(ONE, 100 * cost)
    market.chain.ask_back(TWO, 100 * cost - 1)
    await market.sell(THREE, 1)
    market.chain.ask_back(THREE, 100 * cost)
    market.chain.time_s += LOCK_TIME_S
    assert await market.scheduler.complete_due_refunds() == 1
    assert market.chain.ledger.accounts == {ONE: 100 * cost, TWO: 0, THREE: 0}
    market.gas_price_wei = 0
    assert await market.scheduler.complete_due_refunds() == 2


# ---------------------------------------------------------------- rounds


async def test_the_clock_of_a_round_starts_with_what_waits_and_ends_with_it():
    market = await open_paper_market(users=2)
    assert await market.scheduler.look() == []
    assert market.shown[-1][0].reason is Reason.NOTHING
    assert await market.rounds.read() == RoundTimes(0, 0)
    await market.sell(ONE, 50)
    assert await market.scheduler.look() == []
    assert await market.rounds.read() == RoundTimes(NOW_S, 0)
    plan, times = market.shown[-1]
    assert (plan.reason, plan.since_s, times) == (Reason.NOT_YET, NOW_S, RoundTimes(NOW_S, 0))
    market.chain.time_s += DAY_S - 1
    assert await market.scheduler.look() == []
    market.chain.time_s += 1
    (batch,) = await market.scheduler.look()
    assert batch.paid == 50
    assert await market.rounds.read() == RoundTimes(0, NOW_S + DAY_S)
    plan, times = market.shown[-1]
    assert (plan.reason, times) == (Reason.NOTHING, RoundTimes(0, NOW_S + DAY_S))
    await market.sell(TWO, 60)
    assert await market.scheduler.look() == [], "the next day begins with the next claim"
    assert await market.rounds.read() == RoundTimes(NOW_S + DAY_S, NOW_S + DAY_S)


async def test_what_a_refund_calls_for_goes_alone_and_leaves_the_clock():
    market = await open_paper_market(users=2)
    await market.sell(ONE, 50)
    await market.sell(TWO, 60)
    await market.scheduler.look()
    market.chain.time_s += 100
    market.chain.ask_back(ONE, 900)
    (batch,) = await market.scheduler.look()
    assert [claim.user for claim in batch.claims] == [ONE]
    assert await market.rounds.read() == RoundTimes(NOW_S, NOW_S + 100)
    plan, _ = market.shown[-1]
    assert (plan.reason, plan.since_s) == (Reason.NOT_YET, NOW_S)


async def test_a_round_goes_on_until_nothing_is_left_that_is_worth_its_gas():
    market = await open_paper_market(users=3)
    for user, fee in ((ONE, 50), (TWO, 60), (THREE, 70)):
        await market.sell(user, fee)
    market.block_gas_limit = 200_000
    batches = await market.scheduler.settle(asked=True)
    assert [batch.paid for batch in batches] == [70, 60, 50]
    await market.sell(ONE, 10)
    later = [60, 0]

    async def sell_more() -> None:
        if fee := later.pop() if later else 0:
            await market.sell(TWO, fee)

    market.chain.before_mining = sell_more
    market.chain.time_s += DAY_S
    later[:] = [30]
    batches = await market.scheduler.settle(asked=True)
    assert [batch.paid for batch in batches] == [10, 30], "what came meanwhile goes too"


async def test_a_provider_that_sells_all_the_time_settles_each_sub_account_once_a_round():
    """It would else settle for ever, and never come to the refund that is due."""
    market = await open_paper_market(users=3)
    for user in (ONE, TWO):
        await market.sell(user, 50)
    market.chain.ask_back(THREE, 400)

    async def sell_more() -> None:
        for user in (ONE, TWO):
            await market.sell(user, 5)

    market.chain.before_mining = sell_more
    market.block_gas_limit = 200_000  # a claim a transaction
    market.chain.time_s += LOCK_TIME_S
    assert [batch.paid for batch in await market.scheduler.settle(asked=True)] == [50, 50]
    plan, times = market.shown[-1]
    assert (plan.value, plan.reason) == (2 * 10, Reason.NOT_YET)
    assert times == RoundTimes(market.chain.time_s, market.chain.time_s)
    market.chain.time_s += DAY_S
    assert await market.scheduler.complete_due_refunds() == 1
    assert market.chain.ledger.accounts[THREE] == 400


async def test_a_completion_carries_the_price_up_to_which_it_is_worth_it():
    """1 % of 140,000 less the one base unit that the refund takes of what is owed."""
    market = await open_paper_market(PRICED, users=2, funds=140_000)
    await market.sell(ONE, 1)
    for user in (ONE, TWO):
        market.chain.ask_back(user, 140_000)
    market.chain.time_s += LOCK_TIME_S
    assert await market.scheduler.complete_due_refunds() == 2
    caps = {call.data.split()[1].decode(): call.fee_cap_wei for call in market.chain.sent}
    assert caps == {ONE: 1_399 * 10**18 // (70_000 * 10**9), TWO: 2 * 10**7}


async def test_where_gas_costs_nothing_a_completion_has_no_cap():
    market = await open_paper_market(users=1)
    market.chain.ask_back(ONE, 400)
    market.chain.time_s += LOCK_TIME_S
    assert await market.scheduler.complete_due_refunds() == 1
    assert [call.fee_cap_wei for call in market.chain.sent] == [0]
    funds = market.chain.view.find_funds(ONE, SIGNER)
    assert funds is not None
    assert await market.settler.complete_refund(ONE, SIGNER, funds) is False
    assert market.chain.sent[-1].fee_cap_wei == 0, "nor without one that is named"


async def test_a_refund_that_leaves_enough_for_what_is_owed_does_not_wait_for_it():
    """What is owed is not worth its gas; the one refund would take a base unit of it along."""
    cost = REFUND_GAS // 100
    market = await open_paper_market(PRICED, users=2, funds=101 * cost)
    for user, refund in ((ONE, 100 * cost), (TWO, 100 * cost + 1)):
        await market.sell(user, cost)
        market.chain.ask_back(user, refund)
    market.chain.time_s += LOCK_TIME_S
    assert await market.scheduler.complete_due_refunds() == 1
    assert market.chain.ledger.accounts == {ONE: 100 * cost, TWO: 0}
    assert await market.scheduler.settle(asked=True) == []


async def test_what_a_refund_does_not_take_may_spend_the_share_alone_on_gas():
    """Else a user who asks for refunds and goes on buying has each request settled by itself."""
    market = await open_paper_market(PRICED, users=2, funds=1_000_000)
    for user, refund in ((ONE, 200_000), (TWO, 999_000)):
        await market.sell(user, 2_000)
        market.chain.ask_back(user, refund)
    (batch,) = await market.scheduler.settle()
    assert [(claim.user, claim.paid) for claim in batch.claims] == [(TWO, 2_000)]
    await market.sell(ONE, 72_000)
    (batch,) = await market.scheduler.settle()
    assert [(claim.user, claim.paid) for claim in batch.claims] == [(ONE, 74_000)]


async def test_what_the_clock_called_for_goes_on_with_what_came_meanwhile():
    market = await open_paper_market(users=2)
    await market.sell(ONE, 50)
    await market.scheduler.look()
    market.chain.time_s += DAY_S
    late = [40]

    async def sell_more() -> None:
        if late:
            await market.sell(TWO, late.pop())

    market.chain.before_mining = sell_more
    assert [batch.paid for batch in await market.scheduler.look()] == [50, 40]
    assert await market.rounds.read() == RoundTimes(0, NOW_S + DAY_S)


class KeptRounds(MemoryRoundStorage):
    """Remembers what it was told in between, as a database would after a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[RoundTimes] = []

    async def put(self, times: RoundTimes) -> None:
        self.puts.append(times)
        await super().put(times)


async def test_what_an_exposure_called_for_goes_on_below_it_and_is_noted_on_the_way():
    market = await open_paper_market(SettlementRules(exposure_max=100), users=2)
    market.scheduler._storage = kept = KeptRounds()
    await market.sell(ONE, 101)
    late = [40]

    async def sell_more() -> None:
        market.chain.time_s += 5
        if late:
            await market.sell(TWO, late.pop())

    market.chain.before_mining = sell_more
    assert [batch.paid for batch in await market.scheduler.look()] == [101, 40]
    assert kept.puts == [
        RoundTimes(NOW_S, 0),
        RoundTimes(NOW_S, NOW_S),
        RoundTimes(NOW_S, NOW_S + 5),
        RoundTimes(NOW_S + 5, NOW_S + 5),
        RoundTimes(0, NOW_S + 5),
    ]


async def test_what_is_left_of_a_round_waits_from_its_time_on_and_is_shown_unasked():
    market = await open_paper_market(replace(PRICED, native_price=10**6), users=2)
    await market.sell(ONE, 500)
    await market.sell(TWO, 1)
    market.rounds._times = RoundTimes(NOW_S - 50, 0)
    market.chain.time_s += 10
    (batch,) = await market.scheduler.settle(asked=True)
    assert [claim.user for claim in batch.claims] == [ONE]
    assert await market.rounds.read() == RoundTimes(NOW_S + 10, NOW_S + 10)
    plan, times = market.shown[-1]
    assert (plan.reason, plan.value, plan.since_s) == (Reason.NOT_YET, 1, NOW_S + 10)
    assert times == RoundTimes(NOW_S + 10, NOW_S + 10)
    assert [item.claim.user for item in plan.waiting] == [TWO]


async def test_a_plan_changes_nothing_and_may_be_made_under_another_share():
    market = await open_paper_market(PRICED, users=1, funds=10_000)
    await market.sell(ONE, 1_000)
    market.rounds._times = RoundTimes(NOW_S - 9, 0)
    plan = await market.scheduler.make_plan()
    assert (plan.reason, plan.since_s, plan.market.time_s) == (Reason.NOT_YET, NOW_S - 9, NOW_S)
    assert (await market.scheduler.make_plan(asked=True)).reason is Reason.GAS
    dear = await market.scheduler.make_plan(asked=True, gas_share_ppm=730_000)
    assert (dear.reason, dear.cost, dear.batches[0].claims[0].payable) == (Reason.ASKED, 730, 1_000)
    assert (await market.scheduler.make_plan(gas_share_ppm=730_000)).reason is Reason.NOT_YET
    assert (market.chain.sent, await market.rounds.read()) == ([], RoundTimes(NOW_S - 9, 0))
    assert await market.scheduler.settle(asked=True) == []
    assert await market.scheduler.settle(gas_share_ppm=730_000) == []
    assert await market.scheduler.settle(asked=True, gas_share_ppm=729_999) == []
    (batch,) = await market.scheduler.settle(asked=True, gas_share_ppm=730_000)
    assert batch.paid == 1_000
    assert market.scheduler.rules == PRICED


async def test_a_share_named_for_once_holds_for_the_whole_round():
    market = await open_paper_market(PRICED, users=2, funds=10_000)
    await market.sell(ONE, 1_000)
    late = [900]

    async def sell_more() -> None:
        if late:
            await market.sell(TWO, late.pop())

    market.chain.before_mining = sell_more
    batches = await market.scheduler.settle(asked=True, gas_share_ppm=900_000)
    assert [batch.paid for batch in batches] == [1_000, 900]


async def test_two_rounds_do_not_cross():
    market = await open_paper_market(users=1)
    await market.sell(ONE, 50)
    first, second = await asyncio.gather(
        market.scheduler.settle(asked=True), market.scheduler.settle(asked=True)
    )
    assert ([batch.paid for batch in first], second) == ([50], [])
    assert len(market.chain.sent) == 1


async def test_a_round_first_waits_for_what_is_under_way():
    market = await open_paper_market(users=1)
    await leave_open(market, ONE, 60)
    assert await market.scheduler.settle(asked=True) == []
    assert len(market.chain.done) == 1


async def test_a_reverted_settlement_is_an_error_and_pays_nothing():
    market = await open_paper_market(users=1)
    await market.sell(ONE, 60)
    market.settler._provider = user_of(99)
    with pytest.raises(ChainError, match="not permitted"):
        await market.scheduler.settle(asked=True)
    assert (await market.rounds.read()).last_settled_s == 0


class PaperNode:
    """What a node says of prices."""

    base_fee_wei, gas_limit, timestamp_s = 70, 36_000_000, NOW_S

    async def fetch_head(self) -> Any:
        return self

    async def fetch_priority_fee(self) -> int:
        return 8


async def test_the_price_of_gas_is_base_fee_and_tip():
    node: Any = PaperNode()
    assert await fetch_gas_market(node) == GasMarket(78, 36_000_000, NOW_S)


async def test_a_scheduler_that_shows_nobody_works_too():
    market = await open_paper_market(users=1)
    chain: Any = market.chain
    settler = Settler(market.book, chain, chain, chain.storage, PROVIDER, chain.view)
    quiet = type(market.scheduler)(
        settler, SettlementRules(), market.scheduler._fetch_market, market.rounds
    )
    await market.sell(ONE, 60)
    assert [batch.paid for batch in await quiet.settle(asked=True)] == [60]


async def test_the_times_of_a_round_are_one_providers_each(tmp_path):
    database = await open_database(f"sqlite:///{tmp_path / 'rounds.sqlite3'}")
    storage = await open_round_storage(database, PROVIDER)
    other = await open_round_storage(database, USER)
    assert await storage.read() == RoundTimes(0, 0)
    await storage.put(RoundTimes(5, 4))
    await other.put(RoundTimes(9, 8))
    await storage.put(RoundTimes(7, 6))
    assert await storage.read() == RoundTimes(7, 6)
    assert await other.read() == RoundTimes(9, 8)
    await database.close()
