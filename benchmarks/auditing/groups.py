"""Answers put together until they have as many tokens as an audit of that size would see."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Answer = TypeVar("Answer")


def make_groups(
    answers: Iterable[Answer], tokens: int, count: Callable[[Answer], int]
) -> Iterator[list[tuple[Answer, int]]]:
    """One answer after the other until they have so many tokens; what is left is no group.

    Args:
        answers: in order.
        tokens: of each group; the last answer of one is cut to them.
        count: says how many tokens an answer has.
    """
    group: list[tuple[Answer, int]] = []
    missing = tokens
    for one in answers:
        taken = min(missing, count(one))
        group.append((one, taken))
        missing -= taken
        if missing == 0:
            yield group
            group, missing = [], tokens
