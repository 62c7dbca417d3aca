"""Coverage: every kind that the issue names is declared, covered or not; page and code alike."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hanse.protocol.errors import RequestError
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.coverage import (
    COVERED,
    ROWS,
    Circumstances,
    get_chain,
    get_coverage,
)
from hanse.verification.audits.sampling import Chain
from tests.verification.audits.bought_answers import PATH, calibrate

PAGE = Path(__file__).parents[3] / "docs" / "verification" / "audits.md"

ISSUE = (
    "low-entropy answers", "short answers", "tools", "schema-constrained answers", "long contexts",
    "LoRA adapters", "prompt caching", "batch effects", "top-k, top-p, min-p",
    "penalties, logit bias",
)  # fmt: skip

LONG = Circumstances(100, 64, 64, 0, 40)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(200)


def get(
    calibration: Calibration, found: Circumstances = LONG, **fields: Any
) -> tuple[set[str], set[str]]:
    body = {"model": "toy", "messages": [{"role": "user", "content": "x"}]} | fields
    coverage = get_coverage(PATH, body, found, calibration)
    return set(coverage.fingerprint), set(coverage.sampling)


def test_every_kind_of_the_issue_is_declared_and_the_page_says_the_same() -> None:
    assert set(ISSUE) <= {row.kind for row in ROWS}
    page = [tuple(cell.strip() for cell in line.split("|")[1:-1])
            for line in PAGE.read_text().splitlines() if line.startswith("|")]  # fmt: skip
    for row in ROWS:
        assert (row.kind, row.fingerprint, row.sampling, row.reason) in page


def test_an_ordinary_request_is_covered_by_both(calibration: Calibration) -> None:
    assert get(calibration) == (set(), set())
    assert get(calibration, temperature=0.3, top_k=5, stop=["x"], logprobs=True) == (set(), set())
    assert get(calibration, tools=[], tool_choice="none", n=1, logit_bias=None) == (set(), set())
    assert get(calibration, presence_penalty=0, response_format={"type": "text"}) == (set(), set())


@pytest.mark.parametrize(
    ("kind", "fields", "by_fingerprint"),
    [
        ("tools", {"tools": [{"type": "function"}]}, False),
        ("schema-constrained answers", {"response_format": {"type": "json_object"}}, True),
        ("schema-constrained answers", {"grammar": 'root ::= "a"'}, True),
        ("LoRA adapters", {"lora": [{"id": 1}]}, False),
        ("penalties, logit bias", {"presence_penalty": 0.5}, True),
        ("penalties, logit bias", {"repeat_penalty": 1.1}, True),
        ("penalties, logit bias", {"logit_bias": {"5": 1}}, True),
        ("several choices (n)", {"n": 2}, False),
        ("images and audio", {"messages": [{"content": [{"type": "image_url"}]}]}, False),
        ("unknown fields", {"chat_template_kwargs": {}}, False),
    ],
)
def test_a_request_s_kind(
    calibration: Calibration, kind: str, fields: dict[str, Any], by_fingerprint: bool
) -> None:
    fingerprint, sampling = get(calibration, **fields)
    assert fingerprint == (set() if by_fingerprint else {kind})
    assert sampling == {kind}


@pytest.mark.parametrize(
    ("kind", "change", "fingerprint"),
    [
        ("low-entropy answers", {"choices": 3}, False),
        ("short answers", {"answer_tokens": 5, "fingerprints": 3}, True),
        ("long contexts", {"prompt_tokens": 5_000}, True),
    ],
)
def test_an_answer_s_kind(
    calibration: Calibration, kind: str, change: dict[str, int], fingerprint: bool
) -> None:
    found = get(calibration, msgspec.structs.replace(LONG, **change))
    assert found == ({kind} if fingerprint else set(), {kind})


def test_what_was_calibrated_is_covered_and_only_that(calibration: Calibration) -> None:
    cached = msgspec.structs.replace(LONG, cached_tokens=50)
    assert get(calibration, cached) == (set(), set())
    for label, kind, found in (
        ("cache", "prompt caching", cached),
        ("concurrent=8", "batch effects", LONG),
    ):
        conditions = calibration.conditions
        labels = tuple(one for one in conditions.labels if one != label) + ("concurrent=1",) * (
            kind == "batch effects"
        )
        bare = msgspec.structs.replace(
            calibration, conditions=msgspec.structs.replace(conditions, labels=labels)
        )
        assert get(bare, found) == ({kind}, {kind})


def test_embeddings_and_audio_have_no_tokens_to_audit(calibration: Calibration) -> None:
    coverage = get_coverage("/v1/embeddings", {"input": "x"}, LONG, calibration)
    assert "images and audio" in coverage.fingerprint


def test_a_request_s_sampler_is_llama_cpp_s_unless_it_says_otherwise() -> None:
    assert get_chain({}) == Chain(800_000, 40, 950_000, 50_000)
    assert get_chain({"temperature": 0}).is_greedy
    assert get_chain({"top_k": 1, "temperature": 1}).is_greedy
    plain = get_chain({"temperature": 0.7, "top_k": 0, "top_p": 1, "min_p": 0})
    assert plain == Chain(700_000, 0, 1_000_000, 0)
    assert not plain.is_sorted


def test_covered_kinds_are_never_named_as_reasons() -> None:
    for row in ROWS:
        assert {row.fingerprint, row.sampling} != {COVERED}
        assert row.reason
        assert not re.search(r"[|\n]", row.reason)


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "min_p"])
@pytest.mark.parametrize("value", ["hot", {}, [], float("inf"), 1e308, 2**80, -(2**80)])
def test_a_sampler_that_is_none_ends_no_auditor(name: str, value: object) -> None:
    """Whoever buys of itself signs for any body; an auditor or a panel that runs it goes on."""
    with pytest.raises(RequestError, match=name):
        get_chain({name: value})


def test_a_negative_top_k_takes_all_tokens_as_llama_cpp_does() -> None:
    assert get_chain({"top_k": -1}).top_k == 0
    assert get_chain({"top_k": 40.0, "temperature": 1}) == Chain(1_000_000, 40)


@pytest.mark.parametrize("messages", [5, "hello", {"role": "user"}, [5], [[{}]]])
def test_messages_that_are_none_are_not_covered_or_hold_no_media(
    calibration: Calibration, messages: object
) -> None:
    coverage = get_coverage(PATH, {"messages": messages}, LONG, calibration)
    assert ("images and audio" in coverage.fingerprint) == (not isinstance(messages, list))
