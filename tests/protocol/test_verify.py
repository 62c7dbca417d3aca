"""Every check of `verify` fails for its own reason, and passes the right message."""

import pytest

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.limits import (
    CLOCK_SKEW_S_MAX,
    DEADLINE_S_MAX,
    OFFER_VALID_S_MAX,
    QUERY_VALID_S_MAX,
)
from hanse.protocol.messages import FinishReason, Prices, SignedReceipt, Usage
from hanse.protocol.verify import (
    verify_offer,
    verify_query,
    verify_receipt,
    verify_receipt_fee,
    verify_receipt_signature,
    verify_voucher,
)
from tests.protocol.made_messages import (
    ATTACKER_KEY,
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_ADDRESS,
    make_offer,
    make_query,
    make_receipt,
    make_voucher,
    sign_offer,
)

OTHER_CHAIN = Domain(1, DOMAIN.escrow)
OTHER_ESCROW = Domain(DOMAIN.chain_id, "0x" + "99" * 20)


def refused(code: str, kind: type[HanseError] = RequestError):
    return pytest.raises(kind, check=lambda error: error.code == code)


def test_right_voucher():
    verify_voucher(make_voucher(), DOMAIN, PROVIDER, NOW_S)


def test_voucher_for_another_provider():
    with refused("wrong_provider"):
        verify_voucher(make_voucher(provider="0x" + "cc" * 20), DOMAIN, PROVIDER, NOW_S)


@pytest.mark.parametrize("ahead_s", [-CLOCK_SKEW_S_MAX, 0, DEADLINE_S_MAX + CLOCK_SKEW_S_MAX])
def test_deadlines_that_still_count(ahead_s):
    verify_voucher(make_voucher(deadline=NOW_S + ahead_s), DOMAIN, PROVIDER, NOW_S)


@pytest.mark.parametrize("ahead_s", [-CLOCK_SKEW_S_MAX - 1, DEADLINE_S_MAX + CLOCK_SKEW_S_MAX + 1])
def test_deadlines_that_do_not(ahead_s):
    with refused("voucher_expired"):
        verify_voucher(make_voucher(deadline=NOW_S + ahead_s), DOMAIN, PROVIDER, NOW_S)


def test_maximum_fee_above_the_voucher():
    with refused("unprocessable"):
        verify_voucher(make_voucher(maximum_fee=5_001), DOMAIN, PROVIDER, NOW_S)


@pytest.mark.parametrize("domain", [OTHER_CHAIN, OTHER_ESCROW], ids=["chain", "escrow"])
def test_voucher_of_another_deployment(domain):
    with refused("signature_invalid"):
        verify_voucher(make_voucher(domain=domain), DOMAIN, PROVIDER, NOW_S)


def test_voucher_signed_by_an_attacker():
    with refused("signature_invalid"):
        verify_voucher(make_voucher(key=ATTACKER_KEY), DOMAIN, PROVIDER, NOW_S)


@pytest.mark.parametrize(
    "changes",
    [{"body_hash": "0x" + "ee" * 32}, {"maximum_fee": 999}, {"request_id": "0x" + "ee" * 32}]
    + [{"offer_hash": "0x" + "ee" * 32}, {"deadline": NOW_S + 61}],
)
def test_a_stolen_voucher_buys_nothing_else(changes):
    """An attacker keeps the signature and changes the request; the broker recomputes its hash."""
    honest, other = make_voucher(), make_voucher(**changes)
    stolen = type(honest)(other.voucher, other.request, honest.signer, honest.signature)
    with refused("signature_invalid"):
        verify_voucher(stolen, DOMAIN, PROVIDER, NOW_S)


def test_right_query():
    verify_query(*make_query(), DOMAIN, PROVIDER, NOW_S)


def test_query_for_another_provider():
    with refused("wrong_provider"):
        verify_query(*make_query(provider="0x" + "cc" * 20), DOMAIN, PROVIDER, NOW_S)


@pytest.mark.parametrize(
    "ahead_s", [-CLOCK_SKEW_S_MAX - 1, QUERY_VALID_S_MAX + CLOCK_SKEW_S_MAX + 1]
)
def test_query_too_old_or_too_long(ahead_s):
    with refused("voucher_expired"):
        verify_query(*make_query(NOW_S + ahead_s), DOMAIN, PROVIDER, NOW_S)


def test_an_attacker_reads_nobody_elses_receipts():
    with refused("signature_invalid"):
        verify_query(*make_query(key=ATTACKER_KEY), DOMAIN, PROVIDER, NOW_S)


def test_right_receipt():
    voucher = make_voucher()
    receipt = make_receipt(voucher)
    verify_receipt_signature(receipt, DOMAIN, RECEIPT_ADDRESS)
    verify_receipt(receipt, voucher, make_offer(), receipt.receipt.response_hash)


@pytest.mark.parametrize("signature", ["", "0x", "0x" + "00" * 65, "0x" + " " * 130])
def test_receipt_with_garbage_for_a_signature(signature):
    receipt = make_receipt(make_voucher()).receipt
    with refused("receipt_invalid", VerificationError):
        verify_receipt_signature(SignedReceipt(receipt, signature), DOMAIN, RECEIPT_ADDRESS)


def test_receipt_signed_by_an_attacker():
    with refused("receipt_invalid", VerificationError):
        verify_receipt_signature(
            make_receipt(make_voucher(), key=ATTACKER_KEY), DOMAIN, RECEIPT_ADDRESS
        )


def test_receipt_changed_after_signing():
    signed = make_receipt(make_voucher())
    cheaper = make_receipt(make_voucher(), fee=6).receipt
    with refused("receipt_invalid", VerificationError):
        verify_receipt_signature(SignedReceipt(cheaper, signed.signature), DOMAIN, RECEIPT_ADDRESS)


@pytest.mark.parametrize("field", ["user", "provider", "signer"])
def test_receipt_for_another_sub_account(field):
    voucher = make_voucher()
    receipt = make_receipt(voucher, **{field: "0x" + "99" * 20})
    with refused("receipt_invalid", VerificationError):
        verify_receipt(receipt, voucher, make_offer(), receipt.receipt.response_hash)


def test_receipt_for_another_request():
    voucher = make_voucher()
    receipt = make_receipt(voucher, request_hash="0x" + "99" * 32)
    with refused("receipt_invalid", VerificationError):
        verify_receipt(receipt, voucher, make_offer(), receipt.receipt.response_hash)


def test_receipt_for_other_bytes():
    voucher = make_voucher()
    with refused("response_mismatch", VerificationError):
        verify_receipt(make_receipt(voucher), voucher, make_offer(), "0x" + "99" * 32)


def test_an_answer_whose_end_never_came_is_not_compared():
    voucher = make_voucher()
    verify_receipt(make_receipt(voucher), voucher, make_offer(), None)


@pytest.mark.parametrize(("fee", "right"), [(0, True), (7, True), (8, False)])
def test_a_fee_is_at_most_price_times_usage(fee, right):
    """10,000 x 100 + 20,000 x 300 is 7 base units exactly; errors may cost less."""
    receipt = make_receipt(make_voucher(), fee=fee)
    if right:
        verify_receipt_fee(receipt, 1_000, make_offer())
    else:
        with refused("receipt_invalid", VerificationError):
            verify_receipt_fee(receipt, 1_000, make_offer())


@pytest.mark.parametrize(("fee", "right"), [(5, True), (6, False)])
def test_a_fee_is_at_most_what_was_authorised(fee, right):
    receipt = make_receipt(make_voucher(maximum_fee=5), fee=fee)
    if right:
        verify_receipt_fee(receipt, 5, make_offer())
    else:
        with refused("receipt_invalid", VerificationError):
            verify_receipt_fee(receipt, 5, make_offer())


def test_a_price_change_never_reaches_a_signed_request():
    """The receipt is judged by the offer that the request names, not by today's dearer one."""
    voucher = make_voucher()
    dearer = make_receipt(voucher, fee=14)
    verify_receipt_fee(dearer, 1_000, make_offer(prices=Prices(200, 20, 600)))
    with refused("receipt_invalid", VerificationError):
        verify_receipt(dearer, voucher, make_offer(), None)


def test_a_failed_request_costs_nothing():
    voucher = make_voucher()
    failed = make_receipt(voucher, finish_reason=FinishReason.ERROR, usage=Usage(), fee=0)
    verify_receipt(failed, voucher, make_offer(), None)
    charged = make_receipt(voucher, finish_reason=FinishReason.ERROR, usage=Usage(), fee=1)
    with refused("receipt_invalid", VerificationError):
        verify_receipt(charged, voucher, make_offer(), None)


def test_right_offer():
    verify_offer(sign_offer(make_offer()), DOMAIN, RECEIPT_ADDRESS, NOW_S)


@pytest.mark.parametrize(
    "valid_until", [0, NOW_S - 1, NOW_S, NOW_S + OFFER_VALID_S_MAX + CLOCK_SKEW_S_MAX + 1]
)
def test_offer_out_of_force(valid_until):
    with refused("offer_invalid", VerificationError):
        verify_offer(
            sign_offer(make_offer(valid_until=valid_until)), DOMAIN, RECEIPT_ADDRESS, NOW_S
        )


def test_offer_whose_cached_input_is_dearer():
    verify_offer(sign_offer(make_offer(prices=Prices(5, 5, 0))), DOMAIN, RECEIPT_ADDRESS, NOW_S)
    trap = sign_offer(make_offer(prices=Prices(5, 6, 9)))
    with pytest.raises(VerificationError, match="cached input costs 6, input 5"):
        verify_offer(trap, DOMAIN, RECEIPT_ADDRESS, NOW_S)


def test_offer_signed_by_an_attacker():
    with refused("offer_invalid", VerificationError):
        verify_offer(sign_offer(make_offer(), ATTACKER_KEY), DOMAIN, RECEIPT_ADDRESS, NOW_S)


def test_offer_of_another_deployment():
    with refused("offer_invalid", VerificationError):
        verify_offer(sign_offer(make_offer()), OTHER_ESCROW, RECEIPT_ADDRESS, NOW_S)
