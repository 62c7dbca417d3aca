"""A broken promise is shown by the provider's signatures alone, and nobody can make one up."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from hanse.protocol.commitments.promises import Breach
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.errors import VerificationError
from hanse.protocol.messages import Usage
from hanse.sdk.receipt_file import VerifiedReceipt, verify_receipt_document
from hanse.verification.evidence.breaches import (
    FILE_BYTES_MAX,
    is_breach,
    make_breach,
    verify_breach,
)
from tests.verification.audits.bought_answers import Sold, sell
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import AUDITOR, BROKER, make_receipt_document

SEEN_AT = 1_800_000_100


def read(document: dict[str, Any]) -> VerifiedReceipt:
    return verify_receipt_document(msgspec.json.encode(document))


def make(sold: Sold, entries: Sequence[Entry] = ()) -> bytes | None:
    document = make_receipt_document(sold)
    return make_breach(document, read(document), AUDITOR, SEEN_AT, entries)


def sell_uncommitted() -> Sold:
    return sell(ToyModel(), entries=(), text="an answer", usage=Usage(13, 0, 3))


def sell_overbilled(committed: int = 20) -> Sold:
    return sell(ToyModel(), committed, usage=Usage(13, 0, committed + 1))


@pytest.mark.parametrize("committed", [1, 2, 20, 63])
def test_a_stranger_checks_a_bill_above_its_commitment(committed: int) -> None:
    sold = sell_overbilled(committed)
    data = make(sold, sold.entries)
    assert data is not None
    assert is_breach(data)
    found = verify_breach(data, verify_receipt_document)
    assert found.breach is Breach.OVERBILLED
    assert (found.witness, found.seen_at) == (AUDITOR.address, SEEN_AT)
    assert found.receipt.receipt_key == BROKER.address
    assert f"{committed + 1} output tokens" in found.reason


def test_a_stranger_checks_a_bill_without_a_commitment_and_reads_no_prompt() -> None:
    data = make(sell_uncommitted())
    assert data is not None
    found = verify_breach(data, verify_receipt_document)
    assert found.breach is Breach.UNCOMMITTED
    assert b"What is it" not in data
    assert b"an answer" not in data


def test_who_keeps_its_promise_cannot_be_accused() -> None:
    honest = sell(ToyModel(), 20)
    assert make(honest) is None
    assert make(honest, honest.entries) is None
    assert make(sell_overbilled()) is None, "without the opening nobody knows"
    document = msgspec.json.decode(make(sell_uncommitted()) or b"")
    document["receipt"] = make_receipt_document(honest)
    with pytest.raises(VerificationError, match="no breach"):
        verify_breach(msgspec.json.encode(document), verify_receipt_document)


def test_fewer_positions_than_there_are_cannot_be_shown() -> None:
    """An accuser that opens the honest answer as if it were shorter is caught by the root."""
    sold = sell_overbilled()
    genuine = msgspec.json.decode(make(sold, sold.entries) or b"")
    for positions in (0, 1, 10, 19, 21, 2**40):
        changed = genuine | {"last": genuine["last"] | {"positions": positions}}
        with pytest.raises(VerificationError, match="does not hold"):
            verify_breach(msgspec.json.encode(changed), verify_receipt_document)


def spoil(document: dict[str, Any], *path: str, value: Any) -> bytes:
    inside = document
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    return msgspec.json.encode(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "hanse-breach-2"),
        (("breach",), "uncommitted"),
        (("breach",), "rude"),
        (("last",), None),
        (("last", "token"), 7),
        (("last", "siblings"), []),
        (("witness",), "0x" + "ab" * 20),
        (("seen_at",), SEEN_AT + 1),
        (("seen_at",), -1),
        (("more",), 1),
        (("receipt", "receipt", "fee"), "0"),
        (("receipt", "receipt", "output_tokens"), 20),
        (("receipt", "offer", "verifiability"), "reputation"),
    ],
)
def test_nothing_in_a_file_can_be_changed(path: tuple[str, ...], value: Any) -> None:
    sold = sell_overbilled()
    document = msgspec.json.decode(make(sold, sold.entries) or b"")
    with pytest.raises(VerificationError):
        verify_breach(spoil(document, *path, value=value), verify_receipt_document)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"[" * 5_000, b" " * (FILE_BYTES_MAX + 1), b'{"format":"hanse-breach-1"}']
)
def test_what_is_no_file_is_refused(raw: bytes) -> None:
    with pytest.raises(VerificationError) as refused:
        verify_breach(raw, verify_receipt_document)
    assert refused.value.code == "evidence_invalid"
