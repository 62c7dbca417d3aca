"""Findings and evidence at their edges: the order of proofs, and every sentence of a refusal."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hanse.protocol.errors import HanseError
from hanse.protocol.limits import AMOUNT_MAX, SEQUENCE_MAX
from hanse.protocol.signatures import keccak
from hanse.settlement.disputes.evidence import (
    FILE_BYTES_MAX,
    evidence_to_document,
    get_dispute_id,
    verify_evidence_document,
    verify_evidence_file,
    verify_finding,
)
from hanse.settlement.disputes.findings import (
    Claimed,
    Finding,
    Kind,
    find_equivocation,
    find_overclaim,
)
from tests.protocol.made_messages import DOMAIN, PROVIDER, SIGNER
from tests.settlement.test_dispute_findings import EQUIVOCATION, OVERCLAIM, encode, sign, spoil

LOW, HIGH = sign(1, 7), sign(1, 9)
REFUSED = "this dispute file does not hold: "
OTHER = "0x" + "5a" * 20


def of(kind: Kind, *receipts: Any, amount: int = 9, sequence: int = 1) -> Finding:
    return Finding(kind, receipts, Claimed(amount, sequence))


def check(*parts: Any, **claimed: int) -> Callable[[], None]:
    return lambda: verify_finding(of(*parts, **claimed))


CASES: list[tuple[Callable[[], object], str]] = [
    (
        check(Kind.OVERCLAIM, LOW, sequence=2),
        "the receipt has sequence 1, the claim covers 2",
    ),
    (
        check(Kind.OVERCLAIM, HIGH),
        "the receipt says 9, claimed were 9: that is no overclaim",
    ),
    (check(Kind.OVERCLAIM, LOW, HIGH), "2 receipts, an overclaim is proven by 1"),
    (check(Kind.OVERCLAIM), "0 receipts, an overclaim is proven by 1"),
    (check(Kind.EQUIVOCATION, LOW), "1 receipts, an equivocation is proven by 2"),
    (
        check(Kind.EQUIVOCATION, LOW, sign(2, 9)),
        "the receipts are for sequences 1 and 2, or for two sub-accounts",
    ),
    *(
        (
            check(Kind.EQUIVOCATION, LOW, sign(1, 9, **{name: OTHER})),
            "the receipts are for sequences 1 and 1, or for two sub-accounts",
        )
        for name in ("user", "provider", "signer")
    ),
    (check(Kind.EQUIVOCATION, LOW, LOW), "both receipts say the same"),
    (
        check(Kind.EQUIVOCATION, HIGH, LOW),
        "the receipt over 7 must come before the one over 9",
    ),
    (
        lambda: verify_evidence_document(b" " * (FILE_BYTES_MAX + 1)),
        f"{REFUSED}it has more than {FILE_BYTES_MAX} bytes",
    ),
    (
        lambda: verify_evidence_document(spoil("format", "x" * 99)),
        f"{REFUSED}the format is '{'x' * 39}, not hanse-dispute-1",
    ),
    (
        lambda: verify_evidence_document(spoil("domain.escrow", "0x12")),
        f"{REFUSED}escrow must be 0x and 40 hex digits",
    ),
    (
        lambda: verify_evidence_document(spoil("claimed.amount", str(AMOUNT_MAX + 1))),
        f"{REFUSED}amount is {AMOUNT_MAX + 1}, outside 0 .. {AMOUNT_MAX}",
    ),
    (
        lambda: verify_evidence_document(spoil("claimed.sequence", str(SEQUENCE_MAX + 1))),
        f"{REFUSED}sequence is {SEQUENCE_MAX + 1}, outside 0 .. {SEQUENCE_MAX}",
    ),
]


@pytest.mark.parametrize(("act", "text"), CASES, ids=[text[:50] for _, text in CASES])
def test_a_refusal_names_what_does_not_fit(act: Callable[[], object], text: str) -> None:
    with pytest.raises(HanseError) as caught:
        act()
    assert (caught.value.code, caught.value.message) == ("receipt_invalid", text)


@pytest.mark.parametrize(
    "finding",
    [
        of(Kind.OVERCLAIM, LOW, amount=8),
        of(Kind.OVERCLAIM, sign(2, 7), amount=8),
        of(Kind.EQUIVOCATION, LOW, HIGH),
        of(Kind.EQUIVOCATION, LOW, sign(1, 7, fee=3)),
    ],
)
def test_what_contradicts_by_one_is_enough(finding: Finding) -> None:
    verify_finding(finding)


def test_a_file_at_its_largest_is_read_and_its_text_is_cut() -> None:
    document = evidence_to_document(DOMAIN, OVERCLAIM)
    assert document == {
        "format": "hanse-dispute-1",
        "kind": "overclaim",
        "domain": {"chain_id": DOMAIN.chain_id, "escrow": DOMAIN.escrow},
        "claimed": {"amount": "50", "sequence": "2"},
        "receipts": document["receipts"],
    }
    content = encode(document)
    padded = content + b" " * (FILE_BYTES_MAX - len(content))
    assert verify_evidence_document(padded).finding == OVERCLAIM
    strange = copy.deepcopy(document)
    strange["n" * 900] = 1
    with pytest.raises(HanseError) as caught:
        verify_evidence_document(encode(strange))
    assert caught.value.message.startswith(f"{REFUSED}Object contains unknown field")
    assert len(caught.value.message) == len(REFUSED) + 300


def test_the_largest_counts_are_read() -> None:
    receipt = sign(SEQUENCE_MAX, 5)
    finding = Finding(Kind.OVERCLAIM, (receipt,), Claimed(AMOUNT_MAX, SEQUENCE_MAX))
    document = encode(evidence_to_document(DOMAIN, finding))
    assert verify_evidence_document(document).finding == finding


def test_a_file_of_one_byte_too_many_is_not_read_as_if_it_were_cut(tmp_path: Path) -> None:
    content = encode(evidence_to_document(DOMAIN, OVERCLAIM))
    file = tmp_path / "dispute.json"
    file.write_bytes(content + b" " * (FILE_BYTES_MAX - len(content)) + b"!")
    with pytest.raises(HanseError, match="more than"):
        verify_evidence_file(file)
    with pytest.raises(HanseError) as caught:
        verify_evidence_file(tmp_path / "none.json")
    assert (caught.value.code, caught.value.message) == (
        "not_found",
        f"cannot read {tmp_path / 'none.json'}: No such file or directory",
    )


def test_a_dispute_is_named_by_the_hash_of_its_receipts_and_its_amount() -> None:
    digests = b"".join(DOMAIN.digest(s.receipt.struct_hash()) for s in EQUIVOCATION.receipts)
    amount = (2).to_bytes(32, "big")
    assert EQUIVOCATION.loss == 2
    expected = "0x" + keccak(b"equivocation" + digests + amount).hex()
    assert get_dispute_id(DOMAIN, EQUIVOCATION) == expected
    digest = DOMAIN.digest(OVERCLAIM.receipts[0].receipt.struct_hash())
    expected = "0x" + keccak(b"overclaim" + digest + (50).to_bytes(32, "big")).hex()
    assert get_dispute_id(DOMAIN, OVERCLAIM) == expected


def test_of_equal_proofs_always_the_same_is_chosen() -> None:
    """So that a dispute that was raised is known again, whatever order receipts are read in."""
    twins = [sign(3, 20, response_hash="0x" + d * 32) for d in ("01", "02", "03")]
    ranked = sorted(twins, key=lambda s: s.receipt.struct_hash())
    for order in (twins, twins[::-1]):
        found = find_overclaim(Claimed(50, 2), [*order, sign(4, 20), sign(9, 21)])
        assert found == Finding(Kind.OVERCLAIM, (ranked[0],), Claimed(50, 2))
        found = find_equivocation(Claimed(50, 2), order)
        assert found == Finding(Kind.EQUIVOCATION, (ranked[0], ranked[2]), Claimed(50, 2))
    pairs = [sign(n, total) for n in (1, 2) for total in (5, 8)]
    for order in (pairs, pairs[::-1]):
        found = find_equivocation(Claimed(9, 2), order)
        assert found is not None
        assert (found.sequence, found.loss) == (1, 3)


def test_a_loss_is_at_most_what_was_claimed() -> None:
    assert of(Kind.OVERCLAIM, LOW, amount=5).loss == 0
    assert of(Kind.OVERCLAIM, LOW, amount=8).loss == 1
    assert of(Kind.EQUIVOCATION, LOW, HIGH, amount=8).loss == 1
    assert of(Kind.EQUIVOCATION, LOW, HIGH, amount=99).loss == 2
    assert of(Kind.OVERCLAIM, LOW).provider == PROVIDER
    assert msgspec.structs.asdict(LOW.receipt)["signer"] == SIGNER


def test_what_stands_behind_an_honest_sequence_is_found() -> None:
    found = find_equivocation(Claimed(9, 1), [sign(5, 1), LOW, HIGH])
    assert found is not None
    assert found.receipts == (LOW, HIGH)
    assert find_overclaim(Claimed(7, 1), [LOW]) is None
    assert find_overclaim(Claimed(8, 2), [LOW]) is None
