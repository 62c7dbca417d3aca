"""What each refusal says, word for word: people and programs act on these texts and numbers.

Mutation testing asked for most of these cases: a message that turned into None, a number that left
the details, a bound that moved by one.
"""

from collections.abc import Callable

import pytest

from hanse.protocol import merkle
from hanse.protocol.books import (
    ProviderBook,
    UserBook,
    apply_acknowledgement,
    apply_admission,
    apply_finish,
    apply_issue,
    apply_release,
)
from hanse.protocol.errors import HanseError
from hanse.protocol.limits import (
    AMOUNT_MAX,
    CLOCK_SKEW_S_MAX,
    IN_FLIGHT_PER_SUB_ACCOUNT_MAX,
    OFFER_VALID_S_MAX,
    SEQUENCE_MAX,
)
from hanse.protocol.messages import Prices
from hanse.protocol.pricing import get_maximum_fee, get_maximum_usage
from hanse.protocol.signatures import get_address, keccak
from hanse.protocol.units import format_amount, parse_amount
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

STRANGER = "0x" + "cc" * 20
SPENT_TIME_S = NOW_S - CLOCK_SKEW_S_MAX - 1
SPENT = ProviderBook(
    sequence=4, cumulative_fee=70, reserved=20, in_flight=2, cumulative_max=100, sequence_max=7
)


def tree_proof(index: int = 1, size: int = 2, siblings: int = 1) -> merkle.InclusionProof:
    return merkle.InclusionProof(index, size, (bytes(32),) * siblings)


def check_inclusion(proof: merkle.InclusionProof) -> None:
    merkle.verify_inclusion(b"\x01" * 32, proof, bytes(32))


VOUCHER = make_voucher()
RECEIPT = make_receipt(VOUCHER)
ATTACKER = make_receipt(VOUCHER, key=ATTACKER_KEY)
CASES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: verify_voucher(VOUCHER, DOMAIN, STRANGER, NOW_S),
        f"the voucher pays {PROVIDER}, this is {STRANGER}",
    ),
    (
        lambda: verify_voucher(make_voucher(deadline=SPENT_TIME_S), DOMAIN, PROVIDER, NOW_S),
        f"the deadline {SPENT_TIME_S} has passed, now is {NOW_S}",
    ),
    (
        lambda: verify_voucher(make_voucher(deadline=NOW_S + 9_999), DOMAIN, PROVIDER, NOW_S),
        f"the deadline {NOW_S + 9_999} is more than 3600 s ahead of {NOW_S}",
    ),
    (
        lambda: verify_voucher(make_voucher(maximum_fee=5_001), DOMAIN, PROVIDER, NOW_S),
        "the maximum fee 5001 is above the voucher's 5000",
    ),
    (
        lambda: verify_query(*make_query(), DOMAIN, STRANGER, NOW_S),
        f"the query is for {PROVIDER}, this is {STRANGER}",
    ),
    (
        lambda: verify_receipt(make_receipt(VOUCHER, user=STRANGER), VOUCHER, make_offer(), None),
        "the receipt is for another sub-account",
    ),
    (
        lambda: verify_receipt(
            make_receipt(VOUCHER, request_hash="0x" + "ee" * 32), VOUCHER, make_offer(), None
        ),
        f"the receipt is for request 0x{'ee' * 32}, asked was {VOUCHER.voucher.request_hash}",
    ),
    (
        lambda: verify_receipt(RECEIPT, VOUCHER, make_offer(), "0x" + "66" * 32),
        f"received bytes hash to 0x{'66' * 32}, the receipt says 0x{'55' * 32}",
    ),
    (
        lambda: verify_receipt_fee(make_receipt(VOUCHER, fee=8), 1_000, make_offer()),
        "fee 8 is above the usage's price 7 or the maximum 1000",
    ),
    (
        lambda: verify_receipt_signature(ATTACKER, DOMAIN, RECEIPT_ADDRESS),
        f"signed by {get_address(ATTACKER_KEY.public_key)}, the provider's receipt key is "
        f"{RECEIPT_ADDRESS}",
    ),
    (
        lambda: verify_receipt_signature(
            type(RECEIPT)(RECEIPT.receipt, b"\x00" * 65), DOMAIN, RECEIPT_ADDRESS
        ),
        "a signature is 0x and 130 hex digits (r, s, v)",
    ),
    (
        lambda: verify_offer(
            sign_offer(make_offer(valid_until=NOW_S)), DOMAIN, RECEIPT_ADDRESS, NOW_S
        ),
        f"the offer ended at {NOW_S}, now is {NOW_S}",
    ),
    (
        lambda: verify_offer(
            sign_offer(make_offer(valid_until=NOW_S + 10**8)), DOMAIN, RECEIPT_ADDRESS, NOW_S
        ),
        f"the offer is valid until {NOW_S + 10**8}, more than {OFFER_VALID_S_MAX} s ahead of "
        f"{NOW_S}",
    ),
    (lambda: parse_amount("1e5", 6), "'1e5' is not an amount such as 12 or 12.5"),
    (
        lambda: parse_amount("x" * 99, 6),
        f"'{'x' * 80}' is not an amount such as 12 or 12.5",
    ),
    (lambda: parse_amount("1.5", 0), "'1.5' has 1 decimal places, the asset has 0"),
    (
        lambda: parse_amount(str(AMOUNT_MAX + 1), 0),
        f"'{AMOUNT_MAX + 1}' is above the most that is possible, {AMOUNT_MAX}",
    ),
    (lambda: format_amount(1, 37), "37 decimals is outside 0 .. 36"),
    (lambda: check_inclusion(tree_proof(index=2)), "place 2 is outside a tree of 2"),
    (
        lambda: check_inclusion(tree_proof(siblings=0)),
        "the proof has too few siblings for its tree's size",
    ),
    (
        lambda: check_inclusion(tree_proof(siblings=2)),
        "the proof has more siblings than its tree's size allows",
    ),
    (
        lambda: check_inclusion(tree_proof(index=0, size=1, siblings=0)),
        "the proof leads to "
        + keccak(b"\x02" + (1).to_bytes(8, "big") + keccak(b"\x00" + b"\x01" * 32)).hex()
        + f", not to {'00' * 32}",
    ),
    (
        lambda: apply_finish(SPENT, maximum_fee=10, fee=11),
        "fee 11 of at most 10 with 20 reserved",
    ),
    (
        lambda: apply_release(UserBook(in_flight=1, in_flight_fee=5), maximum_fee=6),
        "releasing 6 of 5 in flight",
    ),
    (
        lambda: apply_acknowledgement(UserBook(in_flight=1, in_flight_fee=5), maximum_fee=5, fee=6),
        "fee 6 of a request with a maximum of 5",
    ),
    (
        lambda: apply_admission(
            ProviderBook(in_flight=IN_FLIGHT_PER_SUB_ACCOUNT_MAX),
            cumulative_max=1,
            sequence_max=SEQUENCE_MAX,
            maximum_fee=1,
            funded=1,
        ),
        f"{IN_FLIGHT_PER_SUB_ACCOUNT_MAX} requests of this sub-account are at work, at most "
        f"{IN_FLIGHT_PER_SUB_ACCOUNT_MAX}: wait until one has finished",
    ),
    (
        lambda: apply_issue(UserBook(acknowledged=SEQUENCE_MAX), maximum_fee=1, funded=1),
        "the sub-account's sequence numbers are used up",
    ),
]


@pytest.mark.parametrize(("act", "text"), CASES, ids=[text[:60] for _, text in CASES])
def test_a_refusal_says_what_disagrees(act: Callable[[], object], text: str) -> None:
    with pytest.raises(HanseError) as caught:
        act()
    assert caught.value.message == text


def test_a_place_outside_the_tree_is_named() -> None:
    with pytest.raises(IndexError, match=r"^index 3 is outside a tree of 3 leaves$"):
        merkle.get_proof([bytes(32)] * 3, 3)


def test_who_signed_is_named_in_refusals_of_signatures() -> None:
    with pytest.raises(HanseError) as caught:
        verify_voucher(make_voucher(key=ATTACKER_KEY), DOMAIN, PROVIDER, NOW_S)
    assert caught.value.message.startswith("the voucher ")
    with pytest.raises(HanseError) as caught:
        verify_query(*make_query(key=ATTACKER_KEY), DOMAIN, PROVIDER, NOW_S)
    assert caught.value.message.startswith("the query ")


def test_a_402_for_a_low_voucher_lists_every_amount() -> None:
    with pytest.raises(HanseError) as caught:
        apply_admission(SPENT, cumulative_max=95, sequence_max=7, maximum_fee=15, funded=1_000)
    assert caught.value.message == (
        "the voucher covers 100 over 7 requests, needed are 105 over 7: "
        "fetch the receipts you miss and sign again"
    )
    assert caught.value.details == {
        "needed": "105",
        "available": "100",
        "missing": "5",
        "cumulative_fee": "70",
        "reserved": "20",
        "maximum_fee": "15",
        "sequence": "4",
        "sequence_needed": "7",
        "sequence_max": "7",
    }


def test_a_402_for_missing_funds_lists_every_amount() -> None:
    with pytest.raises(HanseError) as caught:
        apply_admission(SPENT, cumulative_max=200, sequence_max=7, maximum_fee=15, funded=100)
    assert caught.value.message == (
        "the sub-account is funded with 100 base units in all, needed are 105 base units: fund it "
        "with 5 base units more"
    )
    assert caught.value.details == {
        "needed": "105",
        "available": "100",
        "missing": "5",
        "cumulative_fee": "70",
        "reserved": "20",
        "maximum_fee": "15",
    }


def test_the_users_own_402_lists_every_amount() -> None:
    book = UserBook(acknowledged=4, acknowledged_fee=70, in_flight=2, in_flight_fee=20)
    with pytest.raises(HanseError) as caught:
        apply_issue(book, maximum_fee=15, funded=100)
    assert caught.value.message == (
        "the sub-account is funded with 100 base units in all, needed are 105 base units: fund it "
        "with 5 base units more"
    )
    assert caught.value.details == {
        "needed": "105",
        "available": "100",
        "missing": "5",
        "spent": "70",
        "reserved": "20",
        "maximum_fee": "15",
    }


def test_bounds_hold_to_the_last_unit() -> None:
    verify_voucher(make_voucher(maximum_fee=5_000), DOMAIN, PROVIDER, NOW_S)
    last_s = NOW_S + OFFER_VALID_S_MAX + CLOCK_SKEW_S_MAX
    verify_offer(sign_offer(make_offer(valid_until=last_s)), DOMAIN, RECEIPT_ADDRESS, NOW_S)
    assert parse_amount(str(AMOUNT_MAX), 0) == AMOUNT_MAX
    assert parse_amount("0" * 60, 0) == 0
    with pytest.raises(HanseError):
        parse_amount("0" * 61, 0)
    book = apply_issue(UserBook(), maximum_fee=AMOUNT_MAX, funded=AMOUNT_MAX)
    assert book.committed == AMOUNT_MAX
    book = UserBook(acknowledged=SEQUENCE_MAX - 2, in_flight=1)
    assert apply_issue(book, maximum_fee=0, funded=0).highest_sequence_max == SEQUENCE_MAX


def test_in_flight_requests_count_towards_the_last_sequence() -> None:
    book = UserBook(acknowledged=SEQUENCE_MAX - 1, in_flight=1)
    with pytest.raises(HanseError, match="used up"):
        apply_issue(book, maximum_fee=0, funded=0)


def test_what_was_signed_is_remembered_through_every_transition() -> None:
    book = UserBook(highest_cumulative_max=90, highest_sequence_max=9, in_flight=1, in_flight_fee=5)
    for after in (
        apply_release(book, maximum_fee=5),
        apply_acknowledgement(book, maximum_fee=5, fee=5),
        apply_acknowledgement(book, maximum_fee=None, fee=5),
        apply_issue(book, maximum_fee=1, funded=99),
    ):
        assert (after.highest_cumulative_max, after.highest_sequence_max) == (90, 9)


def test_one_output_token_already_bounds_the_input_by_the_context() -> None:
    offer = make_offer(context_tokens=100)
    assert get_maximum_usage(offer, 10_000, 1).input_tokens == 100
    assert get_maximum_usage(offer, 10_000, 0).input_tokens == 10_512
    dear = make_offer(prices=Prices(100, 1_000, 300), context_tokens=1_000_000)
    assert get_maximum_fee(dear, 999_488, 0) == 1_000
