"""Documents of strangers: every one is bounded, named and refused in the same way."""

import msgspec
import pytest

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.wire.files import FileForm


class Note(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    count: int = 0


FORM = FileForm("hanse-note-1", Note, 400, "evidence_invalid", "this note does not hold")
GOOD = b'{"format":"hanse-note-1","count":3}'


def test_a_document_of_its_form_is_read_up_to_its_last_byte() -> None:
    assert FORM.decode(GOOD) == Note("hanse-note-1", 3)
    assert FORM.decode(GOOD + b" " * (400 - len(GOOD))).count == 3


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (GOOD + b" " * (401 - len(GOOD)), "it has more than 400 bytes"),
        (b'{"format":' + b"[" * 200, "nested too deep"),
        (b"", "truncated"),
        (b"\xff", "invalid|malformed"),
        (b'{"format":"hanse-note-2"}', "the format is 'hanse-note-2', not hanse-note-1"),
        (b'{"format":"hanse-note-1","count":"3"}', "Expected `int`"),
        (b'{"format":"hanse-note-1","more":1}', "unknown field"),
    ],
)
def test_any_other_is_refused_with_one_code(raw: bytes, says: str) -> None:
    with pytest.raises(
        VerificationError, match=f"^this note does not hold: .*(?:{says})"
    ) as caught:
        FORM.decode(raw)
    assert caught.value.code == "evidence_invalid"


def test_numbers_as_text_are_for_forms_that_say_so() -> None:
    loose = FileForm("hanse-note-1", Note, 400, "evidence_invalid", "no", is_strict=False)
    assert loose.decode(b'{"format":"hanse-note-1","count":"3"}').count == 3


@pytest.mark.parametrize("error", [RequestError("usage", "it is late"), ValueError("it is late")])
def test_what_goes_wrong_in_reading_is_the_documents_fault(error: Exception) -> None:
    with (
        pytest.raises(VerificationError, match="this note does not hold: it is late") as caught,
        FORM.reading(),
    ):
        raise error
    assert caught.value.code == "evidence_invalid"


def test_a_verifiers_own_word_stands() -> None:
    said = VerificationError("proof_invalid", "another root")
    with pytest.raises(VerificationError) as caught, FORM.reading():
        raise said
    assert caught.value is said


def test_a_form_is_told_by_its_field_and_not_by_a_word_inside() -> None:
    assert FORM.is_meant(b' { "count": "x", "format": "hanse-note-1" }')
    assert not FORM.is_meant(b'{"format":"other","note":"hanse-note-1"}')
    assert not FORM.is_meant(GOOD + b" " * 400)
    assert not FORM.is_meant(b'{"format":"hanse-note-1","a":' + b"[" * 200)
    assert not FORM.is_meant(b"hanse-note-1")


def test_a_signature_of_somebody_else_refuses_the_document() -> None:
    with pytest.raises(VerificationError, match="this note does not hold: ") as caught:
        FORM.verify_signature(bytes(32), "0x" + "00" * 65, "0x" + "11" * 20, "the note")
    assert caught.value.code == "evidence_invalid"
