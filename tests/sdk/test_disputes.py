"""The user's side against cheats, without a chain: what it keeps, finds, raises and remembers."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec
import pytest

from hanse.chain import Call, ChainError, Checkpoint, Escrow, Key, Outbox, Registry
from hanse.chain.storage import OutboxEntry, TransactionState
from hanse.protocol.errors import HanseError, VerificationError
from hanse.protocol.messages import Receipt, SignedReceipt
from hanse.protocol.signatures import Address
from hanse.protocol.wire import encode_receipt_frame
from hanse.sdk import Hanse
from hanse.sdk.disputes import Disputes, find_dispute_alarms
from hanse.sdk.disputes.proving import FAILED_PROOFS_MAX
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_conflicts import CONFLICTS_PER_SUB_ACCOUNT_MAX
from hanse.settlement.books.voucher_records import Verification
from hanse.settlement.disputes.dispute_book import (
    DISPUTES_PER_SUB_ACCOUNT_MAX,
    DisputeState,
    StoredDispute,
    open_dispute_book,
)
from hanse.settlement.disputes.findings import Kind
from hanse.settlement.disputes.proven_fold import Proven
from hanse.settlement.disputes.rejected import REJECTED_PER_SUB_ACCOUNT_MAX
from tests.sdk.conftest import DOMAIN, USER, World
from tests.sdk.fake_broker import FakeBroker

BODY = json.dumps({"model": "echo", "messages": [], "max_tokens": 50}).encode()
STREAM = BODY.replace(b'{"model"', b'{"stream": true, "model"')
TRANSACTION = "0x" + "7a" * 32


@dataclass
class Claims:
    """What the chain shows, as told."""

    provider: Address
    claimed: int = 0
    sequence: int = 0
    proven: list[Proven] = field(default_factory=list)
    checkpoint: Checkpoint | None = field(default_factory=lambda: Checkpoint(10, "0x10"))

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        funds = SubAccountFunds(1_000, self.claimed, self.sequence)
        return [(self.provider, USER.address, funds)]

    def list_proven(self) -> list[Proven]:
        return list(self.proven)

    def prove(self, dispute: StoredDispute, compensation: int) -> None:
        """Show that somebody has proven it."""
        finding = dispute.evidence.finding
        receipt = finding.receipts[0].receipt
        self.proven.append(
            Proven(
                finding.kind,
                receipt.provider,
                receipt.signer,
                str(receipt.sequence),
                str(finding.claimed.amount),
                str(receipt.cumulative_fee),
                str(finding.loss),
                str(compensation),
                USER.address,
                TRANSACTION,
            )
        )


class Judge:
    """Escrow, Registry and outbox in one: refuses what it is told to, and counts what is sent."""

    address = "0x" + "e5" * 20

    def __init__(self) -> None:
        self.refusal: ChainError | None = None
        self.sent: dict[str, OutboxEntry] = {}
        self.is_condemned = False
        self.pool = 100
        self.paid = 0

    def prove_overclaim(self, signed: SignedReceipt) -> Call:
        return Call(self.address, b"overclaim" + signed.receipt.struct_hash())

    def prove_equivocation(self, first: SignedReceipt, second: SignedReceipt) -> Call:
        return Call(self.address, first.receipt.struct_hash() + second.receipt.struct_hash())

    async def read_provider(self, provider: Address, *, block: int) -> Any:
        return self

    async def read_compensation(self, *names: Address, block: int) -> int:
        return self.paid

    async def verify_sendable(self, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def find(self, key: str) -> OutboxEntry | None:
        return self.sent.get(key)

    async def enqueue(self, key: str, call: Call) -> OutboxEntry:
        assert key not in self.sent, "sent twice"
        self.sent[key] = OutboxEntry("scope", key, len(self.sent) + 1, call)
        return self.sent[key]

    def end(self, state: TransactionState, reason: str = "") -> None:
        """What became of the transaction sent last."""
        key = list(self.sent)[-1]
        self.sent[key] = replace(self.sent[key], state=state, reason=reason, block_number=9)


@dataclass
class Case:
    """A world whose user watches one broker."""

    world: World
    claims: Claims
    judge: Judge
    disputes: Disputes
    hanse: Hanse

    @property
    def broker(self) -> FakeBroker:
        return self.world.cheap

    async def look(self) -> list[StoredDispute]:
        await self.hanse.look_for_cheats()
        return await self.hanse.get_disputes()

    async def only(self) -> StoredDispute:
        (dispute,) = await self.look()
        return dispute

    async def buy(self, body: bytes = BODY) -> None:
        answer = await self.hanse.request("/v1/chat/completions", body)
        if answer.is_stream:
            async for _ in answer.frames():
                pass
        else:
            await answer.read()

    async def overclaim(self) -> StoredDispute:
        """Two requests served; three times their price claimed over them."""
        await self.buy()
        await self.buy()
        self.claims.sequence, self.claims.claimed = 2, 3 * self.broker.book.cumulative_fee
        return await self.only()

    async def count(self, table: str) -> int:
        found = await self.world.book._database.read(
            lambda tx: tx.find_one(f"SELECT COUNT(*) FROM {table}")
        )
        assert found is not None
        return int(found[0])


@pytest.fixture
async def case(world: World) -> Any:
    world.only(world.cheap)
    claims, judge = Claims(world.cheap.provider), Judge()
    made = {}

    async def join(database: Any) -> Disputes:
        made["disputes"] = Disputes(
            await open_dispute_book(database, DOMAIN),
            world.book,
            claims,
            USER.address,
            cast(Outbox, judge),
            cast(Escrow, judge),
            cast(Registry, judge),
            auto=True,
            clock=world.clock,
        )
        return made["disputes"]

    world.join_disputes = join
    async with world.open() as hanse:
        yield Case(world, claims, judge, made["disputes"], hanse)


def forge(case: Case, of: int, key: Key | None = None, **changes: Any) -> SignedReceipt:
    """Another receipt for a sequence that the broker has signed already."""
    receipts = [signed.receipt for signed in case.broker.receipts.values()]
    (receipt,) = (receipt for receipt in receipts if receipt.sequence == of)
    changed = msgspec.structs.replace(receipt, **changes)
    digest = DOMAIN.digest(changed.struct_hash())
    return SignedReceipt(changed, (key or case.broker.key).sign_digest(digest))


def lie(case: Case, change: Callable[[Receipt], Receipt]) -> None:
    """Let the broker sign something else than its books say."""
    case.broker._lie_receipt = change  # type: ignore[method-assign]


# finding and raising


async def test_an_honest_claim_is_no_dispute(case: Case) -> None:
    await case.buy()
    await case.buy()
    case.claims.sequence, case.claims.claimed = 2, case.broker.book.cumulative_fee
    assert await case.look() == []
    assert case.judge.sent == {}


async def test_an_overclaim_is_stored_sent_once_and_followed_to_its_compensation(
    case: Case,
) -> None:
    dispute = await case.overclaim()
    assert dispute.evidence.finding.kind is Kind.OVERCLAIM
    assert dispute.evidence.finding.loss == 2 * case.broker.book.cumulative_fee
    for _ in range(3):
        dispute = await case.only()
        assert dispute.state is DisputeState.SENT
    assert list(case.judge.sent) == [dispute.outbox_key]
    with pytest.raises(HanseError, match=r"is down since|disputed"):
        await case.buy()  # no more vouchers for who cheated
    (exposure,) = await case.hanse.get_exposures()
    assert "it claimed" in exposure.disputed

    case.judge.end(TransactionState.CONFIRMED)
    case.claims.prove(dispute, 17)
    dispute = await case.only()
    assert (dispute.state, dispute.compensation) == (DisputeState.CONFIRMED, 17)
    assert dispute.transaction_hash == TRANSACTION
    assert await case.only() == dispute
    assert len(case.judge.sent) == 1


async def test_a_higher_claim_is_another_dispute(case: Case) -> None:
    await case.overclaim()
    case.claims.claimed += 1
    assert len(await case.look()) == 2


async def test_a_claim_that_rises_while_a_proof_is_under_way_sends_no_second(case: Case) -> None:
    """The same proof takes all that is lost when it is mined; a second one is gas for nothing."""
    await case.overclaim()
    for _ in range(3):
        case.claims.claimed += 1
        newest = max(await case.look(), key=lambda dispute: dispute.evidence.finding.loss)
    assert len(case.judge.sent) == 1
    case.judge.end(TransactionState.CONFIRMED)
    case.claims.prove(newest, 40)
    assert {DisputeState.CONFIRMED, DisputeState.FUTILE} >= {d.state for d in await case.look()}
    case.judge.is_condemned, case.judge.paid = True, newest.evidence.finding.loss
    case.world.clock.now += 10_000
    await case.look()
    assert len(case.judge.sent) == 1

    case.claims.claimed += 1  # what is lost after it is due too
    await case.look()
    assert len(case.judge.sent) == 2


async def test_what_is_claimed_after_an_equivocation_was_proven_is_disputed_too(
    case: Case,
) -> None:
    """A sequence above all receipts hides the claim from them, but not from the two for one."""
    await case.buy()
    held = case.broker.book.cumulative_fee
    dearer = forge(case, 1, cumulative_fee=held + 50)
    await case.disputes.book.keep_rejected(dearer, "too dear", 0)
    first = await case.only()
    assert (first.evidence.finding.loss, first.state) == (0, DisputeState.SENT)
    case.judge.end(TransactionState.CONFIRMED)
    case.claims.prove(first, 0)
    assert (await case.only()).state is DisputeState.CONFIRMED

    case.judge.is_condemned = True
    case.claims.sequence, case.claims.claimed = 9, held + 50
    (second,) = [d for d in await case.look() if d.dispute_id != first.dispute_id]
    assert (second.evidence.finding.loss, second.state) == (50, DisputeState.SENT)
    assert len(case.judge.sent) == 2


async def test_a_node_that_shows_ever_new_claims_burns_only_so_much_gas(case: Case) -> None:
    await case.overclaim()
    for number in range(FAILED_PROOFS_MAX + 5):
        if list(case.judge.sent.values())[-1].state is not TransactionState.FAILED:
            case.judge.end(TransactionState.FAILED, "no overclaim")
        await case.look()
        case.claims.claimed += 1 + number
        case.world.clock.now += 10_000
        await case.look()
    assert len(case.judge.sent) == FAILED_PROOFS_MAX
    last = next(d for d in await case.look() if d.state is DisputeState.FOUND)
    assert "does the node lie" in last.reason


async def test_many_small_claims_do_not_hide_a_large_one(case: Case) -> None:
    await case.overclaim()
    for _ in range(DISPUTES_PER_SUB_ACCOUNT_MAX):
        case.claims.claimed += 1
        await case.disputes.look()
    assert len(await case.look()) == DISPUTES_PER_SUB_ACCOUNT_MAX
    case.claims.claimed += 1_000
    disputes = await case.look()
    assert len(disputes) == DISPUTES_PER_SUB_ACCOUNT_MAX
    assert case.claims.claimed in {d.evidence.finding.claimed.amount for d in disputes}
    assert [d.state for d in disputes].count(DisputeState.SENT) == 1, "that one is still there"


async def test_what_was_sent_is_not_sent_again_after_a_restart(case: Case) -> None:
    sent = await case.overclaim()
    async with case.world.open() as hanse:
        await hanse.look_for_cheats()
        assert await hanse.get_disputes() == [await case.only()]
    assert list(case.judge.sent) == [sent.outbox_key]


async def test_of_two_processes_one_sends(case: Case) -> None:
    case.judge.refusal = ChainError("no", reason="no coin", is_revert=False)
    await case.overclaim()
    case.judge.refusal = None
    case.world.clock.now += 31
    async with case.world.open() as other:
        await asyncio.gather(case.hanse.look_for_cheats(), other.look_for_cheats())
        assert len(case.judge.sent) == 1


async def test_a_crash_between_taking_on_and_sending_is_made_good(case: Case) -> None:
    dispute = await case.overclaim()
    case.judge.sent.clear()  # the process died before its outbox had it
    await case.look()
    assert case.judge.sent == {}, "another process may be about to send it"
    case.world.clock.now += 61
    await case.look()
    assert list(case.judge.sent) == [dispute.outbox_key]


async def test_a_proof_that_fails_is_refused_with_its_reason_and_tried_again_later(
    case: Case,
) -> None:
    first = await case.overclaim()
    case.judge.end(TransactionState.FAILED, "window")
    dispute = await case.only()
    assert (dispute.state, dispute.reason) == (DisputeState.REFUSED, "window")
    assert (await case.only()).state is DisputeState.REFUSED
    case.world.clock.now += 601
    again = await case.only()
    assert again.state is DisputeState.SENT
    assert list(case.judge.sent) == [first.outbox_key, again.outbox_key]


async def test_what_escrow_would_refuse_costs_no_gas(case: Case) -> None:
    case.judge.refusal = ChainError("no", reason="no overclaim", is_revert=True)
    dispute = await case.overclaim()
    assert (dispute.state, dispute.reason) == (DisputeState.REFUSED, "no overclaim")
    assert case.judge.sent == {}


async def test_without_native_coin_it_waits_and_says_how_to_go_on(case: Case) -> None:
    case.judge.refusal = ChainError("no", reason="0x12 has 0 wei", is_revert=False)
    dispute = await case.overclaim()
    assert dispute.state is DisputeState.FOUND
    assert "0 wei" in dispute.reason
    assert "hanse disputes prove" in dispute.reason
    (alarm,) = find_dispute_alarms([dispute])
    assert (alarm.code, alarm.amount) == ("dispute_waits", dispute.evidence.finding.loss)
    assert "0 wei" in alarm.message
    case.judge.refusal = None
    case.world.clock.now += 31
    assert (await case.only()).state is DisputeState.SENT


async def test_whoever_proves_it_it_is_over(case: Case) -> None:
    case.judge.refusal = ChainError("no", reason="no coin", is_revert=False)
    dispute = await case.overclaim()
    case.claims.prove(dispute, 5)
    assert (await case.only()).compensation == 5
    case.judge.refusal = None
    case.world.clock.now += 10_000
    await case.look()
    assert case.judge.sent == {}


async def test_a_proof_whose_block_left_the_chain_is_sent_again(case: Case) -> None:
    dispute = await case.overclaim()
    case.judge.end(TransactionState.CONFIRMED)
    case.claims.prove(dispute, 17)
    await case.look()
    case.claims.proven.clear()
    assert (await case.only()).state is DisputeState.FOUND
    again = await case.only()
    assert (again.state, again.compensation) == (DisputeState.SENT, 0)
    assert list(case.judge.sent) == [dispute.outbox_key, again.outbox_key]


async def test_a_claim_that_left_the_chain_is_not_raised(case: Case) -> None:
    case.judge.refusal = ChainError("no", reason="no coin", is_revert=False)
    await case.overclaim()
    case.claims.claimed = case.broker.book.cumulative_fee
    case.judge.refusal = None
    case.world.clock.now += 10_000
    assert (await case.only()).state is DisputeState.FUTILE
    assert await case.only() == await case.only()
    assert case.judge.sent == {}
    case.claims.claimed *= 3  # and it is there again
    assert (await case.only()).state is DisputeState.SENT


@pytest.mark.parametrize(("paid", "pool", "sends"), [(0, 100, 1), (0, 0, 0), (10_000, 100, 0)])
async def test_against_a_condemned_provider_only_a_loss_is_worth_gas(
    case: Case, paid: int, pool: int, sends: int
) -> None:
    case.judge.is_condemned, case.judge.paid, case.judge.pool = True, paid, pool
    dispute = await case.overclaim()
    assert len(case.judge.sent) == sends
    assert ("condemned" in dispute.reason) is not bool(sends)
    assert dispute.state is (DisputeState.SENT if sends else DisputeState.FUTILE)
    assert find_dispute_alarms([dispute]) == ()


async def test_disputes_that_are_not_raised_by_themselves_are_kept(case: Case) -> None:
    case.disputes._auto = False
    dispute = await case.overclaim()
    assert dispute.state is DisputeState.FOUND
    assert "auto_dispute" in dispute.reason
    assert case.judge.sent == {}


# what is kept


async def test_two_receipts_in_one_stream_are_both_kept(case: Case) -> None:
    real = case.broker._send_frame

    async def send_both(send: Any, frame: bytes, *, more: bool = True) -> None:
        if b": hanse-receipt" in frame:
            other = forge(case, 1, commitment_root="0x" + "01" * 32)
            frame = frame.replace(
                b": hanse-receipt", encode_receipt_frame(other) + b": hanse-receipt"
            )
        await real(send, frame, more=more)

    case.broker._send_frame = send_both  # type: ignore[method-assign]
    with pytest.raises(VerificationError, match="two receipts"):
        await case.buy(STREAM)
    await case.hanse.wait_idle()
    dispute = await case.only()
    assert dispute.evidence.finding.kind is Kind.EQUIVOCATION
    assert dispute.state is DisputeState.SENT


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_a_refused_receipt_and_its_counterpart_are_an_equivocation(
    case: Case, body: bytes
) -> None:
    """Too dear in the answer, right in the resume handshake: the first one must not be lost."""
    lie(case, lambda r: msgspec.structs.replace(r, request_hash="0x" + "11" * 32))
    with pytest.raises(VerificationError):
        await case.buy(body)
    assert await case.count("rejected_receipts") == 1
    assert await case.look() == [], "it proves nothing by itself"
    (request_id,) = case.broker.receipts
    voucher = case.broker.vouchers[request_id]
    true = forge(case, 1, request_hash=voucher.voucher.request_hash)
    case.broker.receipts[request_id] = true
    await case.hanse.resume()
    dispute = await case.only()
    assert dispute.evidence.finding.kind is Kind.EQUIVOCATION
    assert true in dispute.evidence.finding.receipts


async def test_a_receipt_in_a_402_that_contradicts_one_held(case: Case) -> None:
    await case.buy()
    (request_id,) = case.broker.receipts
    case.broker.receipts[request_id] = forge(case, 1, finished_at=1)
    case.broker.refuse = (402, "voucher_too_low")
    with pytest.raises(HanseError):
        await case.buy()
    dispute = await case.only()
    assert dispute.evidence.finding.kind is Kind.EQUIVOCATION


async def test_a_receipt_in_the_resume_handshake_that_contradicts_one_held(case: Case) -> None:
    await case.buy()
    case.broker.lie = "crash-admitted"
    with pytest.raises(HanseError):
        await case.buy()
    case.broker.lie = ""
    (request_id,) = case.broker.receipts
    false = forge(case, 1, request_hash="0x" + "77" * 32)
    page = SignedReceipt(msgspec.structs.replace(false.receipt, sequence=1), false.signature)
    case.broker.receipts = {request_id: page}
    case.broker._send_receipts = _send_all(case.broker)  # type: ignore[method-assign]
    await case.hanse.resume()
    dispute = await case.only()
    assert {signed.receipt for signed in dispute.evidence.finding.receipts} >= {false.receipt}


def _send_all(broker: FakeBroker) -> Any:
    from hanse.protocol.wire import receipt_to_json
    from tests.sdk.fake_broker import _send_json

    async def send_receipts(authorization: str, send: Any) -> None:
        receipts = [
            {"request_id": i, "receipt": receipt_to_json(r)} for i, r in broker.receipts.items()
        ]
        page = {"state": {}, "receipts": receipts, "in_flight": [], "more": False}
        await _send_json(send, 200, page)

    return send_receipts


async def test_receipts_of_strangers_and_for_strangers_fill_nothing(case: Case) -> None:
    await case.buy()
    keep = case.hanse._buyer._parts.capture.keep
    await keep(forge(case, 1, Key(b"\x66" * 32), fee=1), "signed by somebody else")
    await keep(forge(case, 1, user="0x" + "99" * 20), "for somebody else")
    await keep(SignedReceipt(forge(case, 1).receipt, "0x1234"), "signed by nobody")
    assert await case.count("rejected_receipts") == 0


async def test_a_hostile_broker_fills_only_so_much_and_crowds_no_proof_out(case: Case) -> None:
    await case.buy()
    keep = case.hanse._buyer._parts.capture.keep
    for number in range(REJECTED_PER_SUB_ACCOUNT_MAX + 5):
        await keep(forge(case, 1, sequence=100 + number), "out of its turn")
    assert await case.count("rejected_receipts") == REJECTED_PER_SUB_ACCOUNT_MAX // 2
    assert await case.look() == []
    for number in range(REJECTED_PER_SUB_ACCOUNT_MAX):
        await keep(forge(case, 1, finished_at=number), "contradicts")
    assert await case.count("rejected_receipts") == REJECTED_PER_SUB_ACCOUNT_MAX
    assert (await case.only()).evidence.finding.kind is Kind.EQUIVOCATION


async def test_the_books_conflicts_are_bounded_too(case: Case) -> None:
    await case.buy()
    for number in range(CONFLICTS_PER_SUB_ACCOUNT_MAX + 5):
        with pytest.raises(VerificationError, match="two different"):
            await case.world.book.acknowledge(
                forge(case, 1, finished_at=number), Verification.VERIFIED, now_s=1
            )
    assert await case.count("voucher_conflicts") == CONFLICTS_PER_SUB_ACCOUNT_MAX


async def test_one_receipt_signed_twice_is_no_conflict(case: Case) -> None:
    await case.buy()
    (signed,) = case.broker.receipts.values()
    # the same words by another key of the provider's: other bytes, nothing contradicted
    again = forge(case, 1, Key(b"\x13" * 32))
    assert again.signature != signed.signature
    await case.world.book.acknowledge(again, Verification.VERIFIED, now_s=1)
    assert await case.count("voucher_conflicts") == 0
