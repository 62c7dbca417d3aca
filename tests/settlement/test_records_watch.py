"""The watch against recorders that are consistent in themselves, and wrong."""

import msgspec
import pytest

from hanse.protocol.merkle import get_proof
from hanse.protocol.records import Commit, Leaf, RecordEntry, RecordProof, Side, apply_commit
from hanse.protocol.signatures import ZERO_HASH, to_hex
from hanse.settlement.records.submission_book import open_submission_book
from hanse.settlement.records.watch import ChainHead, FaultError, Watch
from hanse.store import open_memory

URL, ADDRESS = "http://recorder.test", "0x" + "cc" * 20
ENTRY = RecordEntry("0x" + "a1" * 20, "0x" + "b2" * 20, "0x" + "c3" * 20, 1, "0x" + "d1" * 32, 5)
OURS = "0x" + "01" * 32


class ToldChain:
    """`RecordsView` that a test writes."""

    def __init__(self) -> None:
        self.head = ChainHead(10, 0, ZERO_HASH)
        self.committed: Commit | None = None

    async def fetch_block(self) -> int:
        return self.head.block

    async def read_head(self, recorder: str, block: int) -> ChainHead:
        return self.head

    async def fetch_committed(
        self, transaction_hash: str, recorder: str, number: int
    ) -> Commit | None:
        return self.committed


class ToldRecorder:
    """The two questions that the watch asks a recorder."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []

    async def fetch_address(self, url: str) -> str:
        return ADDRESS

    async def fetch_commits(self, url: str, after: int) -> list[Commit]:
        return [commit for commit in self.commits if commit.number > after]


def make_commits(count: int) -> list[Commit]:
    commits, before = [], (0, ZERO_HASH)
    for number in range(count):
        key = (*ENTRY.key[:3], number + 1)
        commits.append(apply_commit(before, [Leaf(key, "0x" + f"{number:064x}", 1)]))
        before = (commits[-1].number, commits[-1].head)
    return commits


def make_proof(leaf: Leaf, before=(0, ZERO_HASH)) -> RecordProof:
    inclusion = get_proof([leaf.get_value()], 0)
    return RecordProof(
        ADDRESS,
        apply_commit(before, [leaf]),
        leaf.user_trace_hash,
        leaf.provider_trace_hash,
        0,
        tuple(to_hex(sibling) for sibling in inclusion.siblings),
        "0x" + "77" * 32,
        9,
    )


@pytest.fixture
async def parts():
    database = await open_memory()
    chain, recorder = ToldChain(), ToldRecorder()
    book = await open_submission_book(database)
    yield Watch(book, recorder, chain), chain, recorder
    await database.close()


def show(chain: ToldChain, commit: Commit, block: int = 20) -> None:
    chain.head = ChainHead(block, commit.number, commit.head)


async def test_commits_are_followed_to_the_chains_head(parts):
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    recorder.commits = make_commits(5)
    show(chain, recorder.commits[2])  # the last two are sent and not confirmed yet
    known = await watch.sync(known, 20)
    assert (known.number, known.head) == (3, recorder.commits[2].head)
    show(chain, recorder.commits[4], 30)
    known = await watch.sync(known, 30)
    assert known.number == 5
    show(chain, recorder.commits[1])  # a node that lags shows an older head
    assert (await watch.sync(known, 12)).number == 5


async def test_a_recorder_that_does_not_serve_the_rest_is_only_behind(parts):
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    commits = make_commits(3)
    recorder.commits = commits[:1]
    show(chain, commits[2])
    assert (await watch.sync(known, 20)).number == 1


async def test_every_break_of_the_chain_of_heads_is_a_fork(parts):
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    commits = make_commits(3)
    show(chain, commits[2])
    for served in (
        [commits[0], commits[2]],  # one is left out
        [commits[1], commits[2]],
        [msgspec.structs.replace(commits[0], fee_total=2), *commits[1:]],
        [commits[1], commits[0], commits[2]],
    ):
        recorder.commits = served
        with pytest.raises(FaultError) as found:
            await watch.sync(known, 20)
        assert found.value.fault == "fork"
    # nothing that was served on the way counts as verified
    recorder.commits = commits
    assert (await watch.sync(await watch.meet(URL), 20)).number == 3


async def test_a_head_that_changes_without_a_commit_is_a_fork(parts):
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    recorder.commits = make_commits(1)
    show(chain, recorder.commits[0])
    known = await watch.sync(known, 20)
    chain.head = ChainHead(21, 1, "0x" + "ee" * 32)
    with pytest.raises(FaultError, match="another than the one verified"):
        await watch.sync(known, 21)


@pytest.mark.parametrize("side", Side)
async def test_a_leaf_without_our_trace_is_a_lie_although_its_proof_is_right(parts, side):
    watch, _, _ = parts
    known = await watch.meet(URL)
    entry = msgspec.structs.replace(ENTRY, trace_hash=OURS)
    for traces, is_honest in (
        ((OURS, ZERO_HASH) if side is Side.USER else (ZERO_HASH, OURS), True),
        ((ZERO_HASH, ZERO_HASH), False),
        ((ZERO_HASH, OURS) if side is Side.USER else (OURS, ZERO_HASH), False),
    ):
        proof = make_proof(Leaf(entry.key, entry.receipt_digest, 5, *traces))
        if is_honest:
            assert not await watch.verify_proof(known, side, entry, proof), "not on the chain yet"
            continue
        with pytest.raises(FaultError, match="this side's trace"):
            await watch.verify_proof(known, side, entry, proof)


async def test_a_root_that_the_chain_has_not_is_a_lie(parts):
    watch, chain, recorder = parts
    known = await watch.meet(URL)
    true = make_proof(Leaf(ENTRY.key, ENTRY.receipt_digest, 5))
    recorder.commits = [true.commit]
    show(chain, true.commit)
    known = await watch.sync(known, 20)
    assert await watch.verify_proof(known, Side.USER, ENTRY, true)
    invented = make_proof(Leaf(ENTRY.key, ENTRY.receipt_digest, 6))
    with pytest.raises(FaultError, match="commit 1 has head"):
        await watch.verify_proof(known, Side.USER, ENTRY, invented)


async def test_a_proof_from_before_we_met_is_held_against_its_transaction(parts):
    watch, chain, _ = parts
    proof = make_proof(Leaf(ENTRY.key, ENTRY.receipt_digest, 5))
    show(chain, proof.commit)
    known = await watch.meet(URL)  # meets it after its first commit
    chain.committed = proof.commit
    assert await watch.verify_proof(known, Side.USER, ENTRY, proof)
    for shown in (None, msgspec.structs.replace(proof.commit, root="0x" + "ee" * 32)):
        chain.committed = shown
        with pytest.raises(FaultError) as found:
            await watch.verify_proof(known, Side.USER, ENTRY, proof)
        assert found.value.fault == "lie"
