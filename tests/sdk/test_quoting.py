"""Quotes: the price of a request is the one that the choice of a provider goes by."""

import pytest

from hanse.market.matching import price_offer
from hanse.sdk.purchase.quoting import quote_offer
from tests.market.market_parts import list_offer, make_shape

ALPHA = "0x" + "a1" * 20


@pytest.mark.parametrize(
    ("service_type", "output_tokens"),
    [("chat", 2 * 20), ("embeddings", 0), ("transcription", 0), ("speech", 0)],
)
def test_a_quote_has_output_tokens_only_where_answers_are_sold_by_them(
    service_type: str, output_tokens: int
) -> None:
    listed = list_offer(ALPHA, service_type=service_type)
    shape = make_shape(service_type=service_type, output_tokens_asked=20, choices=2)
    quote, candidate = quote_offer(listed, shape), price_offer(listed, shape)
    assert quote.output_tokens_max == output_tokens
    assert quote.maximum_fee == candidate.maximum_fee
    assert quote.expected_fee == candidate.expected_fee
