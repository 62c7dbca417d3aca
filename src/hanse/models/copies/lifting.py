"""Checks that the lift of a finished copy holds for this model, and writes down by how much.

The lift is one number for all models, and part of the order. Whether it is above a model's logits
is not known before they are seen: so the copy reads a text, and where one canary is not above all
tokens at every position the copy is refused, with a lift that would do.
"""

import math
from pathlib import Path

import msgspec

from hanse.models.copies.rebasing import get_description_path
from hanse.models.quantising.calling import run_job
from hanse.models.quantising.costs import read_text
from hanse.models.quantising.worker import MarginJob
from hanse.models.tensors import Progress
from hanse.protocol.commitments.copies import (
    CopyDescription,
    LiftMargin,
    encode_copy_description,
)
from hanse.protocol.errors import RequestError

TOKENS = 512
"""Of the text that ships: by 95 % at most 0.6 % of such positions are without a fingerprint."""

LIFT_MAX = 60.0
"""Higher ones leave nothing of ordinary tokens in a server's softmax (`copy_in_service`)."""

RESERVE = 2.0
"""By how much more than was needed a lift is suggested."""


def check_lift(
    copy: Path,
    description: CopyDescription,
    *,
    threads: int = 2,
    text: str | None = None,
    progress: Progress | None = None,
) -> CopyDescription:
    """The description with its margin, also beside the file; the same where nothing is lifted.

    Args:
        copy: the finished file.
        description: what `rebase` said of it.
        threads: of llama.cpp.
        text: to be read; the one that ships if None.
        progress: told what is being done.

    Raises:
        RequestError: `unprocessable`, the lift is too small: copy and description are gone. Or
            llama.cpp could not run the copy.
    """
    if not description.lift:
        return description
    job = MarginJob(
        model=str(copy),
        text=read_text(None) if text is None else text,
        tokens_max=TOKENS,
        canaries=description.canary_count,
        threads=threads,
    )
    margin = msgspec.convert(run_job(job, progress), LiftMargin)
    if margin.smallest <= 0:
        copy.unlink()
        get_description_path(copy).unlink()
        raise _refuse(description.lift, margin)
    checked = msgspec.structs.replace(description, lift_margin=margin)
    get_description_path(copy).write_bytes(encode_copy_description(checked))
    return checked


def _refuse(lift: float, margin: LiftMargin) -> RequestError:
    needed = math.ceil(lift - margin.smallest + RESERVE)
    advice = (
        f"--lift {needed} would do"
        if needed <= LIFT_MAX
        else f"it would take {needed}, and {LIFT_MAX:g} is the most that servers can tell; "
        "--lift 0 makes a copy that is sold without a proof"
    )
    return RequestError(
        "unprocessable",
        f"Lifted by {lift:g}, a canary is {-margin.smallest:.1f} below the model's largest logit "
        f"({margin.highest:.1f}) in {margin.positions} positions of a text: {advice}.",
        param="lift",
    )
