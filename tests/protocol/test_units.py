"""Amounts: exact both ways; fees: rounded up once, by less than one base unit."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.errors import RequestError
from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.messages import Prices, Usage
from hanse.protocol.units import format_amount, get_fee, parse_amount
from tests.protocol.made_messages import amounts, prices, tokens, usages

decimals = st.integers(0, 36)


@given(amount=amounts, decimals=decimals)
def test_what_is_written_reads_back(amount, decimals):
    text = format_amount(amount, decimals)
    assert parse_amount(text, decimals) == amount
    assert Fraction(text) * 10**decimals == amount
    assert not (("." in text) and text.endswith("0"))


@given(amount=amounts, decimals=decimals)
def test_a_negative_difference_is_written_with_its_sign(amount, decimals):
    assert format_amount(-amount, decimals) == ("-" if amount else "") + format_amount(
        amount, decimals
    )


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("12", 12_000_000), ("12.5", 12_500_000), (".5", 500_000), ("0.000001", 1)]
    + [("007", 7_000_000), (" 3 ", 3_000_000), ("1.500000", 1_500_000)],
)
def test_amounts_as_people_write_them(text, amount):
    assert parse_amount(text, 6) == amount


@pytest.mark.parametrize(
    "text",
    ["", " ", ".", "1.", "-1", "+1", "1e6", "1,5", "1_000", "0x10", "1.2.3", "NaN", "inf", "٣", "²"]
    + ["1 000", "9" * 61, "0.0000001", "79228162514264337593544"],
)
def test_what_is_no_exact_amount(text):
    with pytest.raises(RequestError) as caught:
        parse_amount(text, 6)
    assert caught.value.code == "amount_malformed"


@given(text=st.text(max_size=40), decimals=decimals)
def test_any_text_is_an_amount_or_an_error(text, decimals):
    try:
        assert 0 <= parse_amount(text, decimals) <= AMOUNT_MAX
    except RequestError as error:
        assert error.code == "amount_malformed"  # noqa: PT017


@pytest.mark.parametrize("decimals", [-1, 37])
def test_decimals_have_a_range(decimals):
    with pytest.raises(RequestError, match="decimals"):
        parse_amount("1", decimals)
    with pytest.raises(RequestError, match="decimals"):
        format_amount(1, decimals)


@given(pairs=st.lists(st.tuples(tokens, prices), max_size=4).map(tuple))
def test_a_fee_is_rounded_up_by_less_than_one_base_unit(pairs):
    exact = Fraction(sum(count * price for count, price in pairs), 1_000_000)
    assert 0 <= get_fee(pairs) - exact < 1


@pytest.mark.parametrize(
    ("usage", "fee"),
    [
        (Usage(), 0),
        (Usage(input_tokens=1), 1),  # 0.0001 base units round up to one
        (Usage(10_000), 1),
        (Usage(10_001), 2),
        (Usage(5_000, 50_000, 0), 1),  # two halves: rounded once, over the sum
        (Usage(5_000, 50_000, 1), 2),
        (Usage(1_000_000, 1_000_000, 1_000_000), 410),
    ],
)
def test_fees_by_hand(usage, fee):
    assert Prices(100, 10, 300).get_fee(usage) == fee


@given(usage=usages, price=st.builds(Prices, prices, prices, prices))
def test_each_count_meets_its_own_price(usage, price):
    exact = (
        usage.input_tokens * price.input_per_mtok
        + usage.cached_tokens * price.cached_per_mtok
        + usage.output_tokens * price.output_per_mtok
    )
    assert price.get_fee(usage) == -(-exact // 1_000_000)
