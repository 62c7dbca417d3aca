"""Every parser of strangers' JSON asks for its depth first: where a library has raised Python's
recursion limit, 200 kB of brackets end the process (`protocol/nesting.py`)."""

import base64
from collections.abc import Callable

import pytest

from hanse.protocol.commitments.copies import decode_copy_description
from hanse.protocol.errors import HanseError
from hanse.sdk.receipt_file import verify_receipt_document
from hanse.sdk.record_file import is_record_document, verify_record_document
from hanse.settlement.disputes.evidence import verify_evidence_document
from hanse.settlement.traces.bundle import decode_bundle
from hanse.verification.attestation.evidence import GpuEvidence, decode_evidence
from hanse.verification.attestation.gpus import GpuPolicy, verify_gpus
from hanse.verification.audits.calibration import decode_calibration
from hanse.verification.audits.served_text import read_served
from hanse.verification.evidence.files import verify_evidence
from hanse.verification.zk.proofs import decode_proof

DEEP = b'{"choices":' + b"[" * 50_000
SHORT_DEEP = b'{"receipts":' + b"[" * 5_000
"""For readers whose files are short."""


def read_gpu_token(raw: bytes) -> object:
    token = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    bundle = base64.b64encode(f'[["JWT","{token}.{token}."],{{"GPU-0":"x"}}]'.encode()).decode()
    return verify_gpus(GpuEvidence("nras", bundle), GpuPolicy("issuer", ()), bytes(32), 0)


@pytest.mark.parametrize(
    "parse",
    [
        decode_calibration,
        decode_copy_description,
        decode_evidence,
        decode_proof,
        read_gpu_token,
        lambda raw: verify_evidence(raw, lambda _: None),  # type: ignore[arg-type, return-value]
    ],
)
def test_what_is_nested_too_deep_is_refused_by_name(parse: Callable[[bytes], object]) -> None:
    with pytest.raises(HanseError, match="nested too deep"):
        parse(DEEP)


@pytest.mark.parametrize(
    "parse",
    [verify_receipt_document, verify_record_document, verify_evidence_document, decode_bundle],
)
def test_a_receipt_a_record_a_dispute_or_a_trace_ends_no_process(
    parse: Callable[[bytes], object],
) -> None:
    with pytest.raises(HanseError, match="nested too deep"):
        parse(SHORT_DEEP)


def test_what_kind_a_deep_file_is_of_is_not_looked_at() -> None:
    assert not is_record_document(b'{"format":"hanse-record-1","receipt":' + b"[" * 50_000)


def test_an_answer_that_is_nested_too_deep_has_no_text() -> None:
    assert not read_served(DEEP).is_text
    assert not read_served(b"data: " + DEEP + b"\n\n").is_text
    assert read_served(b'{"choices":[{"text":"' + b"[" * 5_000 + b'"}]}').text == b"[" * 5_000
