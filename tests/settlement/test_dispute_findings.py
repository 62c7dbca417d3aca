"""Cheats are found from receipts and claims, honest providers never; evidence stands by itself."""

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import get_address
from hanse.settlement.disputes.evidence import (
    FILE_BYTES_MAX,
    evidence_to_document,
    get_dispute_id,
    verify_evidence_document,
    verify_evidence_file,
)
from hanse.settlement.disputes.findings import (
    Claimed,
    Finding,
    Kind,
    find_equivocation,
    find_overclaim,
)
from tests.protocol.made_messages import (
    DOMAIN,
    PROVIDER,
    RECEIPT_ADDRESS,
    RECEIPT_KEY,
    make_receipt,
    make_voucher,
)

OLDER_KEY = PrivateKey(b"\x12" * 32)


def sign(sequence: int, total: int, key: PrivateKey = RECEIPT_KEY, **changes: Any) -> SignedReceipt:
    return make_receipt(make_voucher(), key, sequence=sequence, cumulative_fee=total, **changes)


HONEST = [sign(1, 7), sign(2, 20), sign(3, 20), sign(4, 33)]


@given(st.lists(st.integers(0, 1_000), max_size=6), st.data())
def test_an_honest_provider_is_never_found(fees: list[int], data: st.DataObject) -> None:
    totals = [sum(fees[: n + 1]) for n in range(len(fees))]
    receipts = [sign(number, total) for number, total in enumerate(totals, 1)]
    upto = data.draw(st.integers(0, len(receipts)))
    amount = data.draw(st.integers(0, totals[upto - 1] if upto else 0))  # a partial claim too
    claimed = Claimed(amount, upto)
    shown = data.draw(st.lists(st.sampled_from(receipts), max_size=9) if receipts else st.just([]))
    assert find_overclaim(claimed, shown) is None
    assert find_equivocation(claimed, shown) is None


def test_the_cheapest_receipt_that_the_claim_covers_is_the_proof() -> None:
    claimed = Claimed(50, 2)
    found = find_overclaim(claimed, HONEST)
    assert found == Finding(Kind.OVERCLAIM, (HONEST[1],), claimed)
    assert found.loss == 30
    assert find_overclaim(Claimed(50, 5), HONEST) is None, "no receipt is of that sequence"
    assert find_overclaim(Claimed(33, 4), HONEST) is None
    assert find_overclaim(Claimed(34, 4), HONEST).loss == 1  # type: ignore[union-attr]


def test_a_sum_that_falls_is_an_overclaim() -> None:
    found = find_overclaim(Claimed(20, 2), [*HONEST, sign(5, 4)])
    assert found is not None
    assert (found.sequence, found.loss) == (5, 16)


@pytest.mark.parametrize(
    ("claimed", "loss"), [(0, 0), (5, 0), (10, 3), (1_000, 93)], ids=lambda value: str(value)
)
def test_two_receipts_for_one_sequence(claimed: int, loss: int) -> None:
    low, high = sign(1, 7), sign(1, 100)
    for order in ([low, high], [high, low]):
        found = find_equivocation(Claimed(claimed, 1), order)
        assert found is not None
        assert found.receipts == (low, high)
        assert found.loss == loss


def test_any_field_that_differs_is_an_equivocation_and_a_second_signature_is_none() -> None:
    other = sign(2, 20, commitment_root="0x" + "01" * 32)
    found = find_equivocation(Claimed(20, 2), [*HONEST, other])
    assert found is not None
    assert (found.loss, found.sequence) == (0, 2)
    again = sign(2, 20, OLDER_KEY)
    assert again.signature != HONEST[1].signature
    assert find_equivocation(Claimed(20, 2), [*HONEST, again]) is None


def test_of_several_the_dearest_is_chosen() -> None:
    found = find_equivocation(
        Claimed(90, 9), [sign(1, 7), sign(1, 8), sign(2, 10), sign(2, 60), sign(2, 55)]
    )
    assert found is not None
    assert (found.sequence, found.loss) == (2, 50)


OVERCLAIM = Finding(Kind.OVERCLAIM, (HONEST[1],), Claimed(50, 2))
EQUIVOCATION = Finding(Kind.EQUIVOCATION, (sign(1, 7), sign(1, 9, OLDER_KEY)), Claimed(9, 1))


def encode(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document)


@pytest.mark.parametrize("finding", [OVERCLAIM, EQUIVOCATION], ids=lambda f: f.kind)
def test_a_file_says_what_was_found_and_by_which_keys(finding: Finding, tmp_path: Path) -> None:
    file = tmp_path / "dispute.json"
    file.write_text(json.dumps(evidence_to_document(DOMAIN, finding), indent=2))
    evidence = verify_evidence_file(file)
    assert (evidence.finding, evidence.domain) == (finding, DOMAIN)
    assert evidence.dispute_id == get_dispute_id(DOMAIN, finding)
    keys = (RECEIPT_ADDRESS, get_address(OLDER_KEY.public_key))
    assert evidence.receipt_keys == keys[: len(finding.receipts)]
    assert evidence.finding.provider == PROVIDER


def test_a_dispute_is_another_once_more_is_due_for_it() -> None:
    fees = [signed.receipt.cumulative_fee for signed in EQUIVOCATION.receipts]
    claims = (Claimed(0), Claimed(fees[0], 1), Claimed(fees[0] + 1, 1), Claimed(fees[1] + 9, 2))
    found = [Finding(Kind.EQUIVOCATION, EQUIVOCATION.receipts, claimed) for claimed in claims]
    ids = [get_dispute_id(DOMAIN, finding) for finding in found]
    assert (ids[0] == ids[1], len(set(ids))) == (True, 3), "nothing was lost by the first two"
    later = Finding(Kind.OVERCLAIM, OVERCLAIM.receipts, Claimed(60, 2))
    assert get_dispute_id(DOMAIN, later) != get_dispute_id(DOMAIN, OVERCLAIM)
    elsewhere = Domain(1, DOMAIN.escrow)
    assert get_dispute_id(elsewhere, OVERCLAIM) != get_dispute_id(DOMAIN, OVERCLAIM)


@pytest.mark.parametrize("finding", [OVERCLAIM, EQUIVOCATION], ids=lambda f: f.kind)
def test_every_change_of_a_receipt_changes_its_signer(finding: Finding) -> None:
    """A file cannot be bent: another field is another digest, which another key has signed."""
    document = evidence_to_document(DOMAIN, finding)
    true = verify_evidence_document(encode(document)).receipt_keys
    for name in ("request_hash", "response_hash", "commitment_root"):
        bent = copy.deepcopy(document)
        bent["receipts"][0][name] = "0x" + "9a" * 32
        assert verify_evidence_document(encode(bent)).receipt_keys[0] != true[0]


def spoil(path: str, value: Any, finding: Finding = EQUIVOCATION) -> bytes:
    document = copy.deepcopy(evidence_to_document(DOMAIN, finding))
    *parents, last = path.split(".")
    part: Any = document
    for name in parents:
        part = part[int(name) if name.isdigit() else name]
    part[int(last) if last.isdigit() else last] = value
    return encode(document)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "this dispute file does not hold"),
        (b"\xff{}", "this dispute file does not hold"),
        (b"[" * 10_000, "this dispute file does not hold"),
        (b" " * (FILE_BYTES_MAX + 1), "more than"),
        (spoil("format", "hanse-dispute-9"), "format"),
        (spoil("kind", "rudeness"), "this dispute file does not hold"),
        (spoil("domain.chain_id", -1), "this dispute file does not hold"),
        (spoil("domain.escrow", "0x12"), "escrow"),
        (spoil("claimed.amount", "1e9"), "amount"),
        (spoil("receipts", []), "proven by 2"),
        (spoil("receipts.1.signature", "0x" + "00" * 65), "signature"),
        (spoil("receipts.1.sequence", "2"), "sequences 1 and 2"),
        (spoil("receipts.1.cumulative_fee", "3"), "must come before"),
        (spoil("claimed.amount", "20", OVERCLAIM), "no overclaim"),
        (spoil("claimed.sequence", "3", OVERCLAIM), "the claim covers 3"),
        (
            encode(
                evidence_to_document(
                    DOMAIN, Finding(Kind.EQUIVOCATION, (HONEST[0],) * 2, Claimed())
                )
            ),
            "say the same",
        ),
    ],
)
def test_a_false_file_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(VerificationError, match=says):
        verify_evidence_document(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.json"):
        verify_evidence_file(tmp_path / "none.json")
