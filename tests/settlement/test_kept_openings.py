"""How openings are stored: whatever was committed to comes back, in no more than 16 bytes a token.

The figures of real answers are in docs/measurements.md; here a normal distribution stands for them.
"""

import asyncio
import random
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.commitments.fingerprints import ABSENT, CANARIES, SCALE, quantise
from hanse.protocol.commitments.tree import (
    POSITIONS_MAX,
    TOKEN_ID_MAX,
    UNKNOWN_TOKEN,
    Entry,
    encode_opening,
)
from hanse.protocol.errors import InvariantError, TransientError
from hanse.settlement.openings.kept_form import BALANCES, STEPS, decode_kept, encode_kept
from hanse.settlement.openings.opening_book import COMPONENT, open_opening_book
from hanse.settlement.openings.opening_book import STEPS as TABLES
from hanse.store import open_database

BUYER, SIGNER, REQUEST = "0x" + "a1" * 20, "0x" + "51" * 20, "0x" + "11" * 32
NOW = 1_900_000_000

entries = st.builds(
    Entry,
    st.integers(0, 300) | st.integers(0, TOKEN_ID_MAX) | st.just(UNKNOWN_TOKEN),
    st.binary(min_size=16, max_size=16) | st.just(ABSENT) | st.just(b"\x7f" * 16),
)


def make_answer(tokens: int, vocabulary: int = 49_152) -> list[Entry]:
    """Fingerprints as a copy's are: canaries of unit length over a normed state."""
    chance = random.Random(tokens)
    return [
        Entry(chance.randrange(vocabulary), quantise([chance.gauss() for _ in range(CANARIES)]))
        for _ in range(tokens)
    ]


@given(st.lists(entries, max_size=200))
def test_whatever_is_kept_comes_back(answer: list[Entry]) -> None:
    assert decode_kept(encode_kept(answer)) == tuple(answer)


@pytest.mark.parametrize("tokens", [16, 64, 300, 1_000])
def test_an_answer_takes_no_more_than_16_bytes_a_token(tokens: int) -> None:
    answer = make_answer(tokens)
    kept = encode_kept(answer)
    assert decode_kept(kept) == tuple(answer)
    assert len(kept) <= 16 * tokens
    assert len(kept) < 0.8 * len(encode_opening(answer))


def test_tokens_that_repeat_are_deflated() -> None:
    answer = make_answer(300)
    again = [Entry(n % 20, entry.fingerprint) for n, entry in enumerate(answer)]
    assert len(encode_kept(again)) < len(encode_kept(answer)) - 300
    assert decode_kept(encode_kept(again)) == tuple(again)


@pytest.mark.parametrize("code", [STEPS, BALANCES])
def test_each_byte_has_a_word_and_no_bits_are_wasted(code: object) -> None:
    assert isinstance(code, type(STEPS))
    assert len(code.values) == 256
    assert sum(2.0 ** -len(word) for word in code.words) == 1


def test_steps_are_coded_for_the_scale_of_fingerprints() -> None:
    """A deviation of 1 / SCALE: one more bit where the distribution has fallen by half."""
    falls_by_half = round((2 * 0.6931) ** 0.5 / SCALE)
    assert len(STEPS.words[falls_by_half]) == len(STEPS.words[0]) + 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ([Entry(TOKEN_ID_MAX + 1, ABSENT)], "token id"),
        ([Entry(-1, ABSENT)], "token id"),
        ([Entry(1, b"short")], "fingerprint"),
        ([Entry(1, ABSENT)] * (POSITIONS_MAX + 1), "at most"),
    ],
)
def test_what_cannot_be_committed_is_not_kept(answer: list[Entry], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        encode_kept(answer)


KEPT = encode_kept(make_answer(64))


@given(st.binary(max_size=100), st.integers(0, len(KEPT) - 1), st.integers(0, 255))
def test_a_damaged_row_says_so(other: bytes, place: int, value: int) -> None:
    """Or gives other entries, which the receipt's root tells; nothing else is raised."""
    changed = bytes([*KEPT[:place], value, *KEPT[place + 1 :]])
    for damaged in (changed, KEPT[:place], other, KEPT + b"\0"):
        with suppress(InvariantError):
            assert len(decode_kept(damaged)) <= POSITIONS_MAX


@pytest.mark.parametrize(
    "kept",
    [b"", b"\x00\x01", b"\x21\x01", b"\x45\x01", b"\x10", b"\x10\xff\xff\xff\xff\x01", b"\x10\x05"],
)
def test_what_is_no_kept_opening_is_refused(kept: bytes) -> None:
    with pytest.raises(InvariantError, match="kept opening"):
        decode_kept(kept)


def test_no_more_is_inflated_than_the_tokens_take() -> None:
    kept = encode_kept([Entry(7, ABSENT)] * 64)
    steps_bytes = 64 * (15 * len(STEPS.words[0x80]) + len(BALANCES.words[0])) // 8
    tokens_at = 2 + steps_bytes
    assert zlib.decompress(kept[tokens_at:], -15) == b"\x08" * 64
    bomb = zlib.compress(bytes(10_000_000), 9, -15)
    with pytest.raises(InvariantError, match="take 65 bytes, expected 64"):
        decode_kept(kept[:tokens_at] + bomb)


async def test_rows_from_before_are_given_as_they_are() -> None:
    database = await open_database(":memory:")
    await database.migrate(COMPONENT, TABLES[:1])
    opening = encode_opening(make_answer(5))
    row = (REQUEST, SIGNER, BUYER, NOW + 9, opening)
    await database.write(
        lambda tx: tx.execute("INSERT INTO receipt_openings VALUES (?, ?, ?, ?, ?)", row)
    )
    book = await open_opening_book(database)
    assert await book.find(BUYER, SIGNER, REQUEST, NOW) == opening
    await database.close()


class CountingExecutor(ThreadPoolExecutor):
    """Counts what it was given and has not done."""

    def __init__(self) -> None:
        super().__init__(8)
        self.given: set[Future[Any]] = set()
        self.most = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.given = {one for one in self.given if not one.done()} | {future}
        self.most = max(self.most, len(self.given))
        return future


async def test_a_buyer_who_asks_many_times_at_once_keeps_one_thread_busy() -> None:
    executor = CountingExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    database = await open_database(":memory:")
    book = await open_opening_book(database)
    answer = make_answer(2_000)
    await book.keep(BUYER, SIGNER, REQUEST, answer, NOW)
    found = await asyncio.gather(*[book.find(BUYER, SIGNER, REQUEST, NOW) for _ in range(8)])
    assert found == [encode_opening(answer)] * 8
    assert executor.most == 1
    await database.close()


async def test_a_program_from_before_does_not_open_it() -> None:
    database = await open_database(":memory:")
    await open_opening_book(database)
    with pytest.raises(TransientError, match="newer"):
        await database.migrate(COMPONENT, TABLES[:1])
    await database.close()
