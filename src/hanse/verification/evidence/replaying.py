"""The rerun of an audit from its file: does another machine come to the same verdict?

A rerun by the same runtime is judged by the calibration in the file. One by another runtime needs a
calibration of its own, since its honest noise is another; without one its verdict is inconclusive.
"""

import msgspec

from hanse.protocol.commitments.fingerprints import get_error, get_mean_error
from hanse.protocol.errors import RequestError
from hanse.verification.audits.answers import Auditor, audit_answer, open_commitment
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.judging import Judgement
from hanse.verification.evidence.files import Evidence


class Replay(msgspec.Struct, frozen=True):
    """What a rerun found.

    Attributes:
        judgement: by the rerun's own numbers.
        agrees: whether its verdict is the file's.
        prompt_agrees: whether it reads the same prompt tokens.
        fit_agrees: whether it finds the same misfits.
        distance_ppm: mean error between the two auditors' fingerprints; None without any.
    """

    judgement: Judgement
    agrees: bool
    prompt_agrees: bool
    fit_agrees: bool
    distance_ppm: int | None


def replay(evidence: Evidence, auditor: Auditor, calibration: Calibration | None = None) -> Replay:
    """Run the audit of a checked file again.

    Args:
        evidence: of `verify_evidence`, with its content.
        auditor: the rerun's own model and reader.
        calibration: for its runtime; the file's if None.

    Raises:
        RequestError: `unprocessable` if the content was withheld, or the model cannot run it.
    """
    content, bought, statement = evidence.content, evidence.bought, evidence.statement
    if content is None or bought is None:
        raise RequestError(
            "unprocessable",
            "the file's content was withheld, so there is nothing to rerun: ask the auditor for it",
        )
    entries = open_commitment(bought, content.opening)
    found = audit_answer(bought, entries, auditor, calibration or statement.calibration)
    own = found.measured.fingerprints if found.measured else ()
    theirs = statement.measured.fingerprints
    errors = [get_error(one, other) for one, other in zip(theirs, own, strict=False)]
    return Replay(
        found.judgement,
        found.judgement.verdict is statement.judgement.verdict,
        found.alignment.prompt_tokens == content.prompt_tokens,
        found.alignment.reasons == statement.misfits,
        round(get_mean_error(errors) * 1_000_000) if errors else None,
    )
