"""Evidence files and calibrations read, as JSON, and summed up by provider."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hanse.market.reputation.observation import is_observation
from hanse.protocol.commitments.promises import Breach
from hanse.protocol.errors import RequestError, VerificationError
from hanse.sdk.receipt_file import verify_receipt_document
from hanse.store.files import read_file
from hanse.verification.audits.bounds import get_chance, get_chance_at_any_look, get_rate_bound
from hanse.verification.audits.calibration import (
    DOCUMENT_BYTES_MAX,
    Calibration,
    decode_calibration,
)
from hanse.verification.audits.judging import Judgement, Verdict
from hanse.verification.audits.statistics import BLOCKS
from hanse.verification.evidence.breaches import VerifiedBreach, is_breach, verify_breach
from hanse.verification.evidence.files import (
    FILE_BYTES_MAX,
    Evidence,
    get_evidence_hash,
    verify_evidence,
)

FILES_MAX = 100_000
"""Evidence files of one report."""

CONFIDENCE = 0.95
"""Of the bounds in a report."""


def read_calibration(path: Path) -> Calibration:
    """A calibration from a file, its arithmetic checked."""
    return decode_calibration(read_file(path, DOCUMENT_BYTES_MAX))


def read_evidence(path: Path) -> tuple[Evidence, str]:
    """Evidence from a file, all but its rerun checked, and its hash."""
    data = read_file(path, FILE_BYTES_MAX)
    return verify_evidence(data, verify_receipt_document), get_evidence_hash(data)


def read_breach(path: Path) -> tuple[VerifiedBreach, str] | None:
    """A broken promise from a file, checked, and its hash; None if the file is an audit's."""
    data = read_file(path, FILE_BYTES_MAX)
    if not is_breach(data):
        return None
    return verify_breach(data, verify_receipt_document), get_evidence_hash(data)


def breach_to_document(found: VerifiedBreach, digest: str) -> dict[str, Any]:
    """A broken promise, JSON-ready."""
    return {
        "verdict": found.breach.value,
        "reason": found.reason,
        "request_id": found.receipt.voucher.request.request_id,
        "provider": found.receipt.offer.provider,
        "receipt_key": found.receipt.receipt_key,
        "witness": found.witness,
        "evidence_hash": digest,
        "checked": True,
    }


def judgement_to_document(judgement: Judgement) -> dict[str, Any]:
    """A judgement, JSON-ready."""
    return {
        "verdict": judgement.verdict.value,
        "reasons": list(judgement.reasons),
        "detected": list(judgement.detected),
        "not_covered": list(judgement.not_covered),
        "findings": [
            {
                "statistic": one.statistic,
                "value_ppm": one.value_ppm,
                "limit_ppm": one.limit_ppm,
                "above": one.is_above,
            }
            for one in judgement.findings
        ],
    }


def sum_up(paths: Iterable[Path]) -> dict[str, Any]:
    """What evidence files say of each provider; what does not hold or cannot be read is named.

    Raises:
        RequestError: `not_found` without any file, or if those that can be read say nothing.
    """
    providers: dict[str, Counter[str]] = {}
    rates: dict[str, float] = {}
    broken: list[dict[str, str]] = []
    unread: list[RequestError] = []
    seen: set[tuple[str, str]] = set()
    for path in _list_files(paths):
        try:
            raw = read_file(path, FILE_BYTES_MAX)
            if is_observation(raw):
                continue  # of a failure or a time: no audit
            if is_breach(raw):
                found = verify_breach(raw, verify_receipt_document)
                served = found.receipt.receipt.receipt
                if (served.request_hash, found.breach) not in seen:  # whoever shows it, it is one
                    seen.add((served.request_hash, found.breach))
                    providers.setdefault(served.provider, Counter())[found.breach.value] += 1
                continue
            evidence = verify_evidence(raw, verify_receipt_document)
        except (VerificationError, RequestError) as error:
            broken.append({"file": str(path), "reason": error.message})
            if isinstance(error, RequestError):
                unread.append(error)
            continue
        receipt = evidence.receipt.receipt.receipt
        name = (receipt.request_hash, evidence.statement.auditor)
        if name in seen:
            continue  # one auditor's second file about one answer says nothing new
        seen.add(name)
        counts = providers.setdefault(receipt.provider, Counter())
        counts[evidence.statement.judgement.verdict.value] += 1
        rate = 1 - evidence.statement.calibration.quantile_ppm / 1e6
        rates[receipt.provider] = max(rate, rates.get(receipt.provider, 0.0))
        counts.update(f"detected {rung}" for rung in evidence.statement.judgement.detected)
    if not seen and len(broken) == len(unread):
        nothing = RequestError("not_found", "no evidence files there; hanse audit run writes them")
        raise unread[0] if unread else nothing
    return {
        "providers": [
            {"provider": provider, **_describe(counts, rates.get(provider))}
            for provider, counts in sorted(providers.items())
        ],
        "refused": broken,
    }


def _describe(counts: Counter[str], rate: float | None) -> dict[str, Any]:
    """Of one provider; `rate` is how often an honest answer is above one threshold.

    None if nothing was audited: broken promises alone are no sample.

    "by chance" is asked once, "at any look" however often: of fingerprints, which have a threshold
    for each length of block, and of sampling, which has one.
    """
    audits = sum(counts[verdict.value] for verdict in Verdict)
    cheats = counts[Verdict.CHEAT.value]
    shown = {
        "audits": audits,
        "uncommitted": counts[Breach.UNCOMMITTED.value],
        "overbilled": counts[Breach.OVERBILLED.value],
        "honest": counts[Verdict.HONEST.value],
        "cheat": cheats,
        "inconclusive": counts[Verdict.INCONCLUSIVE.value],
        "detected_by_fingerprint": counts["detected fingerprint"],
        "detected_by_sampling": counts["detected sampling"],
    }
    if rate is None:
        sure = {"sampling_by_chance": 1.0, "at_any_look": {"fingerprint": 1.0, "sampling": 1.0}}
        return shown | sure | {"cheat_rate_at_most": 1.0, "confidence": CONFIDENCE}
    return shown | {
        "sampling_by_chance": get_chance(counts["detected sampling"], audits, rate),
        "at_any_look": {
            "fingerprint": get_chance_at_any_look(
                counts["detected fingerprint"], audits, min(0.5, len(BLOCKS) * rate)
            ),
            "sampling": get_chance_at_any_look(counts["detected sampling"], audits, rate),
        },
        "cheat_rate_at_most": round(get_rate_bound(cheats, audits, CONFIDENCE), 6),
        "confidence": CONFIDENCE,
    }


def _list_files(paths: Iterable[Path]) -> Iterator[Path]:
    found = 0
    for path in paths:
        for one in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            found += 1
            if found > FILES_MAX:
                raise RequestError("usage", f"more than {FILES_MAX} files: sum up fewer at once")
            yield one
