"""Somebody's evidence rerun with a model of one's own."""

from pathlib import Path

from hanse.auditor.opened_model import Keyed, open_model, verify_base
from hanse.auditor.purchases import verify_types
from hanse.protocol.errors import RequestError
from hanse.verification.audits.calibration import Calibration
from hanse.verification.evidence.files import Evidence
from hanse.verification.evidence.replaying import Replay, replay

SPARE_TOKENS = 512
"""Of context: who stated fewer prompt tokens than there are is to be found out, not in the way."""


def rerun(
    evidence: Evidence,
    model: Path,
    runtime: str,
    threads: int,
    calibration: Calibration | None,
    cache_dir: Path,
    keyed: Keyed | None = None,
) -> Replay:
    """Make the audit of a checked file again, with the copy, or by its key (`keyed`).

    Raises:
        RequestError: `unprocessable` if the content was withheld, or the copy, its base or its type
            is another one: whoever votes by such a rerun condemns an honest provider.
    """
    statement = evidence.statement
    content, measured = evidence.content, statement.measured
    tokens = len(content.prompt_tokens) if content else 0
    context_tokens = tokens + len(measured.misses) + SPARE_TOKENS
    with open_model(
        model, runtime, threads=threads, context_tokens=context_tokens, keyed=keyed
    ) as opened:
        copy = opened.copy
        if copy is not None and copy.provider != statement.model.provider:
            raise RequestError(
                "unprocessable",
                f"this copy is {copy.provider}'s, the audit was made with "
                f"{statement.model.provider or 'a plain model'}",
            )
        if copy is not None and copy.base_root != statement.model.manifest_root:
            raise RequestError(
                "unprocessable",
                f"this copy is of {copy.base_root}, offered was {statement.model.manifest_root}",
            )
        if copy is not None and opened.is_keyed:
            verify_base(model, copy, cache_dir)
        offered = evidence.receipt.offer.quantisation
        verify_types(offered, opened, calibration or statement.calibration)
        return replay(evidence, opened.auditor, calibration)
