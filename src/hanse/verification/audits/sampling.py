"""The seeded sampler replayed: which token a draw gives, and how far a served token lies from it.

llama.cpp's sampler takes one number u of [0, 1) a token from mt19937 and walks the tokens that its
filters left until the cumulative probability reaches it. With the model's logits at hand each token
is an interval of that walk, and an honest token's interval holds its u. Noise between two runtimes
shifts the interval's ends a little, so what is measured is how far u lies from it: 0 inside, never
above 1. Another model's tokens lie far.

Without filters the walk goes through the vocabulary in order. Top-k and top-p sort it by logit, the
best first; there two tokens of nearly equal logit may change places between two runtimes, so those
walks have a statistic, and a calibration, of their own.

At temperature 0 there are no draws. Measured then is how many logits the served token lies below
the best one: 0 for what a greedy sampler takes.

u takes two outputs of the generator, the low one first, as libstdc++'s
`uniform_real_distribution<double>` does (C++20 [rand.util.canonical]).

Source: Token-DiFR (arXiv 2511.20621); llama.cpp's order of filters (top-k, top-p, min-p,
temperature, then the draw) as measured by `tests/verification/audits/test_replay.py`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from numpy.typing import NDArray

PPM = 1_000_000


class Chain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sampler of one request; the defaults are llama.cpp's where a request names none.

    Attributes:
        temperature_ppm: 0 is greedy. In millionths, so that a file holds it exactly.
        top_k: only so many of the best tokens; 0 is all.
        top_p_ppm: only the best tokens that together have this probability; 1,000,000 is all.
        min_p_ppm: only tokens of at least this share of the best one's probability; 0 is all.
    """

    temperature_ppm: int = 800_000
    top_k: int = 40
    top_p_ppm: int = 950_000
    min_p_ppm: int = 50_000

    @property
    def is_greedy(self) -> bool:
        """Whether it always takes the best token."""
        return self.temperature_ppm == 0 or self.top_k == 1

    @property
    def is_sorted(self) -> bool:
        """Whether the walk goes from the best token down."""
        return self.top_k > 0 or self.top_p_ppm < PPM


def get_draws(seed: int, count: int) -> "NDArray[Any]":
    """The first `count` numbers of [0, 1) that the sampler with this seed takes, float64."""
    import numpy as np

    outputs = np.random.RandomState(seed)._bit_generator.random_raw(2 * count)
    low, high = outputs[0::2].astype(np.float64), outputs[1::2].astype(np.float64)
    below_one = float(np.nextafter(1.0, 0.0))
    return np.minimum((low + high * 2.0**32) / 2.0**64, below_one)


def get_misses(
    logits: "NDArray[Any]", tokens: Sequence[int], chain: Chain, seed: int
) -> "NDArray[Any]":
    """How far each served token lies from what the seed gives, [n] float64.

    Args:
        logits: of the vocabulary, [n, V].
        tokens: that were served, n; each below V.
        chain: the sampler.
        seed: of its generator.

    Returns:
        Distances between draw and interval, 0 .. 1; of a greedy chain logits below the best.
    """
    import numpy as np

    if chain.is_greedy:
        rows = np.arange(len(tokens))
        served = logits[rows, list(tokens)].astype(np.float64)
        return np.asarray(logits.max(axis=1).astype(np.float64) - served)
    draws = get_draws(seed, len(tokens))
    misses = np.empty(len(tokens))
    for row, token in enumerate(tokens):  # row by row: V may be 2**18, and n a thousand
        start, end = get_interval(logits[row], token, chain)
        misses[row] = max(0.0, start - draws[row], draws[row] - end)
    return misses


def get_interval(row: "NDArray[Any]", token: int, chain: Chain) -> tuple[float, float]:
    """Where a token lies on the walk; one that the filters took out lies at the walk's end."""
    ids, ends = _get_walk(row, chain)
    found = (ids == token).nonzero()[0]
    if not len(found):
        return 1.0, 1.0
    place = int(found[0])
    return (float(ends[place - 1]) if place else 0.0), float(ends[place])


def sample(row: "NDArray[Any]", chain: Chain, draw: float) -> int:
    """The token that one draw gives, [V] logits."""
    if chain.is_greedy:
        return int(row.argmax())
    ids, ends = _get_walk(row, chain)
    return int(ids[min(int(ends.searchsorted(draw, side="left")), len(ids) - 1)])


def _get_walk(row: "NDArray[Any]", chain: Chain) -> tuple["NDArray[Any]", "NDArray[Any]"]:
    """Tokens in the order of the walk, and the cumulative probability at each one's end."""
    import numpy as np

    values = row.astype(np.float64)
    ids = np.arange(len(values))
    if chain.is_sorted:
        count = min(chain.top_k or len(values), len(values))
        if count < len(values):
            ids = np.argpartition(-values, count - 1)[:count]
        ids = ids[np.lexsort((ids, -values[ids]))]
    kept = values[ids]
    if chain.top_p_ppm < PPM:
        weights = np.exp(kept - kept.max())
        reached = np.cumsum(weights / weights.sum()) >= chain.top_p_ppm / PPM
        count = int(reached.argmax()) + 1 if reached.any() else len(ids)
        ids, kept = ids[:count], kept[:count]
    if chain.min_p_ppm:
        # above 1 the best token is left, as llama.cpp leaves it
        is_kept = kept >= kept.max() + math.log(min(chain.min_p_ppm, PPM) / PPM)
        ids, kept = ids[is_kept], kept[is_kept]
    scaled = kept / (chain.temperature_ppm / PPM)
    walked = np.cumsum(np.exp(scaled - scaled.max()))
    return ids, walked / walked[-1]
