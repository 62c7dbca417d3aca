"""docs/gateway/api.md says of each field what the code does with it."""

import re
from pathlib import Path

import pytest

from hanse.engines import parameters
from hanse.engines.audio.fields import SpeechFields, TranscriptionFields
from hanse.engines.base import Operation
from hanse.gateway.bodies import Body
from hanse.gateway.dialects import messages_request, responses_request
from hanse.gateway.operations import NOT_OFFERED, OPERATIONS

PAGE = (Path(__file__).parents[2] / "docs" / "gateway" / "api.md").read_text()


def read_table(heading: str) -> dict[str, str]:
    """Field by field, what a section's table says that it is."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    told = {}
    for names, is_ in re.findall(r"^\| (`.*?) \| (\w+) \|", section, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", names):
            assert name not in told, name
            told[name] = is_
    return told


def split(told: dict[str, str]) -> tuple[set[str], set[str], set[str]]:
    kinds = [{name for name, is_ in told.items() if is_ == kind} for kind in
             ("taken", "ignored", "refused")]  # fmt: skip
    assert sum(map(len, kinds)) == len(told)
    return kinds[0], kinds[1], kinds[2]


def test_every_field_of_chat_completions_is_on_the_page():
    taken, ignored, refused = split(read_table("Chat completions"))
    checked = set(parameters._CHECKS[Operation.CHAT])
    assert taken == checked | parameters._HANDLED | set(parameters._NEUTRAL)
    assert ignored == parameters.IGNORED
    assert not refused


@pytest.mark.parametrize(
    ("heading", "kind"), [("Speech", SpeechFields), ("Transcriptions", TranscriptionFields)]
)
def test_every_field_of_audio_is_on_the_page(heading, kind):
    taken, ignored, refused = split(read_table(heading))
    assert taken - {"model", "file"} == set(kind.__struct_fields__)
    assert not ignored
    assert not refused & set(kind.__struct_fields__)


@pytest.mark.parametrize(
    ("heading", "body", "refusals"),
    [
        ("Messages", messages_request.MessagesBody, messages_request.REFUSED),
        ("Responses", responses_request.ResponsesBody, responses_request.REFUSED),
    ],
)
def test_every_field_of_a_dialect_is_on_the_page(heading, body, refusals):
    taken, ignored, refused = split(read_table(heading))
    assert taken | ignored == set(body.__struct_fields__)
    assert refused == set(refusals)


def test_every_path_is_on_the_page():
    sold = {row.path for row in OPERATIONS if row.dialect or row.body in Body.__args__}
    table, refusals = PAGE.split("Refused by name:")[0], PAGE.split("Refused by name:")[1]
    assert {path for path in sold if f"| `{path}` |" not in table} == set()
    assert {path for path in NOT_OFFERED if f"`{path}`" not in refusals} == set()
