"""The writer: never in a request's way; what is stored, dropped, lost, forgotten, found again."""

import asyncio
import contextlib
import gc
import logging

import pytest

from hanse.protocol.errors import HanseError, RequestError, TransientError, VerificationError
from hanse.protocol.signatures import ZERO_HASH
from hanse.settlement.traces.bundle import open_trace
from hanse.settlement.traces.document import RESPONSE_BYTES_TRACED_MAX, Side
from hanse.settlement.traces.notes import TraceState, open_trace_notes
from hanse.settlement.traces.object_store import open_memory_store, open_object_store
from hanse.settlement.traces.writer import open_trace_writer
from hanse.store import open_sqlite
from tests.settlement.trace_parts import (
    BODY,
    LOW_ORDER,
    PATH,
    PROMPT,
    PROVIDER_PRIVATE,
    RESPONSE,
    STRANGER_PRIVATE,
    USER_PRIVATE,
    Clock,
    get_only_note,
    make_request,
    read_all,
    record,
    run_writer,
)

DAY_S = 86_400


@pytest.fixture
async def database():
    database = await open_sqlite(":memory:")
    yield database
    await database.close()


class SlowStore:
    """Takes nothing until it is let go; then fails, or not."""

    location = "slow"

    def __init__(self, error: HanseError | None = None) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.asked = 0
        self.deleted: list[str] = []
        self._error = error
        self._real = open_memory_store()

    async def put(self, content: bytes) -> str:
        self.asked += 1
        self.begun.set()
        await self.go.wait()
        if self._error is not None:
            raise self._error
        return await self._real.put(content)

    async def has(self, name: str, length_bytes: int) -> bool:
        return await self._real.has(name, length_bytes)

    async def fetch(self, name: str) -> bytes:
        return await self._real.fetch(name)

    async def delete(self, name: str) -> None:
        self.deleted.append(name)
        await self._real.delete(name)


DOWN = TransientError("store_unavailable", "the store is down")


async def test_both_sides_can_open_what_was_stored_and_a_stranger_cannot(database):
    store = open_memory_store()
    async with run_writer(database, store) as writer:
        receipt = record(writer)
        assert await writer.wait_written(5)
        note = await get_only_note(writer.notes)
        assert note.state is TraceState.STORED
        assert await writer.notes.find_trace_hash(receipt.receipt) == note.trace_hash
        content, keys = (
            await store.fetch(note.trace_hash),
            await writer.notes.list_keys(note.trace_hash),
        )
        for private in (USER_PRIVATE, PROVIDER_PRIVATE):
            trace = open_trace(content, note.trace_hash, keys, private)
            assert (trace.body, trace.response, trace.receipt) == (BODY, RESPONSE, receipt)
            assert trace.side is Side.PROVIDER
        with pytest.raises(VerificationError):
            open_trace(content, note.trace_hash, keys, STRANGER_PRIVATE)
        assert writer.held_bytes == 0


@pytest.mark.parametrize("key", [ZERO_HASH, *LOW_ORDER])
async def test_a_hostile_key_of_the_other_side_leaves_the_trace_to_us_alone(database, key):
    store = open_memory_store()
    async with run_writer(database, store) as writer:
        record(writer, other_key=key)
        assert await writer.wait_written(5)
        note = await get_only_note(writer.notes)
        keys = await writer.notes.list_keys(note.trace_hash)
        assert [key.recipient for key in keys] == [Side.PROVIDER]
        content = await store.fetch(note.trace_hash)
        assert open_trace(content, note.trace_hash, keys, PROVIDER_PRIVATE).body == BODY


async def test_a_store_that_hangs_holds_up_no_request_and_what_does_not_fit_is_counted(database):
    store = SlowStore()
    async with run_writer(database, store, queue_max=3, workers=1, drain_s=0.0) as writer:
        for number in range(1, 11):
            record(writer, number)  # returns at once, and never raises
        assert not await writer.wait_written(0.05)
        assert writer.dropped == {"queue_full": 7}
        store.go.set()
        assert await writer.wait_written(5)
        assert writer.stored == 3
        assert writer.held_bytes == 0


async def test_what_is_captured_has_a_bound_over_all_requests(database):
    async with run_writer(database, bytes_max=len(BODY) + 30) as writer:
        voucher, receipt = make_request()
        first = writer.begin(voucher, PATH, BODY, ZERO_HASH)
        assert writer.begin(voucher, PATH, BODY, ZERO_HASH) is None
        first.add(b"x" * 31)
        first.add(b"more, after it was dropped")
        first.end(receipt)
        assert writer.dropped == {"no_memory": 2}
        assert writer.held_bytes == 0
        assert await writer.notes.list_newest(10) == []


async def test_an_answer_that_is_too_long_is_dropped_whole(database):
    async with run_writer(database) as writer:
        voucher, receipt = make_request()
        capture = writer.begin(voucher, PATH, BODY, ZERO_HASH)
        capture.add(bytes(RESPONSE_BYTES_TRACED_MAX))
        capture.add(b"x")
        capture.end(receipt)
        assert writer.dropped == {"too_large": 1}
        assert writer.held_bytes == 0


async def test_a_request_without_an_end_gives_its_room_back(database):
    async with run_writer(database) as writer:
        voucher, _ = make_request()
        capture = writer.begin(voucher, PATH, BODY, ZERO_HASH)
        capture.add(RESPONSE)
        capture.close()
        capture.close()
        assert writer.held_bytes == 0
        forgotten = writer.begin(voucher, PATH, BODY, ZERO_HASH)
        assert writer.held_bytes == len(BODY)
        del forgotten  # an answer that nobody read
        gc.collect()
        assert writer.held_bytes == 0


async def test_a_store_that_is_down_is_tried_three_times_and_then_the_trace_is_lost(database):
    store = SlowStore(DOWN)
    store.go.set()
    async with run_writer(database, store) as writer:
        receipt = record(writer)
        assert await writer.wait_written(5)
        assert store.asked == 3
        note = await get_only_note(writer.notes)
        assert note.state is TraceState.LOST
        assert await writer.notes.find_trace_hash(receipt.receipt) is None
        assert await writer.notes.list_keys(note.trace_hash) == []
        assert writer.dropped == {"store_unavailable": 1}
        await writer.sweep()
        (drops,) = await writer.notes.list_drops()
        assert (drops.reason, drops.dropped) == ("store_unavailable", 1)


async def test_books_that_refuse_lose_the_trace_and_nothing_else(tmp_path):
    database = await open_sqlite(tmp_path / "books.sqlite3")
    async with run_writer(database, drain_s=0.0) as writer:
        await database.close()
        record(writer)
        assert await writer.wait_written(5)
        assert writer.dropped == {"store_unavailable": 1}
        assert writer.held_bytes == 0


async def test_the_log_says_what_was_dropped_and_nothing_of_it(database, caplog):
    class Broken(SlowStore):
        async def put(self, content: bytes) -> str:
            raise ValueError(PROMPT.decode())

    with caplog.at_level(logging.DEBUG):
        async with run_writer(database, Broken(), queue_max=1) as writer:
            for number in range(1, 6):
                record(writer, number)
            await writer.wait_written(5)
    assert "queue_full" in caplog.text
    assert "internal_error" in caplog.text
    assert caplog.text.count("queue_full") == 1
    assert PROMPT.decode() not in caplog.text


async def test_a_submission_waits_for_a_trace_that_is_on_its_way(database):
    store = SlowStore()
    async with run_writer(database, store) as writer:
        receipt = record(writer)
        asked = asyncio.create_task(writer.find_trace_hash(receipt.receipt))
        await store.begun.wait()
        assert not asked.done()
        store.go.set()
        found = await asyncio.wait_for(asked, 5)
        assert found == (await get_only_note(writer.notes)).trace_hash


async def test_one_request_has_one_trace(database):
    async with run_writer(database) as writer:
        record(writer)
        record(writer)
        assert await writer.wait_written(5)
        assert len(await writer.notes.list_newest(10)) == 1
        assert writer.held_bytes == 0


@pytest.mark.parametrize(
    ("step", "state"), [("trace noted", TraceState.LOST), ("trace put", TraceState.STORED)]
)
async def test_a_crash_between_store_and_note_is_made_good(database, tmp_path, step, state):
    store, clock = open_object_store(str(tmp_path)), Clock()
    died = asyncio.Event()

    def failpoint(name: str) -> None:
        if name == step:
            died.set()
            raise asyncio.CancelledError  # the worker ends here, as a kill would end it

    crashing = run_writer(database, store, clock=clock, failpoint=failpoint, drain_s=0.0, workers=1)
    async with crashing as writer:
        receipt = record(writer)
        await asyncio.wait_for(died.wait(), 5)
    async with run_writer(database, store, clock=clock) as writer:
        assert (await get_only_note(writer.notes)).state is TraceState.PENDING
        assert await writer.notes.find_trace_hash(receipt.receipt) is None
        await writer.sweep()  # too young: another process may be at it
        assert (await get_only_note(writer.notes)).state is TraceState.PENDING
        clock.now_s += writer.settings.limits.pending_s + 1
        await writer.sweep()
        note = await get_only_note(writer.notes)
        assert note.state is state
        keys = await writer.notes.list_keys(note.trace_hash)
        assert bool(keys) is (state is TraceState.STORED)
        if keys:
            content = await store.fetch(note.trace_hash)
            assert open_trace(content, note.trace_hash, keys, USER_PRIVATE).body == BODY
        else:
            assert read_all(tmp_path) == b""


async def test_a_trace_that_is_too_old_is_forgotten_and_its_object_deleted(database, tmp_path):
    store, clock = open_object_store(str(tmp_path)), Clock()
    async with run_writer(database, store, clock=clock, days=7) as writer:
        receipt = record(writer, 1)
        assert await writer.wait_written(5)
        clock.now_s += 7 * DAY_S
        record(writer, 2)
        assert await writer.wait_written(5)
        clock.now_s += 1
        await writer.sweep()
        young, old = await writer.notes.list_newest(10)
        assert (young.state, old.state) == (TraceState.STORED, TraceState.FORGOTTEN)
        assert await writer.notes.list_keys(old.trace_hash) == []
        assert not old.has_object
        assert await writer.notes.find_trace_hash(receipt.receipt) == old.trace_hash
        with pytest.raises(RequestError):
            await store.fetch(old.trace_hash)
        assert await store.fetch(young.trace_hash)


async def test_zero_days_keep_for_ever(database):
    clock = Clock()
    async with run_writer(database, clock=clock, days=0) as writer:
        record(writer)
        assert await writer.wait_written(5)
        clock.now_s += 10_000 * DAY_S
        await writer.sweep()
        assert (await get_only_note(writer.notes)).state is TraceState.STORED


async def test_a_forgotten_trace_whose_store_is_down_is_noise_at_once_and_deleted_later(database):
    class Down(SlowStore):
        is_down = True

        async def delete(self, name: str) -> None:
            if self.is_down:
                raise DOWN
            await super().delete(name)

    store = Down()
    store.go.set()
    async with run_writer(database, store) as writer:
        record(writer)
        assert await writer.wait_written(5)
        note = await get_only_note(writer.notes)
        assert await writer.notes.forget(note.trace_hash, "asked")
        assert not await writer.notes.forget(note.trace_hash, "asked again")
        assert await writer.notes.list_keys(note.trace_hash) == []
        with pytest.raises(TransientError):
            await writer.sweep()
        store.is_down = False
        await writer.sweep()
        assert store.deleted == [note.trace_hash]
        await writer.sweep()
        assert store.deleted == [note.trace_hash]


async def test_what_is_forgotten_while_it_is_being_stored_stays_forgotten(database):
    store = SlowStore()
    async with run_writer(database, store) as writer:
        record(writer)
        async with asyncio.timeout(5):
            await store.begun.wait()
        note = await get_only_note(writer.notes)
        await writer.notes.forget(note.trace_hash, "asked")
        store.go.set()
        assert await writer.wait_written(5)
        assert (await get_only_note(writer.notes)).state is TraceState.FORGOTTEN
        assert store.deleted == [note.trace_hash]


async def test_forgetting_leaves_no_sealed_key_in_any_file(tmp_path):
    """The sealed keys are overwritten in the books, so the stored bytes are noise for ever."""
    database = await open_sqlite(tmp_path / "books.sqlite3")
    async with run_writer(database) as writer:
        for number in range(1, 6):
            record(writer, number)
        assert await writer.wait_written(5)
        sealed = {
            note.trace_hash: [
                key.sealed.hex().encode() for key in await writer.notes.list_keys(note.trace_hash)
            ]
            for note in await writer.notes.list_newest(10)
        }
        kept, *gone = sealed
        for name in gone:
            await writer.notes.forget(name, "asked")
    await database.close()
    content = read_all(tmp_path)
    assert all(key in content for key in sealed[kept])
    assert [key for name in gone for key in sealed[name] if key in content] == []


async def test_a_store_that_keeps_versions_keeps_noise(database, s3):
    import boto3

    bucket = "versioned"
    client = boto3.client("s3", endpoint_url=s3.url, region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    store = open_object_store(s3.location(bucket))
    async with run_writer(database, store) as writer:
        record(writer)
        assert await writer.wait_written(10)
        note = await get_only_note(writer.notes)
        await writer.notes.forget(note.trace_hash, "asked")
        await writer.sweep()
        with pytest.raises(RequestError):
            await store.fetch(note.trace_hash)
        (version,) = client.list_object_versions(Bucket=bucket)["Versions"]
        found = client.get_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        content = found["Body"].read()
        keys = await writer.notes.list_keys(note.trace_hash)
        for private in (USER_PRIVATE, PROVIDER_PRIVATE):
            with pytest.raises(VerificationError, match="destroyed"):
                open_trace(content, note.trace_hash, keys, private)


async def test_no_plaintext_ever_touches_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    database = await open_sqlite(tmp_path / "books.sqlite3")
    store = open_object_store(str(tmp_path / "traces"))
    async with run_writer(database, store) as writer:
        record(writer)
        assert await writer.wait_written(5)
        content = read_all(tmp_path)
        assert len(content) > 1_000
        assert PROMPT not in content
        assert b"nobody else" not in content
    await database.close()


async def test_names_find_one_note_or_say_why_not(database):
    async with run_writer(database) as writer:
        receipt = record(writer)
        assert await writer.wait_written(5)
        note = await get_only_note(writer.notes)
        assert await writer.notes.get(note.trace_hash) == note
        assert await writer.notes.get(note.request_id) == note
        assert (await writer.notes.find_of_receipt(receipt.receipt)) == note
        with pytest.raises(RequestError) as caught:
            await writer.notes.get("0x" + "77" * 32)
        assert caught.value.code == "not_found"


async def test_traces_need_a_key_of_our_own(database, tmp_path):
    from hanse.settlement.traces.capture import TraceSettings

    with pytest.raises(RequestError) as caught:
        await open_trace_writer(
            TraceSettings(str(tmp_path), ZERO_HASH), database, Side.USER, Clock()
        )
    assert caught.value.code == "configuration_invalid"


async def test_what_waits_when_it_stops_is_counted(database):
    store = SlowStore()
    with contextlib.suppress(TimeoutError):
        async with run_writer(database, store, workers=1, drain_s=0.0) as writer:
            for number in range(1, 4):
                record(writer, number)
            async with asyncio.timeout(5):
                await store.begun.wait()
    (drops,) = await (await open_trace_notes(database)).list_drops()
    assert (drops.reason, drops.dropped) == ("stopped", 2)
