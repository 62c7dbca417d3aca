"""How the weight of what was seen halves with time, in integers, so that all machines agree.

    fade(age_s, half_life_s)    2**32 at once, 2**31 after a half-life, 0 in the end

Whole half-lives are shifts. Within one, a table of 64 steps is interpolated on straight lines; the
table comes from integer square roots, since a power of a float rounds as the machine's library
likes. Off by at most 2 parts in 100,000 of the true curve, and never rising.
"""

from math import isqrt

ONE = 1 << 32
"""What counts in full. Masses are integers of this unit."""

STEPS = 64
"""Of a half-life: straight lines between them differ from the curve by less than 2e-5."""

_FINE = 1 << 62  # the table is made with 30 bits more than it keeps


def _make_table() -> tuple[int, ...]:
    root = _FINE // 2  # 2**-1, then its root, six times: 2**(-1/64)
    for _ in range(STEPS.bit_length() - 1):
        root = isqrt(root * _FINE)
    values, value = [], _FINE
    for _ in range(STEPS):
        values.append(value >> 30)
        value = value * root // _FINE
    return (*values, ONE // 2)


_TABLE = _make_table()


def fade(age_s: int, half_life_s: int) -> int:
    """What is left of `ONE` after `age_s`; both in whole seconds, the half-life above 0.

    Rounded down. Whatever lies in the future counts in full; the caller decides if it counts.
    """
    if age_s <= 0:
        return ONE
    halvings, rest = divmod(age_s, half_life_s)
    step, into = divmod(rest * STEPS, half_life_s)
    high, low = _TABLE[step], _TABLE[step + 1]
    return (high - (high - low) * into // half_life_s) >> min(halvings, 64)
