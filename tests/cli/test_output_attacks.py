"""Strangers' words at a terminal: an answer, a name or a message must not command it."""

import json

import pytest

from hanse.cli.failures import report_failure
from hanse.cli.output import Output, clean
from hanse.protocol.errors import RequestError

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"  # writes the clipboard of many terminals
C1 = "\x9b2J\x90x\x9c"  # the same kind in one character
TURNED = "safe\u202e\u2066gpj.exe\u2069"
HOSTILE = [
    CLIPBOARD,
    "\x1b[2J\x1b[H",
    C1,
    TURNED,
    "\rhanse: paid 0",
    "a\x08\x08b",
    "\x00",
    "\ud800",
]


def is_harmless(text: str) -> bool:
    return not any(
        character in text for hostile in HOSTILE for character in hostile if not is_plain(character)
    )


def is_plain(character: str) -> bool:
    return character.isprintable() and character not in "\u202e\u2066\u2069"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_terminal_gets_no_command_from_a_stranger(capsys, hostile):
    output = Output()
    output.write(f"an answer {hostile}")
    output.note(f"left out: {hostile}")
    output.show({}, lambda: output.table(("model",), [(f"name{hostile}",)]))
    output.show({}, lambda: output.fields([("model", hostile)]))
    report_failure(RequestError("invalid_request", f"it says {hostile}"), as_json=False)
    shown = capsys.readouterr()
    assert "an answer" in shown.out
    assert "it says" in shown.err
    assert is_harmless(shown.out + shown.err)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_json_keeps_every_character_but_escaped(capsys, hostile):
    Output(as_json=True).show({"text": hostile}, lambda: None)
    report_failure(RequestError("invalid_request", f"says {hostile}"), as_json=True)
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"text": hostile}
    assert json.loads(shown.err)["error"]["message"] == f"says {hostile}"
    assert is_harmless(shown.out + shown.err)


def test_a_sequence_that_comes_in_pieces_is_cleaned_too(capsys):
    output = Output()
    for piece in CLIPBOARD:
        output.write(piece)
    assert is_harmless(capsys.readouterr().out)


@pytest.mark.parametrize("text", ["Zürich\n\tñandú 日本 🦊\u200d🔥 مرحبا", "plain"])
def test_other_scripts_pass_unchanged(text):
    assert clean(text) == text
