"""The loop of one side of a market: submit receipts to a recorder, watch it, keep the proofs.

    submitter = Submitter(settings, identity, book, source, client, view, now_s=time.time)
    await submitter.run()          # as a task; `await submitter.step()` is one round
    await submitter.get_head()     # 32 bytes: what a settlement names as its records head

`hanse.settlement.records.sides` makes one over a side's own database.

One round:

1. Receipts that are new in our own book become entries.
2. Entries that are new, or unmatched and due again, are submitted. What the answer promises is
   checked and stored.
3. Each recorder that owes us something is watched: its heads against the chain, its proofs against
   its heads, its promises against the block.
4. What we lack and the other side has submitted is fetched by the resume handshake (the user's
   side), and comes up in the next round.

A recorder found at fault is not used any more; the evidence stays, and its entries go to the next
of the list. One that does not answer is passed over for as long, and is at fault only once a block
that it promised is long over. An entry that stays unmatched goes to the next as well: perhaps the
other side uses that one.

Source: `docs/records.md`, section "Watching a recorder".
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from hanse.protocol.errors import HanseError, InvariantError, TransientError
from hanse.protocol.limits import RECORD_ENTRIES_PER_SUBMISSION_MAX
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.records import RecordEntry, SignedSubmission
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, to_bytes
from hanse.settlement.records.answers import Identity, read_answer
from hanse.settlement.records.proving import Prover
from hanse.settlement.records.recorder_client import RecorderClient
from hanse.settlement.records.sources import to_record_entry
from hanse.settlement.records.submission_book import (
    ReceiptSource,
    SubmissionBook,
    SubmittedEntry,
)
from hanse.settlement.records.watch import FaultError, RecordsView, Watch

BATCHES_PER_ROUND_MAX = 20
"""Submissions of one round: 10,000 entries; the next round goes on."""

RESUMES_PER_ROUND_MAX = 20
"""Providers that one recorder's list may have us ask in one round: it may name any address."""

RESUMES_REMEMBERED_MAX = 1_000
"""Providers of which we know when we asked them: those that never were come before them."""

UNMATCHED_PAGES_PER_ROUND_MAX = 20
"""Pages of one recorder's list read in one round, 500 entries each; the next round goes on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordsSettings:
    """What whoever runs a side decides.

    Attributes:
        recorders: base URLs, the preferred first; empty: nothing is recorded.
        interval_s: between rounds.
        unreachable_s: a recorder that has not answered for so long is passed over, and one whose
            promised block is over for as long without an answer is at fault.
        unmatched_s: an entry that is unmatched for so long goes to the next recorder.
        resume_s: between resume handshakes with one provider for entries that we lack.
    """

    recorders: tuple[str, ...] = ()
    interval_s: float = 2.0
    unreachable_s: float = 60.0
    unmatched_s: float = 600.0
    resume_s: float = 60.0


FindTraceHash = Callable[[SignedReceipt], Awaitable[Hash32]]
"""The hash of this side's trace of a receipt's request; zero if it keeps none."""


async def find_no_trace(signed: SignedReceipt) -> Hash32:
    """For a side that keeps no traces."""
    return ZERO_HASH


class Submitter:
    """One side's loop. See the module."""

    def __init__(
        self,
        settings: RecordsSettings,
        identity: Identity,
        book: SubmissionBook,
        source: ReceiptSource,
        client: RecorderClient,
        view: RecordsView,
        *,
        now_s: Callable[[], float],
        find_trace_hash: FindTraceHash = find_no_trace,
        resume: Callable[[Address], Awaitable[object]] | None = None,
    ) -> None:
        self.settings, self.book = settings, book
        self._identity, self._source, self._client, self._view = identity, source, client, view
        self._watch = Watch(book, client, view)
        self._prover = Prover(book, client, self._watch, identity.side, settings.unreachable_s)
        self._now_s, self._find_trace_hash, self._resume = now_s, find_trace_hash, resume
        self._silent_since: dict[str, float] = {}
        self._resumed_at: dict[Address, float] = {}
        self._listed_to: dict[str, str] = {}
        self._looked_for_missing = 0.0

    async def run(self) -> None:
        """One round after another for ever; ends by cancellation or `InvariantError`."""
        if not self.settings.recorders:
            await asyncio.Event().wait()  # there is nothing to do, and our end would be a failure
        while True:
            try:
                await self.step()
            except InvariantError:
                raise
            except HanseError as error:
                _log.warning("records wait: %s", error.message)
            await asyncio.sleep(self.settings.interval_s)

    async def step(self) -> None:
        """One round.

        Raises:
            TransientError: our own chain or store does not answer.
        """
        now_s = int(self._now_s())
        for _ in range(BATCHES_PER_ROUND_MAX):
            if not await self.book.collect(self._source, self._to_entry, now_s):
                break
        block = await self._view.fetch_block()
        await self._submit_due(block, now_s)
        for url in await self._list_usable():
            await self._guard(url, self._prover.look_after(url, block, now_s))
        await self._resume_missing(now_s)

    async def get_head(self) -> bytes:
        """The newest verified head of the recorder in use; zero without one."""
        for url in await self._list_usable():
            known = await self.book.find_recorder(url)
            if known is not None and known.number > 0:
                return to_bytes(known.head)
        return bytes(32)

    # submitting

    async def _submit_due(self, block: int, now_s: int) -> None:
        for _ in range(BATCHES_PER_ROUND_MAX):
            usable = await self._list_usable()
            due = await self.book.list_due(now_s, RECORD_ENTRIES_PER_SUBMISSION_MAX)
            if not usable or not due:
                return
            by_url: dict[str, list[SubmittedEntry]] = {}
            for known in due:
                by_url.setdefault(self._choose(known, usable, now_s), []).append(known)
            answered = [
                await self._guard(url, self._submit(url, entries, block, now_s))
                for url, entries in by_url.items()
            ]
            if not all(answered):
                return  # what was not taken comes first again in the next round

    def _choose(self, known: SubmittedEntry, usable: Sequence[str], now_s: int) -> str:
        """Where an entry goes: where it is, unless it has been unmatched there for too long."""
        answering = [url for url in usable if not self._is_silent(url)] or list(usable)
        if known.state == "new" or known.recorder not in answering:
            return answering[0]
        if now_s - known.assigned_at < self.settings.unmatched_s:
            return known.recorder
        return answering[(answering.index(known.recorder) + 1) % len(answering)]

    async def _submit(
        self, url: str, entries: Sequence[SubmittedEntry], block: int, now_s: int
    ) -> None:
        recorder = await self._watch.meet(url)
        about = [known.entry for known in entries]
        answer = await self._client.submit(url, self._identity.sign(recorder.address, about, now_s))
        answers, promises = read_answer(self._identity, recorder, about, answer, block)
        await self.book.note_answer(url, entries, answers, promises, now_s)

    async def _resume_missing(self, now_s: int) -> None:
        """Run the resume handshake with providers whose entries we lack or hold differently."""
        if self._resume is None or now_s - self._looked_for_missing < self.settings.resume_s:
            return
        self._looked_for_missing = now_s
        for url in await self._list_usable():
            await self._guard(url, self._resume_at(url, now_s))

    async def _resume_at(self, url: str, now_s: int) -> None:
        assert self._resume is not None  # its caller looked
        recorder = await self._watch.meet(url)
        providers = await self._list_missing(url, self._identity.sign(recorder.address, (), now_s))
        # Whoever was asked longest ago comes first, so providers with low addresses hide no other.
        waiting = sorted(providers, key=lambda p: (self._resumed_at.get(p, 0.0), p))
        for provider in waiting[:RESUMES_PER_ROUND_MAX]:
            if now_s - self._resumed_at.get(provider, 0.0) < self.settings.resume_s:
                continue
            self._resumed_at.pop(provider, None)
            self._resumed_at[provider] = now_s
            while len(self._resumed_at) > RESUMES_REMEMBERED_MAX:
                self._resumed_at.pop(next(iter(self._resumed_at)))
            await self._resume(provider)

    async def _list_missing(self, url: str, signed: SignedSubmission) -> set[Address]:
        """Providers with entries that we lack or hold differently, from some pages of the list."""
        providers: set[Address] = set()
        after = self._listed_to.pop(url, "")
        for _ in range(UNMATCHED_PAGES_PER_ROUND_MAX):
            page = await self._client.fetch_unmatched(url, signed, after)
            for found in page.entries:
                if found.entry.signer != self._identity.party:
                    continue  # not ours, whatever the recorder says
                is_lacking = await self.book.find_entry(found.entry.key) is None
                if is_lacking or found.reason in ("digests_differ", "fees_differ"):
                    providers.add(found.entry.provider)
            if not page.following or not page.entries:
                return providers
            # What else waits of a provider that is asked anyway is passed over.
            last = page.entries[-1].entry.provider
            after = last if last in providers else page.following
        self._listed_to[url] = after
        return providers

    # recorders

    async def _guard(self, url: str, work: Awaitable[bool | None]) -> bool:
        """Do something with one recorder; its faults and silences are noted, not passed on."""
        try:
            was_asked = await work
        except FaultError as error:
            _log.error("recorder at fault (%s): %s", error.fault, error.message)
            now_s = int(self._now_s())
            await self.book.note_fault(url, error.fault, error.message, error.evidence, now_s)
            return False
        except InvariantError:
            raise
        except TransientError as error:
            if error.code != "recorder_unreachable":
                raise
            await self._note_silence(url, error.message)
            return False
        except HanseError as error:  # it refuses us, or says what cannot be read
            await self._note_silence(url, error.message)
            return False
        if was_asked is not False:
            self._silent_since.pop(url, None)
        return True

    async def _note_silence(self, url: str, message: str) -> None:
        _log.warning("%s", message)
        self._silent_since.setdefault(url, self._now_s())
        if not self._is_silent(url):
            return
        known = await self.book.find_recorder(url)
        block = await self._view.fetch_block()
        late = await self.book.list_late(url, block, 1) if known else []
        if known and late:
            error = await self._prover.get_stall(known, late[0], block)
            now_s = int(self._now_s())
            _log.error("recorder at fault (stall): %s", error.message)
            await self.book.note_fault(url, error.fault, error.message, error.evidence, now_s)

    def _is_silent(self, url: str) -> bool:
        since = self._silent_since.get(url)
        return since is not None and self._now_s() - since >= self.settings.unreachable_s

    async def _list_usable(self) -> list[str]:
        bad = {known.url for known in await self.book.list_recorders() if known.fault}
        return [url for url in self.settings.recorders if url not in bad]

    async def _to_entry(self, signed: SignedReceipt) -> RecordEntry:
        trace_hash = await self._find_trace_hash(signed)
        return to_record_entry(signed, self._identity.domain, trace_hash)
