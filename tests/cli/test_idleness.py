"""Why a provider is idle: every reason, and which comes first; and what its offer says."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hanse.cli.amounts import AssetUnits
from hanse.cli.selling.idleness import QUIET_S, ProviderFacts, explain_idle
from hanse.cli.selling.provider_status import describe_offer

NOW_S = 1_800_000_000
BUSY = ProviderFacts(
    is_registered=True,
    stake=100,
    minimum_stake=100,
    unbonding_until_s=0,
    receipt_key_matches=True,
    published_offers=1,
    health="ok",
    valid_until_s=NOW_S + 1_000,
    cheaper_offers=0,
    sub_accounts=1,
    requests=5,
    last_request_s=NOW_S - 1,
    name="lubeck",
)


def test_a_provider_that_is_asked_is_not_idle():
    assert explain_idle(BUSY, NOW_S) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_registered": False}, "hanse provider start --register --name lubeck"),
        ({"is_condemned": True, "stake": 0, "health": "unreachable"}, "condemned"),
        ({"stake": 99}, "stake of 99 is below the least that counts, 100"),
        ({"unbonding_until_s": NOW_S + 5}, "unbonding"),
        ({"receipt_key_matches": False}, "another receipt key"),
        ({"published_offers": 0}, "no offer is published"),
        ({"valid_until_s": NOW_S}, "expired"),
        ({"health": "unreachable"}, "the broker is unreachable"),
        ({"health": "not running", "published_offers": 0}, "hanse provider start --name lubeck"),
        ({"last_request_s": NOW_S - QUIET_S}, "nobody has asked lately"),
    ],
)
def test_each_single_cause_is_named_alone(change, reason):
    reasons = explain_idle(replace(BUSY, **change), NOW_S)

    assert len(reasons) == 1
    assert reason in reasons[0]


def test_a_new_provider_is_told_all_that_may_keep_users_away():
    new = replace(BUSY, sub_accounts=0, cheaper_offers=2, requests=0, last_request_s=0)

    text = "; ".join(explain_idle(new, NOW_S))
    assert "no user has funded" in text
    assert "2 other offers of this model are cheaper" in text
    assert "no request has come yet" in text


def test_prices_are_not_mentioned_while_the_offer_is_not_on_the_market():
    reasons = explain_idle(
        replace(BUSY, published_offers=0, cheaper_offers=2, last_request_s=0), NOW_S
    )
    assert reasons == ["no offer is published"]


@pytest.mark.parametrize(
    ("service_type", "price"),
    [
        ("chat", "at 0.15 in, 0.6 tHSD out a million tokens,"),
        ("speech", "at 0.15 tHSD a million characters,"),
        ("transcription", "at 0.15 tHSD a million seconds of audio,"),
    ],
)
def test_an_offer_says_what_its_price_is_of(service_type, price):
    offer = {"service_type": service_type, "model": "m", "engine": "e", "valid_until": 0}
    prices = {"input_per_mtok": "150000", "output_per_mtok": "600000"}
    network = SimpleNamespace(units=AssetUnits("tHSD", 6))
    assert price in describe_offer(offer | prices, network)
