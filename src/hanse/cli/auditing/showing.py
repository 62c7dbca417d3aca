"""Judgements, broken promises and reruns in words."""

from hanse.verification.audits.judging import REASONS, Judgement
from hanse.verification.evidence.breaches import VerifiedBreach
from hanse.verification.evidence.replaying import Replay


def breach_to_rows(found: VerifiedBreach, digest: str) -> list[tuple[str, str]]:
    """A broken promise for people."""
    return [
        ("verdict", found.breach.value),
        ("because", found.reason),
        ("request", found.receipt.voucher.request.request_id),
        ("provider", found.receipt.offer.provider),
        ("receipt key", f"{found.receipt.receipt_key} (ask the Registry whose it was)"),
        ("witness", found.witness),
        ("evidence", digest),
    ]


def judgement_to_rows(judgement: Judgement) -> list[tuple[str, str]]:
    """A judgement for people."""
    rows = [("verdict", judgement.verdict.value)]
    rows += [("because", REASONS[reason]) for reason in judgement.reasons]
    rows += [
        (
            one.statistic,
            f"{one.value_ppm / 1e6:.4f}, {'ABOVE' if one.is_above else 'at most'} "
            f"{one.limit_ppm / 1e6:.4f}",
        )
        for one in judgement.findings
    ]
    if judgement.not_covered:
        rows.append(("not covered", ", ".join(judgement.not_covered)))
    return rows


def replay_to_rows(found: Replay) -> list[tuple[str, str]]:
    """A rerun for people."""
    apart = "none to compare"
    if found.distance_ppm is not None:
        apart = f"{found.distance_ppm / 1e6:.4f} apart"
    return [
        ("rerun", "comes to the same verdict" if found.agrees else "comes to ANOTHER verdict"),
        ("prompt", "the same tokens" if found.prompt_agrees else "OTHER tokens"),
        ("fit", "the same" if found.fit_agrees else "ANOTHER"),
        ("fingerprints", apart),
        *judgement_to_rows(found.judgement),
    ]
