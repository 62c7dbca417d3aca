"""The two books, transition by transition. How they fare together: test_books_together.py."""

import pytest

from hanse.protocol.books import (
    ProviderBook,
    UserBook,
    apply_acknowledgement,
    apply_admission,
    apply_finish,
    apply_issue,
    apply_release,
    get_voucher_maxima,
)
from hanse.protocol.errors import InvariantError, RequestError, TransientError, VerificationError
from hanse.protocol.limits import AMOUNT_MAX, IN_FLIGHT_PER_SUB_ACCOUNT_MAX, SEQUENCE_MAX


def admit(book=None, cumulative_max=100, sequence_max=1, maximum_fee=100, funded=1_000):
    return apply_admission(
        book or ProviderBook(),
        cumulative_max=cumulative_max,
        sequence_max=sequence_max,
        maximum_fee=maximum_fee,
        funded=funded,
    )


def test_admission_reserves_and_finish_releases():
    book = admit()
    assert (book.reserved, book.in_flight, book.cumulative_fee, book.sequence) == (100, 1, 0, 0)
    book = apply_finish(book, maximum_fee=100, fee=40)
    assert (book.reserved, book.in_flight, book.cumulative_fee, book.sequence) == (0, 0, 40, 1)


def test_a_voucher_that_covers_too_little_says_what_is_missing():
    with pytest.raises(RequestError) as caught:
        admit(admit(), cumulative_max=150, sequence_max=2, maximum_fee=60)
    error = caught.value
    assert error.code == "voucher_too_low"
    assert error.details["needed"] == "160"
    assert error.details["available"] == "150"
    assert error.details["missing"] == "10"
    assert "150" in error.message
    assert "160" in error.message


def test_a_voucher_for_too_few_requests_is_too_low():
    with pytest.raises(RequestError) as caught:
        admit(admit(), cumulative_max=1_000, sequence_max=1)
    assert caught.value.code == "voucher_too_low"
    assert caught.value.details["sequence_needed"] == "2"


def test_what_the_chain_does_not_hold_is_not_lent():
    with pytest.raises(RequestError) as caught:
        admit(funded=99)
    assert caught.value.code == "insufficient_balance"
    assert caught.value.details["missing"] == "1"
    assert admit(funded=100).reserved == 100


def test_vouchers_may_arrive_in_any_order():
    later_first = admit(cumulative_max=200, sequence_max=2)
    both = admit(later_first, cumulative_max=100, sequence_max=1)
    assert (both.in_flight, both.reserved) == (2, 200)
    assert (both.cumulative_max, both.sequence_max) == (200, 2)


def test_a_lower_voucher_counts_where_only_it_covers():
    """Its signer lost its books after signing for three, and starts again from receipts."""
    held = ProviderBook(sequence=1, cumulative_max=30, sequence_max=3)
    book = admit(held, cumulative_max=40, sequence_max=2, maximum_fee=40)
    assert (book.cumulative_max, book.sequence_max, book.reserved) == (40, 2, 40)


def test_two_vouchers_never_add_up():
    """One covers the sum, the other the count, neither both."""
    held = ProviderBook(sequence=1, cumulative_max=30, sequence_max=3)
    with pytest.raises(RequestError):
        admit(held, cumulative_max=40, sequence_max=1, maximum_fee=40)


def test_requests_at_work_are_limited():
    full = ProviderBook(in_flight=IN_FLIGHT_PER_SUB_ACCOUNT_MAX)
    with pytest.raises(TransientError) as caught:
        admit(full, sequence_max=SEQUENCE_MAX)
    assert caught.value.code == "rate_limited"


@pytest.mark.parametrize(("maximum_fee", "fee"), [(100, 101), (100, -1), (101, 0)])
def test_a_finish_outside_its_reservation(maximum_fee, fee):
    with pytest.raises(InvariantError):
        apply_finish(admit(), maximum_fee=maximum_fee, fee=fee)


def test_a_finish_of_nothing():
    with pytest.raises(InvariantError):
        apply_finish(ProviderBook(), maximum_fee=0, fee=0)


def test_a_finish_that_no_voucher_covers():
    broken = ProviderBook(reserved=10, in_flight=1, cumulative_max=5, sequence_max=1)
    with pytest.raises(InvariantError, match="above the best voucher"):
        apply_finish(broken, maximum_fee=10, fee=10)


def test_a_voucher_names_what_is_spent_and_in_flight():
    book = apply_issue(UserBook(), maximum_fee=100, funded=1_000)
    assert get_voucher_maxima(book) == (100, 1)
    book = apply_issue(book, maximum_fee=50, funded=1_000)
    assert get_voucher_maxima(book) == (150, 2)
    book = apply_acknowledgement(book, maximum_fee=100, fee=7)
    book = apply_issue(book, maximum_fee=100, funded=1_000)
    assert get_voucher_maxima(book) == (157, 3)
    assert book.highest_cumulative_max == 157


def test_signed_sequences_never_fall():
    book = UserBook()
    for _ in range(3):
        book = apply_issue(book, maximum_fee=10, funded=1_000)
    for _ in range(3):
        book = apply_release(book, maximum_fee=10)
    book = apply_issue(book, maximum_fee=40, funded=1_000)
    assert get_voucher_maxima(book) == (40, 3)


def test_a_user_signs_no_more_than_is_funded():
    book = apply_issue(UserBook(), maximum_fee=60, funded=100)
    with pytest.raises(RequestError) as caught:
        apply_issue(book, maximum_fee=41, funded=100)
    assert caught.value.code == "insufficient_balance"
    assert caught.value.details["missing"] == "1"
    with pytest.raises(RequestError):
        apply_issue(UserBook(), maximum_fee=AMOUNT_MAX + 1, funded=2**100)
    with pytest.raises(InvariantError, match="used up"):
        apply_issue(UserBook(acknowledged=SEQUENCE_MAX), maximum_fee=1, funded=1)


def test_a_free_request_leaves_flight_too():
    """Maximum fee 0 once meant 'already released', so its place in flight stayed taken."""
    book = apply_issue(UserBook(), maximum_fee=0, funded=0)
    book = apply_acknowledgement(book, maximum_fee=0, fee=0)
    assert (book.in_flight, book.acknowledged) == (0, 1)


def test_a_receipt_for_a_released_request_still_counts():
    book = apply_issue(UserBook(), maximum_fee=100, funded=100)
    book = apply_acknowledgement(apply_release(book, maximum_fee=100), maximum_fee=None, fee=30)
    assert (book.in_flight, book.in_flight_fee, book.acknowledged_fee) == (0, 0, 30)


@pytest.mark.parametrize("fee", [101, -1])
def test_a_receipt_above_its_maximum(fee):
    book = apply_issue(UserBook(), maximum_fee=100, funded=100)
    with pytest.raises(VerificationError, match="maximum of 100"):
        apply_acknowledgement(book, maximum_fee=100, fee=fee)


def test_an_acknowledgement_of_what_is_not_in_flight():
    book = apply_issue(UserBook(), maximum_fee=100, funded=100)
    with pytest.raises(InvariantError):
        apply_acknowledgement(book, maximum_fee=101, fee=0)


def test_a_release_of_nothing():
    with pytest.raises(InvariantError):
        apply_release(UserBook(), maximum_fee=0)
