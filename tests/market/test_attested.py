"""Offers of class `tee` fit only while their provider's receipt key is verified."""

import pytest

from hanse.market import Needs
from hanse.market.attested import AttestedBook
from hanse.protocol.errors import TransientError
from tests.market.market_parts import ALPHA, BETA, NOW, Clock, MadeMarket, list_offer

OFFER = list_offer(ALPHA, 1, verifiability="tee")


def test_the_states_of_a_receipt_key():
    clock = Clock()
    book = AttestedBook(clock)
    assert "has not been verified" in book.find_problem(OFFER)
    book.verify_until(ALPHA, ALPHA, "image", NOW + 60)
    assert book.find_problem(OFFER) == ""
    clock.now += 60
    assert "too old" in book.find_problem(OFFER)
    book.refuse(ALPHA, ALPHA, "another image")
    assert book.find_problem(OFFER) == "another image"
    book.verify_until(ALPHA, ALPHA, "image", NOW + 120)
    assert book.find_problem(OFFER) == ""


def test_another_receipt_key_is_another_machine():
    book = AttestedBook(Clock())
    book.verify_until(ALPHA, BETA, "image", NOW + 60)
    book.verify_until(BETA, ALPHA, "image", NOW + 60)
    assert book.find_problem(OFFER) != ""


@pytest.mark.parametrize("verifiability", ["embedded", "sampled", "reputation"])
def test_offers_of_another_class_need_none(verifiability):
    book = AttestedBook(Clock())
    assert book.find_problem(list_offer(ALPHA, verifiability=verifiability)) == ""


def test_the_cheapest_is_not_asked_before_its_machine_is_verified():
    market = MadeMarket([OFFER, list_offer(BETA, 100)])
    market.board.attested.refuse(ALPHA, ALPHA, "nobody knows it")
    assert market.choose() == BETA
    assert market.choose(Needs(preferred=ALPHA)) == BETA
    (exclusion,) = market.rank().exclusions
    assert (exclusion.kind, "nobody knows it" in exclusion.reason) == ("attestation", True)
    with pytest.raises(TransientError, match="nobody knows it"):
        market.choose(Needs(verifiability_min="tee"))
    market.board.attested.verify_until(ALPHA, ALPHA, "image", NOW + 60)
    assert market.choose() == ALPHA
    market.clock.now += 60
    assert market.choose() == BETA


def test_a_machine_that_is_not_verified_costs_the_search_nothing():
    """It stands in no tree: before, each request went through all of them in vain."""
    market = MadeMarket([OFFER, list_offer(BETA, 100)])
    ((_, row),) = market.board.list_rows(ALPHA)
    assert market.choose() == ALPHA

    def look() -> bool:
        market.board.find_group("chat", "echo")
        return row.leaf is not None

    assert look()
    market.board.attested.refuse(ALPHA, ALPHA, "nobody knows it")
    assert not look()
    market.board.attested.verify_until(ALPHA, ALPHA, "image", NOW + 60)
    assert look()
    market.health.report_failure(ALPHA, "gone", 30.0)
    assert not look()
    market.clock.now += 30
    assert look()  # the later end of its verification did not put off the earlier of its rest
    market.board.attested.verify_until(ALPHA, ALPHA, "image", NOW + 90)
    market.clock.now += 30
    assert look()  # it was verified again in time
    market.clock.now += 30
    assert not look()
