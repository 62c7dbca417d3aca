"""What a hosted gateway asks: whoever serves, the price covers the cost and the margin."""

from hypothesis import given
from hypothesis import strategies as st

from hanse.cli.selling.resale import PPM, add_margin, plan_resale
from hanse.market import ListedOffer
from hanse.protocol.messages import Offer, Prices, SignedOffer, Usage
from hanse.protocol.signatures import ZERO_HASH

OWN, A, B, C = ("0x" + digit * 40 for digit in "0abc")
NAME = ("chat", "small")


def offer(provider: str, prices: Prices, *, model: str = "small", context: int = 4_096):
    made = Offer(
        provider=provider,
        service_id=1,
        service_type="chat",
        model=model,
        manifest_root=ZERO_HASH,
        quantisation="none",
        engine="echo",
        context_tokens=context,
        output_tokens_max=1_000,
        prices=prices,
        verifiability="reputation",
        endpoints=("http://x",),
        encryption_key=ZERO_HASH,
        valid_until=2_000_000_000,
        revision=1,
    )
    return ListedOffer(SignedOffer(made, "0x"), ZERO_HASH, "0x" + "11" * 20)


def plan(*offers, count=2, margin_ppm=100_000, models=()):
    return plan_resale(offers, own=OWN, count=count, margin_ppm=margin_ppm, models=models)


def test_it_sells_at_the_dearest_of_those_it_buys_of():
    found = plan(
        offer(A, Prices(100, 50, 200)), offer(B, Prices(110, 40, 190)), offer(C, Prices(900, 9, 9))
    )
    assert found[NAME].providers == (A, B)
    assert found[NAME].cost == Prices(110, 50, 200)
    assert found[NAME].prices == Prices(121, 55, 220)


def test_it_never_buys_of_itself():
    assert plan(offer(OWN, Prices(1, 1, 1))) == {}
    found = plan(offer(OWN, Prices(1, 1, 1)), offer(A, Prices(100, 50, 200)))
    assert found[NAME].providers == (A,)


def test_it_promises_what_all_of_them_do_and_only_the_models_asked_for():
    offers = [
        offer(A, Prices(1, 1, 1), context=8_000),
        offer(B, Prices(2, 2, 2), context=2_000),
        offer(A, Prices(3, 3, 3), model="large"),
    ]
    assert plan(*offers)[NAME].context_tokens == 2_000
    assert set(plan(*offers)) == {NAME, ("chat", "large")}
    assert set(plan(*offers, models=("large",))) == {("chat", "large")}


PRICES = st.builds(Prices, *[st.integers(0, 10**12)] * 3)
USAGES = st.builds(Usage, *[st.integers(0, 10**6)] * 3)


@given(PRICES, st.integers(0, 10 * PPM), USAGES)
def test_no_request_is_sold_below_its_cost_and_margin(cost, margin_ppm, usage):
    asked = add_margin(cost, margin_ppm)
    assert asked.get_fee(usage) >= cost.get_fee(usage)
    assert asked.get_fee(usage) * PPM >= (cost.get_fee(usage) - 1) * (PPM + margin_ppm)
