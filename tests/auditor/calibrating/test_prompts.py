"""Questions of calibrations: all differ, of every kind, some long."""

import json

from hanse.auditor.calibrating.prompts import KINDS, SAMPLERS, make_request


def test_questions_differ_and_take_every_kind_with_every_sampler() -> None:
    made = [make_request(number, 10) for number in range(400)]
    assert len({json.dumps(body["messages"]) for _, body in made}) == 400
    pairs = {(kind, body.get("temperature")) for kind, body in made}
    assert len(pairs) == len(KINDS) * len(SAMPLERS)


def test_every_fourth_question_can_be_long() -> None:
    lengths = [len(make_request(number, 10, 300)[1]["messages"][-1]["content"].split())
               for number in range(40)]  # fmt: skip
    assert all(length > 150 for length in lengths[3::4])
    assert all(length < 30 for number, length in enumerate(lengths) if number % 4 != 3)
