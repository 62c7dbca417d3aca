"""Recorders that lie, stall, fork or fall silent: found out, with evidence, and left."""

import contextlib
import json

import pytest

from hanse.protocol.records import Leaf, PromiseKind, apply_commit, hash_entries
from hanse.protocol.records.proof_wire import commit_to_json
from hanse.protocol.records.verify import verify_promise
from hanse.protocol.records.wire import entry_from_json, promise_from_json
from hanse.protocol.signatures import ZERO_HASH, to_hex
from tests.recorder.bad_recorder import run_tampering
from tests.recorder.record_parts import ReceiptList, digest_of, key_of, until

pytestmark = pytest.mark.slow
FAKE = "0x" + "fa" * 32


def spoil_siblings(path, answer):
    for proof in answer.get("proofs", []):
        if proof is not None:
            proof["siblings"] = [FAKE, *proof["siblings"][1:]]
    return answer


def spoil_traces(path, answer):
    for proof in answer.get("proofs", []):
        if proof is not None:
            proof["provider_trace_hash"] = FAKE
    return answer


def promise_nothing(path, answer):
    return {**answer, "matched": None, "held": None} if path == "/hanse/v1/records" else answer


def promise_by_another_key(path, answer):
    if path == "/hanse/v1/records" and answer["matched"]:
        answer["matched"]["entries_hash"] = FAKE
    return answer


def promise_far_ahead(path, answer):
    if path == "/hanse/v1/records" and answer["matched"]:
        answer["matched"]["block"] += 100_000  # not even signed so, which is a lie already
    return answer


def change_key(path, answer):
    return {**answer, "recorder": "0x" + "12" * 20} if path.endswith("/head") else answer


def withhold_proofs(path, answer):
    return {**answer, "proofs": [None for _ in answer["proofs"]]} if "proofs" in answer else answer


def rewrite_history(path, answer):
    """Another root in each commit, consistent in itself; but the chain has the true heads."""
    if "commits" not in answer:
        return answer
    made, before = [], (int(answer["commits"][0]["number"]) - 1, ZERO_HASH)
    for commit in answer["commits"]:
        leaf = Leaf(("0x" + "01" * 20,) * 3 + (1,), FAKE, int(commit["fee_total"]))
        forged = apply_commit((before[0], commit["previous_head"]), [leaf])
        made.append({**commit, **commit_to_json(forged)})
        before = (forged.number, forged.head)
    return {**answer, "commits": made}


def break_a_link(path, answer):
    for commit in answer.get("commits", []):
        commit["head"] = FAKE
    return answer


@contextlib.asynccontextmanager
async def two_recorders(world):
    """A recorder behind a tampering proxy, and an honest one."""
    bad = await world.start_recorder(name="bad")
    good = await world.start_recorder(name="good")
    try:
        async with run_tampering(bad.recorder) as (tampering, url):
            yield tampering, url, good.url, bad
    finally:
        await bad.stop()
        await good.stop()


async def play_until_recorded(world, sides, count) -> None:
    async def is_recorded() -> bool:
        for side in sides:
            waiting = await side.book.list_waiting()
            await side.book.note_asked([known.entry for known in waiting], 0)
            await side.step()
        await world.market.node.mine(1)
        return [await s.book.count_states() for s in sides] == [{"recorded": count}] * len(sides)

    await until(is_recorded, 40)


@pytest.mark.parametrize(
    ("tamper", "fault", "says"),
    [
        (spoil_siblings, "lie", "leads to"),
        (spoil_traces, "lie", "leads to"),
        (promise_nothing, "lie", "promises nothing"),
        (promise_by_another_key, "lie", "promise is"),
        (promise_far_ahead, "lie", "promise is signed by"),
        (change_key, "lie", "has key"),
        (withhold_proofs, "stall", "promised a root by block"),
        (rewrite_history, "fork", "do not lead to the chain's head"),
        (break_a_link, "fork", "says head"),
    ],
)
async def test_a_bad_recorder_is_left_for_the_next(world, tamper, fault, says):
    seller = await world.add_seller()
    buyer = await world.add_buyer(seller)
    receipts = [world.make_receipt(seller, buyer, n) for n in range(1, 4)]
    async with (
        two_recorders(world) as (tampering, bad_url, good_url, _),
        world.submitter(seller, ReceiptList(receipts), bad_url, good_url, unmatched_s=2.0) as one,
        world.submitter(buyer, ReceiptList(receipts), bad_url, good_url, unmatched_s=2.0) as two,
    ):
        if tamper is change_key:
            await one.step()
            await two.step()
        tampering.tamper = tamper
        await play_until_recorded(world, [one, two], 3)
        bad = [known for known in await two.book.list_recorders() if known.url == bad_url]
        assert [known.fault for known in bad] == [fault]
        assert says in bad[0].reason
        evidence = json.loads(bad[0].evidence)
        assert evidence["recorder" if fault != "lie" or tamper is not change_key else "met"]
        for signed in receipts:
            known = await two.book.find_entry(key_of(signed))
            assert known.recorder == good_url
        good = await two.book.find_recorder(good_url)
        assert (good.fault, await two.get_head()) == ("", bytes.fromhex(good.head[2:]))


async def test_a_broken_promise_is_evidence_that_anyone_can_check(world):
    seller = await world.add_seller()
    buyer = await world.add_buyer(seller)
    receipts = [world.make_receipt(seller, buyer, n) for n in range(1, 3)]
    async with (
        two_recorders(world) as (tampering, bad_url, _, process),
        world.submitter(seller, ReceiptList(receipts), bad_url) as one,
        world.submitter(buyer, ReceiptList(receipts), bad_url) as two,
    ):
        tampering.tamper = withhold_proofs
        await one.step()

        async def is_found_out() -> bool:
            await two.step()
            await world.market.node.mine(5)
            return bool((await two.book.list_recorders())[0].fault)

        await until(is_found_out)
        evidence = json.loads((await two.book.list_recorders())[0].evidence)
        promise = promise_from_json(evidence["promise"])
        entries = [entry_from_json(entry) for entry in evidence["entries"]]
        verify_promise(
            promise, world.domain, process.recorder.address, PromiseKind.MATCHED, entries
        )
        assert promise.promise.entries_hash == to_hex(hash_entries(entries))
        assert promise.promise.block < evidence["chain"]["block"]
        assert {entry.receipt_digest for entry in entries} == {
            digest_of(world, signed) for signed in receipts
        }
        # with no other recorder everything waits, and nothing is lost
        assert await two.book.count_states() == {"new": 2}
        await two.step()
        assert await two.get_head() == bytes(32)


async def test_a_silent_recorder_is_passed_over_and_at_fault_only_for_a_promise(world):
    seller = await world.add_seller()
    buyer = await world.add_buyer(seller)
    receipts = [world.make_receipt(seller, buyer, n) for n in range(1, 3)]
    mine, theirs = ReceiptList(receipts[:1]), ReceiptList(receipts[:1])
    first = await world.start_recorder(name="first")
    second = await world.start_recorder(name="second")
    urls = (first.url, second.url)
    async with (
        world.submitter(seller, mine, *urls, unreachable_s=0.3) as one,
        world.submitter(buyer, theirs, *urls, unreachable_s=0.3) as two,
    ):
        await one.step()
        await two.step()
        assert await two.book.count_states() == {"matched": 1}
        await first.stop()
        mine.receipts = theirs.receipts = receipts
        # the new receipt goes to the second; the promise of the first is still in time
        promised = (await two.book.find_entry(key_of(receipts[0]))).commit_by

        async def is_passed_over() -> bool:
            for side in (one, two):
                waiting = await side.book.list_waiting()
                await side.book.note_asked([known.entry for known in waiting], 0)
                await side.step()
            known = await two.book.find_entry(key_of(receipts[1]))
            return known is not None and known.recorder == second.url

        await until(is_passed_over)

        head = (await world.market.rpc.fetch_head()).number
        assert head < promised
        assert [r.fault for r in await two.book.list_recorders()] == ["", ""]

        async def has_kept_its_promise() -> bool:
            """The second; else the blocks mined below would make it late as well."""
            await is_passed_over()
            await world.market.node.mine(1)
            counts = [await side.book.count_states() for side in (one, two)]
            return all(count.get("recorded", 0) >= 1 for count in counts)

        await until(has_kept_its_promise)
        # block by block: a jump would make what the second promises late as it is promised
        await play_until_recorded(world, [one, two], 2)
        faults = {r.url: r.fault for r in await two.book.list_recorders()}
        assert faults == {urls[0]: "stall", urls[1]: ""}
    await second.stop()


async def test_what_differs_is_resumed_and_then_recorded(world):
    """The user's side lost a receipt's right version; the handshake brings it, and it matches."""
    seller = await world.add_seller()
    buyer = await world.add_buyer(seller)
    receipts = [world.make_receipt(seller, buyer, n) for n in range(1, 3)]
    theirs = ReceiptList(receipts[:1])
    resumed = []
    process = await world.start_recorder()

    async def resume(provider) -> None:
        resumed.append(provider)
        theirs.receipts = receipts

    async with (
        world.submitter(seller, ReceiptList(receipts), process.url) as one,
        world.submitter(buyer, theirs, process.url, resume=resume) as two,
    ):
        await one.step()
        await two.step()
        assert resumed == [seller.owner.address], "the recorder lists what the user lacks"
        await play_until_recorded(world, [one, two], 2)
    await process.stop()


async def test_what_stays_unmatched_never_enters_a_root(world):
    seller = await world.add_seller()
    buyer = await world.add_buyer(seller)
    agreed = [world.make_receipt(seller, buyer, n) for n in range(1, 3)]
    process = await world.start_recorder()
    async with (
        world.submitter(
            seller, ReceiptList([*agreed, world.make_receipt(seller, buyer, 3, fee=3)]), process.url
        ) as one,
        world.submitter(
            buyer, ReceiptList([*agreed, world.make_receipt(seller, buyer, 3, fee=4)]), process.url
        ) as two,
    ):

        async def is_done() -> bool:
            for side in (one, two):
                waiting = await side.book.list_waiting()
                await side.book.note_asked([known.entry for known in waiting], 0)
                await side.step()
            await world.market.node.mine(1)
            return (await one.book.count_states()).get("recorded") == 2

        await until(is_done)
        for side in (one, two):
            (left,) = await side.book.list_waiting()
            assert (left.entry.sequence, left.reason) == (3, "digests_differ")
        await world.market.node.mine(20)
        commits = await world.read_commits(process.recorder.address)
        assert sum(commit.count for commit in commits) == 2
    await process.stop()


async def test_an_entry_that_nobody_matches_goes_to_the_next_recorder(world):
    seller = await world.add_seller()
    buyer = await world.add_buyer(seller)
    receipts = [world.make_receipt(seller, buyer, 1)]
    first = await world.start_recorder(name="first")
    second = await world.start_recorder(name="second")
    async with (
        world.submitter(
            seller, ReceiptList(receipts), first.url, second.url, unmatched_s=0.0
        ) as one,
        world.submitter(buyer, ReceiptList(receipts), second.url) as two,
    ):
        await one.step()
        await two.step()
        (known,) = await one.book.list_waiting()
        assert (known.recorder, known.reason) == (first.url, "missing_at_user")
        await one.book.note_asked([known.entry], 0)
        await one.step()
        assert (await one.book.find_entry(key_of(receipts[0]))).recorder == second.url
        await play_until_recorded(world, [one, two], 1)
    await first.stop()
    await second.stop()
