"""One prefill, reduced to a few numbers a token: what an auditor puts into its evidence.

    measured = measure(prefill, task)
    judgement = judge(...)                # judging.py, from these numbers alone

Everything here is the auditor's own computation; what the provider committed to comes in only as
the tokens that are run through the model.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from hanse.protocol.commitments.fingerprints import CANARIES, SCALE, quantise
from hanse.protocol.errors import RequestError
from hanse.verification.audits.prefill import Prefill
from hanse.verification.audits.sampling import Chain, get_misses

if TYPE_CHECKING:
    from numpy.typing import NDArray

POSITIONS_AUDITED_MAX = 1_024
"""Of one answer, its first ones: full logits of so many positions take 1 GB of memory at a
vocabulary of 2**18."""

MILLI = 1_000
PPM = 1_000_000

MISS_MAX = 1_000_000
"""A miss is held to this: no distance is longer, and a thousand logits below the best is far."""


class Task(msgspec.Struct, frozen=True):
    """What is run through the model.

    Attributes:
        prompt_tokens: of the request, by the auditor's own reading of it.
        answer_tokens: that were committed; at most POSITIONS_AUDITED_MAX of them are audited.
        chain: the sampler, as the request says.
        seed: of its generator.
        scale: one step of a fingerprint, as the copy's description states it.
    """

    prompt_tokens: tuple[int, ...]
    answer_tokens: tuple[int, ...]
    chain: Chain
    seed: int
    scale: float = SCALE


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an auditor computed; n positions.

    Attributes:
        runtime: that computed it.
        fingerprints: its own, n of them; none if its model has no canaries.
        misses: n numbers: how far the served token lies from what the seed gives, in millionths of
            probability; at temperature 0 how far below the best, in thousandths of a logit.
        odds: n numbers: the served token's probability at the request's temperature (1 where that
            is 0), in millionths.
    """

    runtime: str
    fingerprints: tuple[bytes, ...]
    misses: tuple[int, ...]
    odds: tuple[int, ...]


def measure(prefill: Prefill, task: Task) -> Measured:
    """Run prompt and answer through the model once.

    Raises:
        RequestError: `unprocessable` if there is nothing to audit, a token is none of the model's,
            or the model gave numbers that are none.
    """
    import numpy as np

    tokens = task.answer_tokens[:POSITIONS_AUDITED_MAX]
    if not tokens or not task.prompt_tokens:
        raise RequestError("unprocessable", "prompt or answer has no tokens, nothing to audit")
    scores = prefill.score(task.prompt_tokens, tokens)
    logits, canaries = scores.logits, scores.canaries
    if logits.shape[0] != len(tokens) or canaries.shape[0] != len(tokens):
        raise RequestError(
            "unprocessable",
            f"the prefill scored {logits.shape[0]} positions, the answer has {len(tokens)}",
        )
    if max(tokens) >= logits.shape[1]:
        raise RequestError(
            "unprocessable",
            f"token {max(tokens)} is committed, the model's last is {logits.shape[1] - 1}",
        )
    if not np.isfinite(logits.max(axis=1)).all():
        raise RequestError("unprocessable", "the prefill gave logits that are no numbers")
    return Measured(
        prefill.runtime,
        _get_fingerprints(canaries.tolist(), task.scale),
        _get_misses(logits, tokens, task),
        _get_odds(logits, tokens, task.chain.temperature_ppm / PPM or 1.0),
    )


def _get_fingerprints(rows: Sequence[Sequence[float]], scale: float) -> tuple[bytes, ...]:
    if not rows or len(rows[0]) != CANARIES:
        return ()
    try:
        return tuple(quantise(row, scale) for row in rows)
    except ValueError as error:
        raise RequestError("unprocessable", f"the prefill's canaries: {error}") from None


def _get_misses(logits: "NDArray[Any]", tokens: Sequence[int], task: Task) -> tuple[int, ...]:
    unit = MILLI if task.chain.is_greedy else PPM
    misses = get_misses(logits, tokens, task.chain, task.seed)
    return tuple(min(MISS_MAX, round(float(miss) * unit)) for miss in misses)


def _get_odds(logits: "NDArray[Any]", tokens: Sequence[int], temperature: float) -> tuple[int, ...]:
    import numpy as np

    odds = []
    for row, token in enumerate(tokens):
        scaled = logits[row].astype(np.float64) / temperature
        weights = np.exp(scaled - scaled.max())
        odds.append(round(float(weights[token] / weights.sum()) * PPM))
    return tuple(odds)
