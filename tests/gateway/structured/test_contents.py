"""What is judged of an answer is what whoever gets it reads."""

from typing import Any

import msgspec
import pytest

from hanse.gateway.structured.contents import Gathering
from hanse.protocol.errors import VerificationError

GOOD, BAD = {"content": "{}"}, {"content": "no"}


def gather(*choices: dict[str, Any], stream: bool = False) -> Gathering:
    gathering = Gathering()
    body = msgspec.json.encode({"choices": choices})
    if stream:
        gathering.add_frame(b"data: " + body + b"\n\n")
    else:
        gathering.add(body)
    return gathering


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_whole_or_a_stream_and_not_both(stream: bool) -> None:
    both = {"index": 0, "message": BAD, "delta": GOOD}
    with pytest.raises(VerificationError, match="whole"):
        gather(both, stream=stream)
    for empty in ({"message": None}, {"delta": None}):
        name = "delta" if stream else "message"
        assert gather({**empty, name: GOOD}, stream=stream).choices[0].text == "{}"


def test_a_whole_answer_has_each_choice_once() -> None:
    halves = ({"index": 0, "message": {"content": "{"}}, {"index": 0, "message": {"content": "}"}})
    with pytest.raises(VerificationError, match="twice"):
        gather(*halves)


@pytest.mark.parametrize("beside", [{"refusal": "no"}, {"tool_calls": [{}]}, {"tool_calls": []}])
def test_content_is_judged_whatever_stands_beside_it(beside: dict[str, Any]) -> None:
    assert gather({"message": BAD | beside}).choices[0].is_answer


def test_a_call_and_a_bare_refusal_are_not_judged() -> None:
    call = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "wait"}}]}
    assert not gather({"message": call}).choices[0].is_answer
    assert not gather({"message": {"content": "", "refusal": "no"}}).choices[0].is_answer
