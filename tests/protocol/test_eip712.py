"""Words of several values at once: what fits none is refused, also where lengths add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.eip712 import hash_word, number_words, uint_word

WORD = "ab" * 32


@given(st.integers(0, 2**256 - 1), st.binary(min_size=32, max_size=32))
def test_words_are_those_of_the_values_one_by_one(number: int, data: bytes) -> None:
    assert number_words("%064x %s %064x", number, data.hex(), 7) == (
        uint_word(number) + hash_word("0x" + data.hex()) + uint_word(7)
    )


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("%064x", (-1,)),
        ("%064x", (2**256,)),
        ("%s", (WORD + "ab",)),
        ("%s %s", (WORD + "ab", WORD[2:])),  # a byte moved from one to the other
        ("%064x %s", (2**256, WORD[1:])),
        ("%s %064x", ("-" + WORD[1:], 1)),
        ("%s", (" " + WORD[2:] + " ",)),
        ("%s %s", (WORD + " " + WORD[:28] + " ", WORD[30:])),  # a third word among two
    ],
)
def test_what_is_no_word_is_refused(template: str, values: tuple[int | str, ...]) -> None:
    with pytest.raises(OverflowError):
        number_words(template, *values)
