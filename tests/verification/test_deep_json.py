"""Every parser of strangers' JSON asks for its depth first: where a library has raised Python's
recursion limit, 200 kB of brackets end the process (`protocol/nesting.py`)."""

import base64
from collections.abc import Callable

import pytest

from hanse.protocol.commitments.copies import decode_copy_description
from hanse.protocol.errors import HanseError
from hanse.verification.attestation.evidence import GpuEvidence, decode_evidence
from hanse.verification.attestation.gpus import GpuPolicy, verify_gpus
from hanse.verification.audits.alignment import find_text
from hanse.verification.audits.calibration import decode_calibration
from hanse.verification.evidence.files import verify_evidence
from hanse.verification.zk.proofs import decode_proof

DEEP = b'{"choices":' + b"[" * 50_000


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


def test_an_answer_that_is_nested_too_deep_has_no_text() -> None:
    assert find_text(DEEP) is None
    assert find_text(b"data: " + DEEP + b"\n\n") is None
    assert find_text(b'{"choices":[{"text":"' + b"[" * 5_000 + b'"}]}') == b"[" * 5_000
