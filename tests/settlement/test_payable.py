"""What a claim would bring, and what of it a pending refund would take."""

from dataclasses import replace

import pytest

from hanse.settlement import DueClaim, SubAccountFunds
from hanse.settlement.netting.payable import PayableClaim, to_payable

CLAIM = DueClaim(
    "0x" + "a1" * 20,
    "0x" + "c3" * 20,
    500,
    3,
    0,
    500,
    3,
    "0x" + "00" * 32,
    "0x" + "00" * 65,
)


@pytest.mark.parametrize(
    ("balance", "claimed", "payable"),
    [
        (1_000, 0, 500),
        (1_000, 120, 380),
        (380, 120, 380),
        (379, 120, 379),
        (1, 499, 1),
        (1_000, 500, None),
        (1_000, 501, None),
        (0, 0, None),
    ],
)
def test_a_claim_brings_what_is_due_at_most_what_is_held(balance, claimed, payable):
    found = to_payable(CLAIM, SubAccountFunds(balance, claimed))
    assert found == (None if payable is None else PayableClaim(CLAIM, payable))


@pytest.mark.parametrize(
    ("refund", "kept", "at_risk"),
    [(1_000, 0, 500), (501, 499, 1), (500, 500, 0), (1, 999, 0)],
)
def test_a_refund_takes_what_the_rest_does_not_hold(refund, kept, at_risk):
    funds = SubAccountFunds(1_000, 0, 0, refund, 77)
    found = to_payable(CLAIM, funds)
    assert found == PayableClaim(CLAIM, 500, 77, kept)
    assert found.at_risk == at_risk


def test_without_a_refund_nothing_is_kept_for_one():
    found = to_payable(CLAIM, SubAccountFunds(1_000, 0, 0, 0, 77))
    assert found == PayableClaim(CLAIM, 500, 0, 0)
    assert replace(found, payable=9).at_risk == 9
