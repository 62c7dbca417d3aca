"""A caller's own logprobs, as if the model had no canaries.

A copy's canaries take most of the raw softmax, and are never sampled. So they are left out of what
a caller is told, and the rest is made to add up to one again. The mass of the rest is 1 less that
of the canaries, which are all told; but where they are lifted high, single precision leaves nothing
of that difference. Then it is the mass of the `WIDE` most likely tokens, and an estimate of the
tail behind them: the mass of each octave of ranks is to that of the one before as the last two that
were seen, and falls a little faster each time.

So the values are exact among each other, and right in sum to about 0.02 on average; figures in
docs/measurements.md, section "Proof-carrying engines".
"""

import math
from collections.abc import Collection
from typing import Any

WIDE = 512
"""Tokens a position that are asked for where a caller wants logprobs: 43 kB of JSON, which only
such callers cause, and all but one or two tenths of the least certain distributions."""

LEFT_MIN = 1e-3
"""From here on 1 less the canaries' mass is good: its rounding, about 1e-6, is a thousandth of it.
"""

OCTAVE_FALL = 0.93
"""By so much the mass of octaves falls faster each time: between 20 and 1,000 ranks, SmolLM2."""


def clean_logprobs(
    content: list[dict[str, Any]], canaries: Collection[int], top: int, vocabulary: int
) -> list[dict[str, Any]]:
    """The entries of one frame's logprobs without canaries, `top` alternatives each."""
    return [_clean(entry, canaries, top, vocabulary) for entry in content]


def get_mass(masses: list[float], vocabulary: int) -> float:
    """That of all `vocabulary` tokens, from those of the most likely ones in falling order."""
    seen, told = math.fsum(masses), len(masses)
    before = math.fsum(masses[told // 4 : told // 2])
    octave = math.fsum(masses[told // 2 :])
    if told < 4 or before <= 0:
        return seen
    ratio, tail = min(1.0, octave / before), 0.0
    for index in range(int(math.log2(max(1.0, vocabulary / told)))):
        octave *= ratio * OCTAVE_FALL ** (index + 1)
        tail += octave
    return seen + tail


def _clean(
    entry: dict[str, Any], canaries: Collection[int], top: int, vocabulary: int
) -> dict[str, Any]:
    tops = entry.get("top_logprobs") or []
    rest = [one for one in tops if one["id"] not in canaries]
    left = 1 - math.fsum(math.exp(one["logprob"]) for one in tops if one["id"] in canaries)
    if left < LEFT_MIN:
        left = get_mass([math.exp(one["logprob"]) for one in rest], vocabulary)
    offset = -math.log(left) if left > 0 else 0.0
    return {
        **entry,
        "logprob": min(0.0, entry["logprob"] + offset),
        "top_logprobs": [
            {**one, "logprob": min(0.0, one["logprob"] + offset)} for one in rest[:top]
        ],
    }
