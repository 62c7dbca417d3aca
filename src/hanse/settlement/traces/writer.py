"""Takes traces off the path of requests and stores them; never delays or fails a request.

    writer = TraceWriter(settings, notes, store, Side.PROVIDER)
    capture = writer.begin(signed_voucher, path, body, other_key)   # None: no room, and counted
    capture.add(bytes)                                              # as they are sent or received
    capture.end(signed_receipt)                                     # hands it over and returns

What is captured and what waits together have a bound in bytes, what waits one in number. Whatever
does not fit, and whatever the store refuses three times, is dropped, counted by reason, shown by
`hanse traces list` and the metrics, and said in the log (without contents). Encrypting happens in a
thread; the plaintext is in memory only and is let go of at once.

`find_trace_hash` is asked before a receipt goes to the recorder, whose leaf binds the hash; it
waits a bounded time for what is on its way.

Source: docs/decisions/0020-traces.md.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Self

from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.protocol.messages import Receipt, SignedVoucher
from hanse.protocol.signatures import ZERO_HASH, Hash32
from hanse.settlement.traces.capture import TraceCapture, TraceSettings
from hanse.settlement.traces.document import EncryptedTrace, Side, Trace, encrypt_trace
from hanse.settlement.traces.notes import SealedKey, TraceNote, TraceNotes, open_trace_notes
from hanse.settlement.traces.object_store import ObjectStore, open_object_store
from hanse.settlement.traces.sealing import seal_data_key
from hanse.store.database import Database

RECORD_WAIT_S = 5.0
"""How long a submission to the recorder waits for traces that are on their way to the store."""

NO_WAIT_S = 60.0

_log = logging.getLogger(__name__)


async def open_trace_writer(
    settings: TraceSettings,
    database: Database,
    side: Side,
    now_s: Callable[[], float],
    failpoint: Callable[[str], None] = lambda name: None,
) -> "TraceWriter":
    """A writer over a side's database and the store that the settings name; not yet at work.

    Raises:
        RequestError: `configuration_invalid` if the store cannot be opened, or we have no key.
    """
    if settings.encryption_key == ZERO_HASH:
        raise RequestError(
            "configuration_invalid", "traces are on, and there is no encryption key to seal them to"
        )
    store, notes = open_object_store(settings.location), await open_trace_notes(database)
    return TraceWriter(settings, notes, store, side, now_s, failpoint)


class TraceWriter:
    """Stores the traces of one side. Use it as an async context manager."""

    def __init__(
        self,
        settings: TraceSettings,
        notes: TraceNotes,
        store: ObjectStore,
        side: Side,
        now_s: Callable[[], float],
        failpoint: Callable[[str], None] = lambda name: None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._random_bytes = random_bytes
        self.settings, self.notes, self.side = settings, notes, side
        self.stored = 0
        self.dropped: Counter[str] = Counter()
        self._unsaid: Counter[str] = Counter()
        self._store, self._now_s, self._failpoint = store, now_s, failpoint
        self._bytes, self._has_warned, self._no_wait_until = 0, False, 0.0
        self._queue: asyncio.Queue[tuple[Trace, Hash32, int]] = asyncio.Queue(
            settings.limits.queue_max
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for _ in range(self.settings.limits.workers):
            self._tasks.append(asyncio.create_task(self._work()))
        self._tasks.append(asyncio.create_task(self._sweep_rounds()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.wait_written(self.settings.limits.drain_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()
            self.count_drop("stopped")
        with contextlib.suppress(HanseError):
            await self._note_drops()

    def begin(
        self, signed: SignedVoucher, path: str, body: bytes, other_key: Hash32
    ) -> TraceCapture | None:
        """Begin to capture one request; None, and counted, if there is no room.

        `other_key` is the other side's public key, zero if it has none.
        """
        if len(body) > REQUEST_BODY_BYTES_MAX or not self.reserve(len(body)):
            self.count_drop("no_memory")
            return None
        return TraceCapture(self, signed, path, body, other_key)

    def reserve(self, length_bytes: int) -> bool:
        """Take room for so many bytes, if there is."""
        if self._bytes + length_bytes > self.settings.limits.bytes_max:
            return False
        self._bytes += length_bytes
        return True

    def give_back(self, length_bytes: int) -> None:
        """Give room back."""
        self._bytes -= length_bytes

    @property
    def held_bytes(self) -> int:
        """Room that is taken now."""
        return self._bytes

    def take(self, trace: Trace, other_key: Hash32, length_bytes: int) -> None:
        """Queue a trace; its room is given back once it is stored or dropped."""
        try:
            self._queue.put_nowait((trace, other_key, length_bytes))
        except asyncio.QueueFull:
            self.give_back(length_bytes)
            self.count_drop("queue_full")

    def count_drop(self, reason: str) -> None:
        """Count a request that leaves no trace; the first of each reason is said in the log."""
        if not self.dropped[reason]:
            _log.warning("a trace was dropped: %s; further ones are only counted", reason)
        self.dropped[reason] += 1
        self._unsaid[reason] += 1

    async def find_trace_hash(self, receipt: Receipt) -> Hash32 | None:
        """See `TraceNotes.find_trace_hash`; waits a bounded time for what is on its way.

        After a wait in vain it does not wait again for a while, so a store that hangs holds up a
        whole submission to the recorder once.
        """
        is_waiting = self._now_s() >= self._no_wait_until
        if is_waiting and not await self.wait_written(RECORD_WAIT_S):
            self._no_wait_until = self._now_s() + NO_WAIT_S
        return await self.notes.find_trace_hash(receipt)

    async def wait_written(self, most_s: float) -> bool:
        """Wait until everything that ended so far is stored or dropped; False if time ran out."""
        try:
            async with asyncio.timeout(most_s):
                await self._queue.join()
        except TimeoutError:
            return False
        return True

    async def sweep(self) -> None:
        """Look after what a crash left, forget what is too old, delete what is left over.

        Raises:
            TransientError: `store_unavailable`; the next round goes on.
        """
        now_s = int(self._now_s())
        await self._note_drops()
        for note in await self.notes.list_pending(now_s - self.settings.limits.pending_s):
            if note.location != self._store.location:
                continue  # another process's, or of a store that was changed since
            if await self._store.has(note.trace_hash, note.object_bytes):
                await self.notes.finish(note.trace_hash)
            else:
                await self.notes.lose(note.trace_hash, "the process died before it was stored")
        if self.settings.days:
            for note in await self.notes.list_stored(now_s - self.settings.days * 86_400):
                await self.notes.forget(note.trace_hash, f"older than {self.settings.days} days")
        for note in await self.notes.list_left():
            if note.location == self._store.location:
                await self._store.delete(note.trace_hash)
                await self.notes.mark_deleted(note.trace_hash)

    async def _work(self) -> None:
        while True:
            trace, other_key, length_bytes = await self._queue.get()
            try:
                await self._write(trace, other_key)
            except HanseError as error:
                self.count_drop(error.code)
            except Exception as error:
                # Without the exception's text: that may hold what the trace holds.
                _log.error("a defect in writing a trace: %s", type(error).__name__)
                self.count_drop("internal_error")
            finally:
                del trace  # the plaintext goes as soon as it is done with
                self.give_back(length_bytes)
                self._queue.task_done()

    async def _write(self, trace: Trace, other_key: Hash32) -> None:
        encrypted = await asyncio.to_thread(encrypt_trace, trace, self._random_bytes)
        receipt = trace.receipt.receipt
        note = TraceNote(
            receipt.user,
            receipt.provider,
            receipt.signer,
            receipt.request_hash,
            trace.request.request_id,
            receipt.sequence,
            encrypted.trace_hash,
            len(encrypted.content),
            self._store.location,
            int(self._now_s()),
        )
        if not await self.notes.begin(note, self._seal(encrypted, other_key)):
            return
        self._failpoint("trace noted")
        await self._put(encrypted)
        self._failpoint("trace put")
        if await self.notes.finish(note.trace_hash):
            self.stored += 1
        else:  # forgotten meanwhile
            await self._store.delete(note.trace_hash)

    async def _put(self, encrypted: EncryptedTrace) -> None:
        for pause_s in (*self.settings.limits.pauses_s, None):
            try:
                await self._store.put(encrypted.content)
                return
            except HanseError as error:
                if pause_s is None:
                    await self.notes.lose(encrypted.trace_hash, error.message)
                    raise
                await asyncio.sleep(pause_s)

    def _seal(self, encrypted: EncryptedTrace, other_key: Hash32) -> list[SealedKey]:
        """To both sides; to ourselves alone if the other's key is none or of low order."""
        other = Side.USER if self.side is Side.PROVIDER else Side.PROVIDER
        keys = []
        for recipient, key in ((self.side, self.settings.encryption_key), (other, other_key)):
            if recipient is other and key == ZERO_HASH:
                continue
            try:
                sealed = seal_data_key(encrypted.data_key, key, encrypted.trace_hash)
            except HanseError:
                if recipient is self.side:
                    raise
                self._warn_of_key(other)
                continue
            keys.append(SealedKey(recipient, key, sealed))
        return keys

    def _warn_of_key(self, other: Side) -> None:
        if not self._has_warned:
            _log.warning("an encryption key of a %s is unusable: traces are then ours alone", other)
        self._has_warned = True

    async def _sweep_rounds(self) -> None:
        while True:
            try:
                await self.sweep()
            except HanseError as error:
                _log.warning("traces are swept later: %s", error.message)
            await asyncio.sleep(self.settings.limits.sweep_interval_s)

    async def _note_drops(self) -> None:
        unsaid, self._unsaid = self._unsaid, Counter()
        if not unsaid:
            return
        try:
            await self.notes.count_drops(dict(unsaid), int(self._now_s()))
        except HanseError:
            self._unsaid += unsaid
            raise
