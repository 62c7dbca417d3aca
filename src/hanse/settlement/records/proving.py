"""Keeps the proofs that a recorder owes one side, and judges the promises that it broke.

    prover = Prover(book, client, watch, Side.USER, look_s)
    await prover.look_after(url, block, now_s)       # raises FaultError

Proofs are asked for at once, and again when the recorder's verified head has moved; a promised
block that has passed is judged after asking once more.

Source: `docs/records.md`, section "Watching a recorder".
"""

from collections.abc import Sequence

from hanse.protocol.limits import RECORD_ENTRIES_PER_SUBMISSION_MAX
from hanse.protocol.records import RecordEntry, Side
from hanse.protocol.records.wire import entry_to_json
from hanse.protocol.wire.fields import TIME_MAX
from hanse.settlement.records.recorder_client import RecorderClient
from hanse.settlement.records.submission_book import (
    KnownRecorder,
    SubmissionBook,
    SubmittedEntry,
)
from hanse.settlement.records.watch import FaultError, Watch

BATCHES_PER_ROUND_MAX = 20
"""Questions for proofs of one round: 10,000 entries; the next round goes on."""

ASK_AGAIN_S = 30
"""A proof that was not there is asked for again after this, or as soon as the head has moved."""

HEAD_LAG_S = 10
"""For so long after the head moved, what is not there is asked for in each second: a recorder may
see a little later than we do that its commit is confirmed, and gives no proof before."""


class Prover:
    """One side's proofs."""

    def __init__(
        self,
        book: SubmissionBook,
        client: RecorderClient,
        watch: Watch,
        side: Side,
        look_s: float,
    ) -> None:
        self._book, self._client, self._watch, self._side = book, client, watch, side
        self._look_s = look_s
        self._looked_at: dict[str, float] = {}
        self._moved: dict[str, tuple[int, int]] = {}  # to which number, and when that was seen

    async def look_after(self, url: str, block: int, now_s: int) -> bool:
        """Heads, proofs and promises of one recorder, as of a confirmed block.

        Returns:
            Whether it was asked anything, and so has answered.

        Raises:
            FaultError: it lied, stalled or forked.
            TransientError, VerificationError: it does not answer, or not in form.
        """
        owes = await self._book.list_matched(url, TIME_MAX, 1)
        if not owes and now_s - self._looked_at.get(url, 0) < self._look_s:
            return False  # its heads are looked at now and then
        self._looked_at[url] = now_s
        known = await self._watch.sync(await self._watch.meet(url), block)
        number, moved_at = self._moved.get(url, (-1, 0))
        if known.number > number:
            moved_at = now_s if number >= 0 else now_s - HEAD_LAG_S + 1  # at first once is enough
            self._moved[url] = (known.number, moved_at)
        has_moved = now_s - moved_at < HEAD_LAG_S
        await self._fetch_proofs(known, now_s, now_s + ASK_AGAIN_S - 1 if has_moved else now_s)
        await self._judge_late(known, block)
        return True

    async def _fetch_proofs(self, known: KnownRecorder, now_s: int, before: int) -> None:
        for _ in range(BATCHES_PER_ROUND_MAX):
            open_entries = await self._book.list_matched(
                known.url, before, RECORD_ENTRIES_PER_SUBMISSION_MAX
            )
            if not open_entries:
                return
            entries = [one.entry for one in open_entries]
            await self._prove(known, entries)
            await self._book.note_asked(entries, now_s + ASK_AGAIN_S)

    async def _prove(self, known: KnownRecorder, entries: Sequence[RecordEntry]) -> None:
        proofs = await self._client.fetch_proofs(known.url, entries)
        proven = []
        for entry, proof in zip(entries, proofs, strict=True):
            if proof is None:
                continue
            if await self._watch.verify_proof(known, self._side, entry, proof):
                proven.append((entry, proof))
        if proven:
            await self._book.note_recorded(known.url, proven)

    async def _judge_late(self, known: KnownRecorder, block: int) -> None:
        """A promised block that passed without a proof is a stall; asks once more before."""
        late = await self._book.list_late(known.url, block)
        if not late:
            return
        await self._prove(known, [one.entry for one in late])
        late = await self._book.list_late(known.url, block)
        if late:
            raise await self.get_stall(known, late[0], block)

    async def get_stall(self, known: KnownRecorder, late: SubmittedEntry, block: int) -> FaultError:
        """The fault of a promise that was not kept, with the promise as evidence."""
        promised = await self._book.find_promise(late.promise)
        evidence = {
            "recorder": known.address,
            "entry": entry_to_json(late.entry),
            "promise": promised[0] if promised else None,
            "entries": promised[1] if promised else [],
            "chain": {"block": block, "number": str(known.number), "head": known.head},
        }
        return FaultError(
            "stall",
            f"recorder {known.url} promised a root by block {late.commit_by} over sequence "
            f"{late.entry.sequence} of {late.entry.provider}; after block {block} there is none",
            evidence,
        )
