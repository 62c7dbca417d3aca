"""The maximum fee bounds every fee that can be metered for the request."""

from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.messages import Usage
from hanse.protocol.pricing import TEMPLATE_TOKENS, get_maximum_fee, get_maximum_usage
from tests.protocol.made_messages import make_offer, offers


@given(
    offer=offers, body_bytes=st.integers(0, 4 << 20), output=st.integers(0, 10_000), data=st.data()
)
def test_no_metered_usage_costs_more(offer, body_bytes, output, data):
    """Any prompt of that body, any part of it cached, any answer up to what was asked."""
    prompt = data.draw(st.integers(0, min(body_bytes + TEMPLATE_TOKENS, offer.context_tokens)))
    cached = data.draw(st.integers(0, prompt))
    answer = data.draw(st.integers(0, output))
    fee = offer.prices.get_fee(Usage(prompt - cached, cached, answer))
    assert fee <= get_maximum_fee(offer, body_bytes, output)


@given(offer=offers, body_bytes=st.integers(0, 4 << 20), output=st.integers(0, 10_000))
def test_the_bound_is_reached(offer, body_bytes, output):
    """It is the price of the dearest possible usage, so nothing is reserved for nothing."""
    most = get_maximum_usage(offer, body_bytes, output)
    all_fresh = offer.prices.get_fee(most)
    all_cached = offer.prices.get_fee(Usage(0, most.input_tokens, most.output_tokens))
    assert get_maximum_fee(offer, body_bytes, output) == max(all_fresh, all_cached)


def test_input_is_held_to_the_context():
    offer = make_offer(context_tokens=2_048)
    assert get_maximum_usage(offer, 100, 5).input_tokens == 100 + TEMPLATE_TOKENS
    assert get_maximum_usage(offer, 1_000_000, 5).input_tokens == 2_048


def test_the_texts_of_an_embeddings_request_are_not_held_to_one_context():
    """Each may fill a context of its own, so many long texts must be authorised as such."""
    offer = make_offer(context_tokens=2_048)
    assert get_maximum_usage(offer, 1_000_000, 0).input_tokens == 1_000_000 + TEMPLATE_TOKENS


def test_maximum_fee_by_hand():
    offer = make_offer()  # 100 in, 10 cached, 300 out per million
    assert get_maximum_fee(offer, 488, 100) == 1  # 1000 x 100 + 100 x 300 = 0.13 of a base unit
    assert get_maximum_fee(offer, 488, 10_000) == 4  # 3.1, rounded up
