"""Kept answers decided one by one: passed over, audited, or let go of; evidence written for each.

    watcher = Watcher(parts)
    await watcher.run_round()         every answer that is kept now, once

An answer is done when its file is gone. The evidence is on disk before that, under the request's
name, so a watcher that is killed at any step goes on where it was and audits nothing twice. Bills
without their commitment are no matter of a draw: each gets its file (`promises`).
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.auditor.files import judgement_to_document
from hanse.auditor.purchases import Purchase, audit_purchase, make_purchase
from hanse.auditor.watching.copies import CopiesAtHand, Means
from hanse.auditor.watching.draws import Decision, Draws, Record
from hanse.auditor.watching.evidence_files import get_evidence_path, write_whole
from hanse.auditor.watching.promises import Looked, write_broken
from hanse.auditor.watching.unopened import (
    OF_THE_BROKER,
    UnopenedError,
    fetch_owed,
    note_unopened,
)
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, InvariantError, TransientError
from hanse.protocol.signatures import Address, DigestSigner, Hash32
from hanse.settlement.books.voucher_book import VoucherBook
from hanse.settlement.books.voucher_records import StoredReceipt, StoredVoucher
from hanse.settlement.keeping.kept_answers import KeptAnswers
from hanse.settlement.traces.checking import check_trace
from hanse.settlement.traces.document import Trace
from hanse.verification.audits.answers import Audited
from hanse.verification.audits.judging import Verdict
from hanse.verification.audits.schedule import Draw
from hanse.verification.evidence.files import get_evidence_hash

TRIES_MAX = 5
"""For an opening whose broker does not answer; then that is noted, and the answer let go of. What
fails on this side (node, books, disk) is waited for."""

DEATHS_MAX = 3
"""Audits of one answer that may be begun: what ends the auditor each time, by a defect in a runtime
for instance, must not keep it from all others."""

PAUSE_S = 5.0
"""Before an answer that waits is looked at again: a record takes some blocks."""

FIRST_PAUSES_S = (0.2, 0.5, 1.0)
"""Before the first of these looks: what is waited for may be a matter of milliseconds."""

_log = logging.getLogger("hanse.audits")

Tell = Callable[[dict[str, Any], str], None]


@dataclass(frozen=True)
class WatcherParts:
    """What a watcher works with.

    Attributes:
        cache_dir: where hashes of model files are kept.
        reaches_private: whether brokers at loopback and private addresses are called.
        domain: of all signatures.
        kept: answers that wait.
        evidence: folder of what was found.
        book: the user's vouchers and receipts.
        draws: decides which are audited.
        copies: what they are audited with.
        signer: of the sub-accounts; asks brokers, and signs the evidence.
        tell: told what happens: a document, and the same in words.
        records: how earlier audits of each provider went.
        clock: seconds that only go forward.
    """

    cache_dir: Path
    reaches_private: bool
    domain: Domain
    kept: KeptAnswers
    evidence: Path
    book: VoucherBook
    draws: Draws
    copies: CopiesAtHand
    signer: DigestSigner
    tell: Tell
    records: dict[Address, Record] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic


@dataclass
class _Waiting:
    """One answer that is not decided: since when, when it is looked at again, tries that failed."""

    since: float
    again_at: float = 0.0
    looks: int = 0
    failures: int = 0


class Watcher:
    """See the module.

    Attributes:
        counts: what became of the answers: `passed over`, a verdict, or why one was let go of.
    """

    def __init__(self, parts: WatcherParts) -> None:
        self._parts = parts
        self.counts: Counter[str] = Counter()
        self._waiting: dict[Hash32, _Waiting] = {}
        self._broken = Looked()
        self._said: set[str] = set()

    async def run_round(self, is_over: Callable[[], bool] = lambda: False) -> int:
        """Look at every kept answer that is due; returns how many are still undecided.

        Args:
            is_over: asked after each answer, of which a thousand may wait: whether something else
                is due. The next round begins with what is left.

        Raises:
            TransientError: the folder of evidence cannot be written.
        """
        broken = await write_broken(self._parts, self._broken)
        if broken:
            self.counts["uncommitted"] += broken
        names = await asyncio.to_thread(self._parts.kept.list_names)
        self._waiting = {name: self._waiting[name] for name in names if name in self._waiting}
        for name in names:
            now = self._parts.clock()
            waiting = self._waiting.setdefault(name, _Waiting(now))
            if now >= waiting.again_at:
                await self._look(name, waiting)
                if is_over():
                    break
        return len(self._waiting)

    def say_waits(self, error: HanseError) -> None:
        """Tell what keeps all answers waiting; the same thing once."""
        if error.message not in self._said:
            self._said.add(error.message)
            document = {"event": "audits_wait", **error.to_openai()["error"]}
            self._parts.tell(document, f"audits wait: {error.message}")

    async def _look(self, name: Hash32, waiting: _Waiting) -> None:
        parts = self._parts
        try:
            outcome = await self._decide(name, parts.clock() - waiting.since)
        except TransientError as error:
            waiting.failures += error.code in OF_THE_BROKER
            if waiting.failures < TRIES_MAX:
                self._wait(waiting)
                return
            outcome = await note_unopened(parts, name, error)
        except UnopenedError as error:
            outcome = await note_unopened(parts, name, error)
        except HanseError as error:
            outcome = self._let_go(name, error)
        except Exception as error:
            # Without the exception's text: that may hold what the answer holds.
            _log.error("a defect in auditing %s: %s", name, type(error).__name__)
            outcome = self._let_go(name, HanseError("internal_error", "a defect; see the log"))
        if outcome is None:
            self._wait(waiting)
            return
        self.counts[outcome] += 1
        await asyncio.to_thread(parts.kept.remove, name)
        del self._waiting[name]

    def _wait(self, waiting: _Waiting) -> None:
        early = FIRST_PAUSES_S[waiting.looks : waiting.looks + 1]
        waiting.again_at = self._parts.clock() + (early[0] if early else PAUSE_S)
        waiting.looks += 1

    async def _decide(self, name: Hash32, waited_s: float) -> str | None:
        """What became of one answer; None if that is not known yet."""
        parts = self._parts
        path = get_evidence_path(parts.evidence, name)
        if path.exists():
            return "audited before"  # killed between the evidence and the end of the answer
        voucher = await parts.book.find_voucher(name)
        receipt = await parts.book.find_receipt(name)
        if voucher is None or receipt is None:
            return None  # the gateway's books are some milliseconds behind its answers
        trace = await asyncio.to_thread(parts.kept.read, name)
        check_trace(trace, parts.domain, voucher.receipt_key, receipt.signed)
        means = await asyncio.to_thread(parts.copies.get_means, voucher.offer.offer)
        provider = receipt.signed.receipt.provider
        record = parts.records.get(provider, Record())
        decision = await parts.draws.decide(voucher, receipt, record, waited_s)
        if decision.draw is Draw.WAITING:
            return None
        if decision.draw is Draw.PASSED:
            return "passed over"
        return await self._audit(trace, voucher, receipt, means, decision)

    async def _audit(
        self,
        trace: Trace,
        voucher: StoredVoucher,
        receipt: StoredReceipt,
        means: Sequence[Means],
        decision: Decision,
    ) -> str:
        parts, provider = self._parts, voucher.offer.offer.provider
        if await asyncio.to_thread(parts.kept.get_tries, trace.request.request_id) >= DEATHS_MAX:
            raise InvariantError("internal_error", f"{DEATHS_MAX} audits of it did not end")
        opening = await fetch_owed(parts, voucher, receipt.signed)
        # not before: a broker that does not answer has tries of its own, and they are held to it
        await asyncio.to_thread(parts.kept.count_try, trace.request.request_id)
        purchase = make_purchase(trace, voucher, receipt, opening, parts.domain)
        began = parts.clock()
        found, data = await asyncio.to_thread(self._run, purchase, means)
        name, verdict = trace.request.request_id, found.judgement.verdict
        path = get_evidence_path(parts.evidence, name)
        await asyncio.to_thread(write_whole, path, data)
        if verdict is not Verdict.INCONCLUSIVE:
            record = parts.records.get(provider, Record())
            parts.records[provider] = record.add(is_failed=verdict is Verdict.CHEAT)
        parts.tell(
            {
                "event": "audited",
                "request_id": name,
                "provider": provider,
                **judgement_to_document(found.judgement),
                "drawn_by": decision.by,
                "rate": decision.rate_ppm / 1e6,
                "took_s": round(parts.clock() - began, 2),
                "evidence": str(path),
                "evidence_hash": get_evidence_hash(data),
            },
            f"{verdict.value}: {provider}, request {name} (drawn by {decision.by} at "
            f"{decision.rate_ppm / 1e4:g} %); {path}",
        )
        return verdict.value

    def _run(self, purchase: Purchase, means: Sequence[Means]) -> tuple[Audited, bytes]:
        """Audit by the newest of the provider's copies; a cheat by it has to be one by each."""
        parts = self._parts
        return keep_fairest(
            audit_purchase(
                purchase,
                parts.copies.open(one),
                one.calibration,
                parts.signer,
                parts.cache_dir,
                withhold=False,
            )
            for one in means
        )

    def _let_go(self, name: Hash32, error: HanseError) -> str:
        self._parts.tell(
            {"event": "not_audited", "request_id": name, **error.to_openai()["error"]},
            f"not audited: request {name}: {error.message}",
        )
        return f"not audited: {error.code}"


def keep_fairest(audits: Iterable[tuple[Audited, bytes]]) -> tuple[Audited, bytes]:
    """The first audit that finds no cheat, of which no more are made then; else the very first."""
    first = None
    for one in audits:
        if one[0].judgement.verdict is not Verdict.CHEAT:
            return one
        first = first or one
    assert first is not None, "there is a copy to audit with"
    return first
