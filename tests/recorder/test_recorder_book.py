"""The recorder's book: taking, matching, committing, proving; idempotent and in any order."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError
from hanse.protocol.records import Reason, RecordEntry, Side, verify_record
from hanse.protocol.signatures import ZERO_HASH
from hanse.recorder.book import WAITING_S_MAX, RecorderBook, open_recorder_book
from hanse.recorder.entries import WAITING_PER_SUB_ACCOUNT_MAX, EntryState, TakenEntry
from hanse.recorder.settings import RecorderLimits
from hanse.store import open_database
from hanse.store.sqlite import open_sqlite

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
RECORDER, RECORDS = "0x" + "cc" * 20, "0x" + "dd" * 20
USER, PROVIDER, SIGNER = "0x" + "a1" * 20, "0x" + "b2" * 20, "0x" + "c3" * 20
NOW_S = 1_900_000_000


def make_entry(sequence=1, fee=5, digest=None, provider=PROVIDER, trace_hash=ZERO_HASH):
    digest = digest or "0x" + f"{sequence:02x}" * 32
    return RecordEntry(USER, provider, SIGNER, sequence, digest, fee, trace_hash)


async def take(book: RecorderBook, side: Side, *entries, commit_by=100, now_s=NOW_S):
    return await book.take(side, entries, commit_by=commit_by, now_s=now_s)


@pytest.fixture
async def book(database_url):
    database = await open_database(database_url)
    yield await open_recorder_book(database, RECORDER, DOMAIN, RECORDS)
    await database.close()


async def commit_all(book: RecorderBook, block=12):
    commit = await book.prepare_commit()
    if commit is not None:
        await book.confirm_commit(commit.number, "0x" + "77" * 32, block)
    return commit


async def test_an_entry_of_one_side_waits_with_a_reason(book):
    (taken,) = await take(book, Side.PROVIDER, make_entry())
    assert (taken.state, taken.reason) == (EntryState.WAITING, Reason.MISSING_AT_USER)
    waiting, more = await book.list_waiting(Side.USER, SIGNER)
    assert [(one.side, one.reason) for one in waiting] == [(Side.PROVIDER, Reason.MISSING_AT_USER)]
    assert more == ""
    assert await book.prepare_commit() is None


async def test_equal_entries_are_matched_committed_and_proven(book):
    mine = make_entry(trace_hash="0x" + "01" * 32)
    theirs = make_entry(trace_hash="0x" + "02" * 32)
    await take(book, Side.PROVIDER, theirs, commit_by=50)
    (taken,) = await take(book, Side.USER, mine, commit_by=60)
    assert (taken.state, taken.commit_by) == (EntryState.MATCHED, 60)
    (again,) = await take(book, Side.PROVIDER, theirs, commit_by=70)
    assert again == taken, "both sides get the block that was promised first"
    assert await book.find_proofs([mine]) == [None], "not before its commit is confirmed"

    commit = await commit_all(book)
    assert (commit.number, commit.count, commit.fee_total) == (1, 1, 5)
    (proof,) = await book.find_proofs([mine])
    verify_record(proof, mine.receipt_digest)
    assert (proof.user_trace_hash, proof.provider_trace_hash) == (
        mine.trace_hash,
        theirs.trace_hash,
    )
    assert (await take(book, Side.USER, mine))[0].state is EntryState.COMMITTED
    assert await book.prepare_commit() is None, "nothing is posted when there is nothing"
    assert await book.count_waiting() == 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"digest": "0x" + "ee" * 32}, Reason.DIGESTS_DIFFER), ({"fee": 6}, Reason.FEES_DIFFER)],
)
async def test_what_differs_waits_until_a_side_says_otherwise(book, changed, reason):
    await take(book, Side.PROVIDER, make_entry(**changed))
    (taken,) = await take(book, Side.USER, make_entry())
    assert (taken.state, taken.reason) == (EntryState.WAITING, reason)
    waiting, _ = await book.list_waiting(Side.PROVIDER, PROVIDER)
    assert {one.side for one in waiting} == set(Side)
    assert await book.prepare_commit() is None, "what stays unmatched never enters a root"
    (taken,) = await take(book, Side.PROVIDER, make_entry())  # it resumed, and knows better
    assert taken.state is EntryState.MATCHED


async def test_a_sequence_is_recorded_once(book):
    await take(book, Side.PROVIDER, make_entry())
    await take(book, Side.USER, make_entry())
    other = make_entry(digest="0x" + "ee" * 32)
    for side in Side:
        (taken,) = await take(book, side, other)
        assert (taken.state, taken.reason) == (EntryState.REFUSED, Reason.RECORDED_DIFFERENTLY)
    await commit_all(book)
    assert await book.find_proofs([other]) == [None]


@pytest.mark.parametrize("is_committed", [False, True])
async def test_nobody_gets_a_promise_over_a_leaf_that_is_not_there(book, is_committed):
    """A second submission with another trace would else be promised a root that never holds it."""
    traces = {Side.USER: "0x" + "01" * 32, Side.PROVIDER: "0x" + "02" * 32}
    for side, trace_hash in traces.items():
        await take(book, side, make_entry(trace_hash=trace_hash))
    if is_committed:
        await commit_all(book)
    for side, trace_hash in traces.items():
        (taken,) = await take(book, side, make_entry(trace_hash="0x" + "03" * 32))
        assert (taken.state, taken.reason) == (EntryState.REFUSED, Reason.RECORDED_DIFFERENTLY)
        (taken,) = await take(book, side, make_entry(trace_hash=trace_hash))
        assert taken.state is (EntryState.COMMITTED if is_committed else EntryState.MATCHED)


async def test_one_sub_account_cannot_fill_the_book(book):
    entries = [
        make_entry(n, digest="0x" + "01" * 32) for n in range(1, WAITING_PER_SUB_ACCOUNT_MAX + 2)
    ]
    states = []
    for first in range(0, len(entries), 500):
        states += await take(book, Side.USER, *entries[first : first + 500])
    assert [one.state for one in states[:-1]] == [EntryState.WAITING] * (len(entries) - 1)
    assert states[-1].reason is Reason.TOO_MANY_WAITING
    # neither the other side nor another sub-account is shut out by it
    (taken,) = await take(book, Side.PROVIDER, entries[-1])
    assert taken.state is EntryState.WAITING
    (taken,) = await take(book, Side.USER, make_entry(provider="0x" + "b3" * 20))
    assert taken.state is EntryState.WAITING


async def match(book: RecorderBook, *entries: RecordEntry, now_s: int = NOW_S) -> list[TakenEntry]:
    """The provider's entries wait; the user's side then makes the match."""
    await take(book, Side.PROVIDER, *entries, now_s=now_s)
    return await take(book, Side.USER, *entries, now_s=now_s)


async def open_bounded(database_url: str, **limits: int) -> RecorderBook:
    database = await open_database(database_url)
    return await open_recorder_book(database, RECORDER, DOMAIN, RECORDS, RecorderLimits(**limits))


async def test_what_waits_matches_no_further_than_its_providers_share(database_url):
    book = await open_bounded(database_url, open_leaves_of_provider_max=2)
    other = make_entry(9, provider="0x" + "b3" * 20)
    found = await match(book, *(make_entry(n) for n in (1, 2, 3)), other)
    assert [one.state for one in found] == [
        EntryState.MATCHED,
        EntryState.MATCHED,
        EntryState.REFUSED,
        EntryState.MATCHED,
    ]
    assert found[2].reason is Reason.OVER_SHARE
    assert await book.count_open() == 3
    waiting, _ = await book.list_waiting(Side.PROVIDER, PROVIDER)
    assert [one.entry.sequence for one in waiting] == [3], "the other side's stays"
    await commit_all(book)
    (again,) = await take(book, Side.USER, make_entry(3))
    assert again.state is EntryState.MATCHED
    await book._database.close()


@pytest.mark.parametrize(
    ("limit", "others"),
    [
        ("leaves_per_day_of_provider", {"provider": "0x" + "b3" * 20}),
        ("leaves_per_day_of_sub_account", {"user": "0x" + "a2" * 20}),
    ],
)
async def test_a_day_has_a_share_that_a_commit_and_a_restart_do_not_renew(
    database_url, limit, others
):
    day_s = NOW_S // 86_400 * 86_400
    book = await open_bounded(database_url, **{limit: 2})
    assert [one.state for one in await match(book, make_entry(1), now_s=day_s)] == [
        EntryState.MATCHED
    ]
    await commit_all(book)
    await book.sweep_waiting(day_s + 86_399)
    await book._database.close()
    book = await open_bounded(database_url, **{limit: 2})
    found = await match(book, make_entry(2), make_entry(3), now_s=day_s + 86_399)
    assert [one.state for one in found] == [EntryState.MATCHED, EntryState.REFUSED]
    assert found[1].reason is Reason.OVER_SHARE
    (other,) = await match(book, msgspec.structs.replace(make_entry(1), **others), now_s=day_s)
    assert other.state is EntryState.MATCHED
    (later,) = await match(book, make_entry(3), now_s=day_s + 86_400)
    assert later.state is EntryState.MATCHED
    await book.sweep_waiting(day_s + 86_400)
    rows = await book._database.read(lambda tx: tx.find_all("SELECT DISTINCT day FROM record_days"))
    assert rows == [(day_s // 86_400 + 1,)]
    await book._database.close()


async def test_old_entries_are_forgotten(book):
    await take(book, Side.USER, make_entry(1), now_s=NOW_S)
    await take(book, Side.USER, make_entry(2), now_s=NOW_S + WAITING_S_MAX)
    assert await book.sweep_waiting(NOW_S + WAITING_S_MAX + 1) == 1
    waiting, _ = await book.list_waiting(Side.USER, SIGNER)
    assert [one.entry.sequence for one in waiting] == [2]


async def test_a_commit_that_is_not_confirmed_is_prepared_again_unchanged(book):
    for side in Side:
        await take(book, side, make_entry(1))
    first = await book.prepare_commit()
    for side in Side:
        await take(book, side, make_entry(2))
    assert await book.prepare_commit() == first, "the root is fixed once it may have been sent"
    await book.confirm_commit(1, "0x" + "77" * 32, 12)
    second = await book.prepare_commit()
    assert (second.number, second.previous_head, second.count) == (2, first.head, 1)


async def test_a_truncated_list_says_so_and_gives_right_reasons(book):
    for n in range(1, 1_000, 400):
        await take(
            book, Side.USER, *[make_entry(m, digest="0x" + "01" * 32) for m in range(n, n + 400)]
        )
        await take(
            book,
            Side.PROVIDER,
            *[make_entry(m, digest="0x" + "02" * 32) for m in range(n, n + 400)],
        )
    waiting, more = await book.list_waiting(Side.PROVIDER, PROVIDER)
    assert more
    assert len(waiting) == 500
    assert {one.reason for one in waiting} == {Reason.DIGESTS_DIFFER}


async def test_one_provider_hides_no_other_from_a_signer(book):
    """Its waiting entries fill pages; whoever asks passes over all of them, or reads on."""
    low, high = "0x" + "00" * 20, "0x" + "ff" * 20
    for first in (1, 501):
        digest = "0x" + "01" * 32
        entries = [make_entry(n, digest=digest, provider=low) for n in range(first, first + 500)]
        await take(book, Side.PROVIDER, *entries)
    await take(book, Side.PROVIDER, make_entry(provider=high))
    found, after = [], ""
    for _ in range(4):
        waiting, after = await book.list_waiting(Side.USER, SIGNER, after)
        found += [(one.entry.provider, one.entry.sequence) for one in waiting]
        if not after:
            break
    assert found == [*((low, n) for n in range(1, 1_001)), (high, 1)]
    waiting, after = await book.list_waiting(Side.USER, SIGNER, low)
    assert ([one.entry.provider for one in waiting], after) == ([high], "")


@pytest.mark.parametrize("side", list(Side))
async def test_every_page_follows_the_last_whatever_waits(book, side):
    """Sub-accounts of several users, both sides of one key, and no key twice or left out."""
    users = ["0x" + f"{n:040x}" for n in range(1, 4)]
    expected = set()
    for user in users:
        for which, digest in ((Side.USER, "0x" + "01" * 32), (Side.PROVIDER, "0x" + "02" * 32)):
            entries = [
                msgspec.structs.replace(make_entry(n, digest=digest), user=user)
                for n in range(1, 301)
            ]
            await take(book, which, *entries)
            expected |= {(which, *entry.key) for entry in entries}
    found, after, pages = [], "", 0
    while not pages or after:
        waiting, after = await book.list_waiting(
            side, SIGNER if side is Side.USER else PROVIDER, after
        )
        assert {one.reason for one in waiting} == {Reason.DIGESTS_DIFFER}
        found += [(one.side, *one.entry.key) for one in waiting]
        pages += 1
    assert (set(found), len(found)) == (expected, len(expected))
    assert pages >= 4


@pytest.mark.parametrize("after", ["x", "0x00", "." * 5, f"{USER}.{USER}.{USER}.1", f"{USER}.x"])
async def test_a_place_that_is_none_is_refused(book, after):
    with pytest.raises(RequestError, match="after"):
        await book.list_waiting(Side.USER, SIGNER, after)


async def test_the_book_belongs_to_one_recorder_and_chain(tmp_path):
    database = await open_sqlite(tmp_path / "recorder.db")
    await open_recorder_book(database, RECORDER, DOMAIN, RECORDS)
    for recorder, domain, records in (
        (USER, DOMAIN, RECORDS),
        (RECORDER, Domain(1, DOMAIN.escrow), RECORDS),
        (RECORDER, DOMAIN, USER),
    ):
        with pytest.raises(RequestError, match="give each its own"):
            await open_recorder_book(database, recorder, domain, records)
    await database.close()


steps = st.lists(
    st.tuples(
        st.sampled_from(["user", "provider", "commit", "confirm"]),
        st.integers(1, 4),
        st.sampled_from(["0x" + "d1" * 32, "0x" + "d2" * 32]),
        st.integers(1, 2),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.randoms(use_true_random=False))
async def test_whatever_comes_in_whatever_order(tmp_path_factory, script, chance):
    """Only equal entries of both sides get into roots, each once, and every one has its proof."""
    database = await open_sqlite(":memory:")
    book = await open_recorder_book(database, RECORDER, DOMAIN, RECORDS)
    said = {Side.USER: {}, Side.PROVIDER: {}}
    recorded: dict[int, RecordEntry] = {}
    commits = []
    for what, sequence, digest, fee in script:
        if what == "commit":
            commit = await book.prepare_commit()
            if commit is not None and commit not in commits:
                commits.append(commit)
        elif what == "confirm":
            if commits:
                await book.confirm_commit(commits[-1].number, "0x" + "77" * 32, 5)
        else:
            side = Side[what.upper()]
            entry = make_entry(sequence, fee, digest)
            (taken,) = await take(book, side, entry)
            if sequence not in recorded:
                said[side][sequence] = entry
                if said[side.other].get(sequence) == entry:
                    recorded[sequence] = entry
                    assert taken.state is EntryState.MATCHED
                else:
                    assert taken.state is EntryState.WAITING
            elif entry != recorded[sequence]:
                assert taken.reason is Reason.RECORDED_DIFFERENTLY
            else:
                assert taken.state in (EntryState.MATCHED, EntryState.COMMITTED)
    for _ in range(2):
        commit = await commit_all(book)
        if commit is not None and commit not in commits:
            commits.append(commit)
    everything = list(recorded.values())
    chance.shuffle(everything)
    proofs = await book.find_proofs(everything)
    for entry, proof in zip(everything, proofs, strict=True):
        verify_record(proof, entry.receipt_digest)
        assert proof.commit in commits
    assert sum(commit.count for commit in commits) == len(recorded)
    assert sum(commit.fee_total for commit in commits) == sum(e.fee for e in everything)
    head = ZERO_HASH
    for number, commit in enumerate(commits, 1):
        assert (commit.number, commit.previous_head) == (number, head)
        head = commit.head
    await database.close()
