"""Whatever a stranger sends, the verifier ends with an error of ours, and never with a result."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hanse.verification.attestation as verifier
from hanse.protocol.errors import HanseError
from tests.verification.attestation.made_attestations import (
    Made,
    make_bundle,
    make_gpu_policy,
    run,
)

MADE = Made(gpu=make_bundle(), policy=make_gpu_policy())
EVIDENCE, POLICY = MADE.build()
DOCUMENT = json.loads(EVIDENCE)
FIELDS = [(name,) for name in DOCUMENT if name not in ("collateral", "gpu")]
FIELDS += [("collateral", name) for name in DOCUMENT["collateral"]] + [("gpu", "evidence")]

texts = st.text(max_size=40) | st.sampled_from(["", "0x", "\x00", "MIIB", "-----BEGIN"])
junk = texts | st.none() | st.integers() | st.lists(texts, max_size=3)


def is_refused(document: dict[str, Any]) -> bool:
    try:
        run(verifier, MADE, (json.dumps(document).encode(), POLICY))
    except HanseError as error:
        return error.code.startswith("attestation_")
    return False


@settings(max_examples=120, deadline=None)
@given(field=st.sampled_from(FIELDS), value=junk)
def test_junk_in_any_field_is_refused(field, value):
    document = json.loads(EVIDENCE)
    target = document if len(field) == 1 else document[field[0]]
    before = target[field[-1]]
    target[field[-1]] = value
    allowed = value == before or (
        field == ("collateral", "pck_certificate_chain") and value is None
    )
    assert is_refused(document) or allowed


@settings(max_examples=120, deadline=None)
@given(field=st.sampled_from(FIELDS[3:]), cut=st.floats(0, 1), insert=st.text(max_size=3))
def test_text_that_is_cut_or_has_grown_is_refused(field, cut, insert):
    document = json.loads(EVIDENCE)
    target = document if len(field) == 1 else document[field[0]]
    text = target[field[-1]]
    if not isinstance(text, str):
        return
    at = int(cut * len(text))
    target[field[-1]] = text[:at] + insert + "\ufffd"
    is_chain = field[-1].endswith("chain")  # text around certificates is no part of them
    assert is_refused(document) or is_chain


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=200))
def test_bytes_that_are_no_document_are_refused(body):
    with pytest.raises(HanseError) as caught:
        run(verifier, MADE, (body, POLICY))
    assert caught.value.code == "attestation_malformed"
