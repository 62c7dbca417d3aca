"""What an answer's text is, thoughts apart, and which tokens spell it."""

import msgspec
import pytest

from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.judging import Verdict
from hanse.verification.audits.served_text import (
    MARK_BYTES_MAX,
    PARTS_MAX,
    Part,
    is_all_spelled,
    read_served,
    spells,
)
from tests.verification.audits.bought_answers import audit, calibrate, make_body, sell
from tests.verification.audits.toy_model import ToyModel, ToyReader


def to_answer(thoughts: str, content: str) -> bytes:
    message = {"reasoning_content": thoughts, "content": content}
    return msgspec.json.encode({"choices": [{"index": 0, "message": message}]})


def test_a_stream_s_frames_are_put_together() -> None:
    frames = [
        b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"31"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"415"}}]}\n\n',
        b'data: {"choices":[],"usage":{}}\n\n',
        b"data: [DONE]\n\n",
    ]
    plain = (Part(b"31415", False),)
    assert read_served(b"".join(frames)).parts == plain
    # line ends and the space after `data:` are the provider's choice, and no way out of an audit
    for one, other in ((b"\n", b"\r\n"), (b"data: ", b"data:")):
        assert read_served(b"".join(frames).replace(one, other)).parts == plain
    assert read_served(b'{"choices":[{"index":0,"text":"31415"}]}').parts == plain
    assert read_served(b'{"choices":[{"message":{"content":""}}]}').is_text


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_a_part_of_their_own_however_they_are_called(name: str) -> None:
    frames = [{name: "Let me"}, {name: " see."}, {"content": "It"}, {"content": " is 4."}]
    stream = b"".join(
        b"data: " + msgspec.json.encode({"choices": [{"delta": delta}]}) + b"\n\n"
        for delta in frames
    )
    served = read_served(stream)
    assert served.parts == (Part(b"Let me see.", True), Part(b"It is 4.", False))
    assert (served.is_text, served.has_thoughts) == (True, True)


@pytest.mark.parametrize(
    "response",
    [
        b'{"choices":[{"index":1,"text":"x"}]}',
        b'data: {"choices":[{"delta":{"tool_calls":[{}]}}]}\n\n',
        b"data: [\n\n",
        b"\xff",
        b'{"choices":' + b"[" * 200,
        b"".join(
            b'data: {"choices":[{"delta":{"reasoning":"hm","content":"x"}}]}\n\n'
            for _ in range(PARTS_MAX)
        ),
    ],
)
def test_what_cannot_be_compared_is_no_text(response: bytes) -> None:
    assert not read_served(response).is_text


SERVED = read_served(to_answer("\nI add.\n", "\n\nIt is 4."))


@pytest.mark.parametrize(
    "spelled",
    [
        b"<think>\nI add.\n</think>\n\nIt is 4.",
        b"I add.</think>It is 4.",
        b"analysis I add.<|end|><|start|>assistant final It is 4.\n",
    ],
)
def test_tokens_spell_thoughts_and_answer_with_marks_between(spelled: bytes) -> None:
    assert spells(spelled, SERVED, 8)
    assert is_all_spelled(spelled, SERVED)
    for end in range(len(spelled)):
        assert spells(spelled[:end], SERVED, None), "its beginning"


@pytest.mark.parametrize(
    "spelled",
    [
        b"<think>\nI sub.\n</think>\n\nIt is 4.",
        b"<think>\nI add.\n</think>\n\nIt is 5.",
        b"It is 4.<think>I add.</think>",
        b"<think>I add.</think>It is 4. And much more that nobody was given",
        b"x" * (MARK_BYTES_MAX + 1) + b"I add.</think>It is 4.",
        b"I add." + b"x" * (MARK_BYTES_MAX + 1) + b"It is 4.",
    ],
)
def test_tokens_of_another_text_do_not(spelled: bytes) -> None:
    assert not spells(spelled, SERVED, 8)


def test_of_thoughts_that_were_cut_off_there_is_no_answer() -> None:
    served = read_served(to_answer("Let me see how the", ""))
    assert spells(b"<think>\nLet me see how the", served, 8)
    assert spells(b"<think>\nLet me see", served, None)
    assert not spells(b"Let me see" + b"x" * MARK_BYTES_MAX, served, None)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate()


@pytest.mark.parametrize(("weights", "verdict"), [(1, Verdict.HONEST), (2, Verdict.CHEAT)])
def test_an_answer_with_thoughts_is_judged_like_any_other(
    calibration: Calibration, weights: int, verdict: Verdict
) -> None:
    """A cheat had only to send thoughts, of any model, and no audit of it could be made."""
    entries = sell(ToyModel(weights)).entries
    text = ToyReader().get_text([entry.token for entry in entries]).decode()
    response = to_answer(text[2:30], text[40:])
    judgement = audit(sell(ToyModel(weights), response=response), calibration).judgement
    assert judgement.verdict is verdict
    other = to_answer(text[2:30], "something else")
    judgement = audit(sell(ToyModel(weights), response=other), calibration).judgement
    assert "text_differs" in judgement.reasons
    assert judgement.verdict is Verdict.INCONCLUSIVE


CALLS = b'{"choices":[{"message":{"tool_calls":[{"type":"function"}]}}]}'


@pytest.mark.parametrize(
    ("response", "body", "is_unasked"),
    [
        (CALLS, make_body(), True),
        (b"not json", make_body(), True),
        (b'{"choices":[{"index":1,"text":"x"}]}', make_body(), True),
        (CALLS, make_body(tools=[{"type": "function"}]), False),
        (b'{"choices":[{"index":1,"text":"x"}]}', make_body(n=2), False),
    ],
)
def test_parts_that_nobody_asked_for_count_against_the_provider(
    calibration: Calibration, response: bytes, body: bytes, is_unasked: bool
) -> None:
    """Else a call of a tool, made up, would keep any answer from being compared."""
    judgement = audit(sell(ToyModel(), body=body, response=response), calibration).judgement
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "answer_parsed" in judgement.reasons
    assert ("parts_unasked" in judgement.reasons) is is_unasked
