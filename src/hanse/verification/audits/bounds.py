"""What a sample of honest answers says about all of them, without a guess at the noise's shape.

- **Quantiles by order statistics.** Of n independent values, sorted, the k-th lies at or above the
  quantile q of where they come from with the probability that a binomial (n, q) is below k. The
  smallest such k with at least the confidence asked for gives the bound. If even the largest value
  (k = n, probability 1 - q**n) does not reach it, the sample does not carry that quantile, and
  nothing is returned in its place.
- **Rates by Clopper and Pearson.** Of n honest answers k were found wanting: the largest rate at
  which so few would still come with probability 1 - confidence. 0 of n is about 3 / n at 95 %.

`get_chance` is the same question the other way round, for many audits of one provider, asked once.
Who looks after every audit, and stops when it looks bad, asks `get_chance_at_any_look`: a bet
against an honest provider, whose capital grows above c with a probability of 1 / c at most,
whenever one looks (Ville's inequality).

All are exact and conservative; both assume that the sample was drawn as future answers will be.
Noise of a kind that the sample lacks (another runtime, longer contexts) is not in them.

Source: David and Nagaraja, Order Statistics, 3rd edition, 7.1; Clopper and Pearson (1934);
Shafer, Testing by betting (2021).
"""

import math
from collections.abc import Sequence

SAMPLES_MAX = 1_000_000
"""Honest answers of one calibration; more are not slower to gain than to count."""


BETS = (0.02, 0.1, 0.5)
"""Parts of the capital that are bet, a third of it on each: large for a cheat in every answer,
small for one in every twentieth."""


def get_carried_quantile(count: int, confidence: float) -> float:
    """The highest quantile that `count` values bound at this confidence: (1 - c) ** (1 / n)."""
    _check(count, 0.5, confidence)
    return math.exp(math.log1p(-confidence) / count)


def get_count_needed(quantile: float, confidence: float) -> int:
    """The fewest values that bound this quantile at this confidence."""
    _check(1, quantile, confidence)
    return math.ceil(math.log1p(-confidence) / math.log(quantile) - 1e-9)


def find_rank(count: int, quantile: float, confidence: float, rank_min: int = 0) -> int | None:
    """Which of `count` sorted values bounds the quantile, from 1; None if not even the largest.

    One below `rank_min` is not looked for further down: whoever cannot use it need not wait for
    it, which takes seconds where a stranger's file names a million values and a low quantile.
    """
    _check(count, quantile, confidence)
    rank, tail = None, 0.0
    for above in range(count, -1, -1):  # P(binomial >= above), from the thin end
        tail += _get_probability(count, above, quantile)
        if tail > 1 - confidence or above < rank_min:
            return rank
        rank = above
    return rank  # pragma: no cover  # the tail reaches one


def find_upper_bound(values: Sequence[int], quantile: float, confidence: float) -> int | None:
    """A value that the quantile is below or at, at this confidence; None if none is carried."""
    rank = find_rank(len(values), quantile, confidence)
    return None if rank is None else sorted(values)[rank - 1]


def get_rate_bound(found: int, count: int, confidence: float) -> float:
    """The highest rate at which no more than `found` of `count` are still likely enough."""
    _check(count, 0.5, confidence)
    if not 0 <= found <= count:
        raise ValueError(f"{found} of {count} is no share")
    if found == count:
        return 1.0
    low, high = found / count, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        likely = math.fsum(_get_probability(count, k, middle) for k in range(found + 1))
        low, high = (middle, high) if likely > 1 - confidence else (low, middle)
    return high


def get_chance(found: int, count: int, rate: float) -> float:
    """How probable it is that at least `found` of `count` are, by chance, at this rate each.

    Of audits in which sampling differed, each of which proves nothing: many of them do.
    """
    _check(count, 0.5, 0.5)
    if not (0 <= found <= count and 0 < rate < 1):
        raise ValueError(f"{found} of {count} at a rate of {rate} is no share")
    return min(1.0, math.fsum(_get_probability(count, k, rate) for k in range(found, count + 1)))


def get_chance_at_any_look(found: int, count: int, rate: float) -> float:
    """How probable it is that an honest provider ever comes to look as bad as this, at most.

    Honest answers are found wanting at this rate at most, whatever came before. The capital depends
    on how many were and not on their order, so the counts are enough.
    """
    _check(count, 0.5, 0.5)
    if not (0 <= found <= count and 0 < rate < 1):
        raise ValueError(f"{found} of {count} at a rate of {rate} is no share")
    logs = [
        found * math.log(1 - bet + bet / rate) + (count - found) * math.log1p(-bet) for bet in BETS
    ]
    top = max(logs)
    capital_log = top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(BETS))
    return min(1.0, math.exp(-capital_log)) if capital_log > 0 else 1.0


def _get_probability(count: int, successes: int, rate: float) -> float:
    """Of a binomial, by logarithms: factorials of a million fit no float."""
    if rate in (0.0, 1.0):
        return float(successes == (count if rate else 0))
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    hits, misses = successes * math.log(rate), (count - successes) * math.log1p(-rate)
    return math.exp(ways + hits + misses)


def _check(count: int, quantile: float, confidence: float) -> None:
    if not 0 < count <= SAMPLES_MAX:
        raise ValueError(f"a sample of {count}, expected 1 .. {SAMPLES_MAX}")
    if not (0 < quantile < 1 and 0 < confidence < 1):
        raise ValueError("quantile and confidence lie between 0 and 1")
