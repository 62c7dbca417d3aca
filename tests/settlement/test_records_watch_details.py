"""The watch one part at a time: what it asks, what it says of a fault, and what it keeps of it."""

import msgspec
import pytest

from hanse.protocol.errors import HanseError
from hanse.protocol.records import Commit, Leaf, Side
from hanse.protocol.records.proof_wire import commit_to_json, proof_to_json
from hanse.protocol.records.proofs import verify_commit, verify_record
from hanse.protocol.records.wire import entry_to_json
from hanse.protocol.signatures import ZERO_HASH
from hanse.settlement.records.submission_book import open_submission_book
from hanse.settlement.records.watch import PAGES_PER_ROUND_MAX, ChainHead, FaultError, Watch
from hanse.store import open_memory
from tests.settlement.test_records_watch import (
    ADDRESS,
    ENTRY,
    URL,
    ToldChain,
    ToldRecorder,
    make_commits,
    make_proof,
    show,
)

OTHER = "0x" + "dd" * 20
WRONG = "0x" + "ee" * 32


class NotedChain(ToldChain):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple] = []

    async def read_head(self, recorder, block):
        self.asked.append((recorder, block))
        return await super().read_head(recorder, block)

    async def fetch_committed(self, transaction_hash, recorder, number):
        self.asked.append((transaction_hash, recorder, number))
        return self.committed


class NotedRecorder(ToldRecorder):
    """Serves so many commits at once; notes after which."""

    def __init__(self, page=100) -> None:
        super().__init__()
        self.page, self.address = page, ADDRESS
        self.asked: list[tuple[str, int]] = []

    async def fetch_address(self, url):
        assert url == URL
        return self.address

    async def fetch_commits(self, url, after):
        self.asked.append((url, after))
        return (await super().fetch_commits(url, after))[: self.page]


@pytest.fixture
async def parts():
    database = await open_memory()
    chain, recorder = NotedChain(), NotedRecorder()
    yield Watch(await open_submission_book(database), recorder, chain), chain, recorder
    await database.close()


async def fail(work) -> FaultError:
    with pytest.raises(FaultError) as caught:
        await work
    return caught.value


async def test_a_recorder_is_met_where_the_chain_shows_it_and_keeps_its_key(parts):
    watch, chain, recorder = parts
    chain.head = ChainHead(33, 4, WRONG)
    known = await watch.meet(URL)
    assert (known.url, known.address, known.number, known.head) == (URL, ADDRESS, 4, WRONG)
    assert chain.asked == [(ADDRESS, 33)]
    chain.head = ChainHead(40, 5, ZERO_HASH)
    assert await watch.meet(URL) == known
    assert len(chain.asked) == 1, "where it stands is asked once"
    recorder.address = OTHER
    error = await fail(watch.meet(URL))
    assert error.fault == "lie"
    assert error.message == f"recorder {URL} has key {OTHER}, it was met with {ADDRESS}"
    assert error.evidence == {"url": URL, "met": ADDRESS, "now": OTHER}


async def test_pages_are_followed_one_after_another_so_many_a_round(parts):
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    recorder.page = 1
    recorder.commits = make_commits(PAGES_PER_ROUND_MAX + 1)
    show(chain, recorder.commits[-1])
    known = await watch.sync(known, 20)
    assert known.number == PAGES_PER_ROUND_MAX
    assert recorder.asked == [(URL, number) for number in range(PAGES_PER_ROUND_MAX)]
    assert chain.asked[-1] == (ADDRESS, 20)
    known = await watch.sync(known, 21)
    assert (known.number, known.head) == (PAGES_PER_ROUND_MAX + 1, recorder.commits[-1].head)
    count = len(recorder.asked)
    assert await watch.sync(known, 22) == known
    assert len(recorder.asked) == count, "nothing is asked for when nothing is new"


def evidence_of(known, page, chain=None):
    return {
        "recorder": ADDRESS,
        "verified": {"number": str(known.number), "head": known.head},
        "served": [commit_to_json(commit) for commit in page],
        "chain": chain,
    }


async def test_a_fork_is_told_with_what_was_served_and_what_the_chain_has(parts):
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    one, two = make_commits(2)
    chain.head = ChainHead(20, 1, WRONG)
    recorder.commits = [one, two]
    error = await fail(watch.sync(known, 20))
    assert error.fault == "fork"
    assert error.message == f"recorder {URL}: its commits do not lead to the chain's head"
    shown = {"block": 20, "number": "1", "head": WRONG}
    assert error.evidence == evidence_of(known, [one], shown)
    assert (await watch.meet(URL)).number == 0

    chain.head = ChainHead(20, 1, one.head)
    known = await watch.sync(known, 20)
    chain.head = ChainHead(21, 1, WRONG)
    error = await fail(watch.sync(known, 21))
    assert error.fault == "fork"
    assert error.message == f"recorder {URL}: the chain's head is another than the one verified"
    assert error.evidence == evidence_of(known, [], {"block": 21, "number": "1", "head": WRONG})


async def test_a_commit_that_follows_another_or_is_none_is_told(parts):
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    one, two, three = make_commits(3)
    show(chain, three)
    recorder.commits = [one, three]
    error = await fail(watch.sync(known, 20))
    assert error.message == (
        f"recorder {URL}: commit 3 follows {two.head}, expected is commit 2 after {one.head}"
    )
    assert error.evidence == evidence_of(known, [one, three])
    bad = msgspec.structs.replace(one, fee_total=2)
    recorder.commits = [bad]
    with pytest.raises(HanseError) as wrong:
        verify_commit(bad)
    error = await fail(watch.sync(known, 20))
    assert (error.fault, error.message) == ("fork", f"recorder {URL}: {wrong.value.message}")
    assert error.evidence == evidence_of(known, [bad])


async def meet_at(parts, commit: Commit):
    """A recorder whose one commit is verified."""
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    recorder.commits = [commit]
    show(chain, commit)
    return watch, await watch.sync(known, 20)


async def test_a_lie_is_told_with_the_entry_and_the_proof(parts):
    true = make_proof(Leaf(ENTRY.key, ENTRY.receipt_digest, 5))
    watch, known = await meet_at(parts, true.commit)
    damaged = msgspec.structs.replace(true, user_trace_hash=WRONG)
    with pytest.raises(HanseError) as wrong:
        verify_record(damaged, ENTRY.receipt_digest)
    traced = msgspec.structs.replace(ENTRY, trace_hash=WRONG)
    invented = make_proof(Leaf(ENTRY.key, ENTRY.receipt_digest, 6))
    cases = [
        (ENTRY, damaged, wrong.value.message),
        (ENTRY, msgspec.structs.replace(true, recorder=OTHER), f"the proof is {OTHER}'s"),
        (
            traced,
            true,
            f"the leaf has {ZERO_HASH} as this side's trace, submitted was {WRONG}",
        ),
        (
            ENTRY,
            invented,
            f"commit 1 has head {true.commit.head}, the proof {invented.commit.head}",
        ),
    ]
    for entry, proof, reason in cases:
        error = await fail(watch.verify_proof(known, Side.PROVIDER, entry, proof))
        assert (error.fault, error.message) == ("lie", f"recorder {URL}: {reason}")
        assert error.evidence == {
            "recorder": ADDRESS,
            "entry": entry_to_json(entry),
            "proof": proof_to_json(proof),
        }


async def test_a_proof_ahead_of_what_is_verified_waits(parts):
    watch, chain, _ = parts
    known = await watch.meet(URL)
    proof = make_proof(Leaf(ENTRY.key, ENTRY.receipt_digest, 5))
    assert await watch.verify_proof(known, Side.USER, ENTRY, proof) is False
    show(chain, proof.commit)
    watch, known = await meet_at(parts, proof.commit)
    assert await watch.verify_proof(known, Side.USER, ENTRY, proof) is True


async def test_a_transaction_that_committed_another_is_told(parts):
    watch, chain, _ = parts
    proof = make_proof(Leaf(ENTRY.key, ENTRY.receipt_digest, 5))
    chain.head = ChainHead(20, 1, proof.commit.head)
    known = await watch.meet(URL)
    chain.committed = proof.commit
    assert await watch.verify_proof(known, Side.USER, ENTRY, proof) is True
    assert chain.asked[-1] == (proof.transaction_hash, ADDRESS, 1)
    chain.committed = None
    error = await fail(watch.verify_proof(known, Side.USER, ENTRY, proof))
    assert error.message == f"recorder {URL}: {proof.transaction_hash} committed nothing of it"
    for changed in ({"number": 2}, {"root": WRONG}, {"head": WRONG}):
        chain.committed = found = msgspec.structs.replace(proof.commit, **changed)
        error = await fail(watch.verify_proof(known, Side.USER, ENTRY, proof))
        assert error.fault == "lie"
        assert error.message == (
            f"recorder {URL}: {proof.transaction_hash} committed root {found.root} as "
            f"{found.number}, the proof says {proof.commit.root} as 1"
        )
        assert error.evidence["entry"] == entry_to_json(ENTRY)
        assert error.evidence["proof"] == proof_to_json(proof)
