"""Which answers an audit covers, by which check, and why it does not cover the others.

Two checks: **fingerprint** (the committed fingerprints against the auditor's own, V3) and
**sampling** (each token against its seeded draw, V2). `ROWS` is the declaration, row by row as the
issue of this part of the project asks; `get_coverage` applies it to one answer. The page
`docs/verification/audits.md` repeats the rows, and a test holds the two equal.

A field of a request that stands in no list here is not covered: what is unknown counts as able to
change the answer.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from hanse.protocol.errors import RequestError
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.sampling import PPM, Chain
from hanse.verification.audits.statistics import BLOCKS, SAMPLED_TOKENS_MIN

CHOICES_MIN = 8
"""Tokens with a choice below which sampling says nothing: a text that every model would have
written."""

NUMBER_MAX = 2**31
"""Of a sampler's settings; llama.cpp's top-k has 32 bits."""

PATHS = ("/v1/chat/completions", "/v1/completions")

COVERED, NOT, CALIBRATED = "covered", "not covered", "if calibrated"


class Row(msgspec.Struct, frozen=True):
    """One kind of answer: what each check says of it, and why."""

    kind: str
    fingerprint: str
    sampling: str
    reason: str


ROWS = (
    Row("low-entropy answers", COVERED, NOT,
        "with fewer than 8 tokens that had a choice, every model would have written the same text"),
    Row("short answers", NOT, NOT,
        "fewer than 4 tokens for fingerprints, 16 for sampling: one token's noise would decide"),
    Row("tools", NOT, NOT,
        "calls are delivered parsed, so tokens cannot be compared with what was received"),
    Row("schema-constrained answers", COVERED, NOT,
        "a grammar may reject a draw and take another, so draws and tokens are out of step"),
    Row("long contexts", CALIBRATED, CALIBRATED,
        "noise grows with the context; only up to the longest one of the calibration"),
    Row("long answers", CALIBRATED, CALIBRATED,
        "of more blocks the worst is worse by chance; the first tokens are audited, as many as the "
        "calibration's longest answer has"),
    Row("LoRA adapters", NOT, NOT,
        "the adapter is in neither manifest nor copy, so the auditor cannot run it"),
    Row("prompt caching", CALIBRATED, CALIBRATED,
        "a cached prompt was computed in other batches; the calibration must be labelled `cache`"),
    Row("batch effects", CALIBRATED, CALIBRATED,
        "nobody sees how many answers shared a batch; the calibration must have a label "
        "`concurrent=` above 1"),
    Row("top-k, top-p, min-p", COVERED, CALIBRATED,
        "sorted walks have a statistic of their own, which must be in the calibration"),
    Row("penalties, logit bias", COVERED, NOT,
        "they change the distribution by what was written before; not replayed"),
    Row("several choices (n)", NOT, NOT, "there is one commitment, and several sequences"),
    Row("images and audio", NOT, NOT, "the auditor's prefill takes text only"),
    Row("unknown fields", NOT, NOT, "a field that is not known here may change the answer"),
)  # fmt: skip
"""The declaration."""

_HARMLESS = frozenset(
    (
        "model", "messages", "prompt", "stream", "stream_options", "max_tokens", "stop", "seed",
        "max_completion_tokens", "logprobs", "top_logprobs", "temperature", "top_k", "top_p",
        "min_p", "metadata", "user", "store", "service_tier", "prompt_cache_key", "echo", "suffix",
        "prompt_cache_retention", "safety_identifier", "parallel_tool_calls", "modalities",
    )
)  # fmt: skip
_ADAPTERS = ("lora", "adapter")
_GRAMMARS = ("response_format", "grammar")
_BIASES = ("presence_penalty", "frequency_penalty", "repeat_penalty", "logit_bias")
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repeat_penalty": (1,),
    "logit_bias": ({},),
    "n": (1,),
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none",),
    "tools": ([],),
}


class Circumstances(msgspec.Struct, frozen=True):
    """What an answer was like, besides its request.

    Attributes:
        prompt_tokens: of the request.
        fingerprints: positions with a fingerprint.
        answer_tokens: known ones.
        cached_tokens: that the receipt bills as cached.
        choices: tokens that had a choice; None before it was measured.
    """

    prompt_tokens: int
    fingerprints: int
    answer_tokens: int
    cached_tokens: int
    choices: int | None = None


class Coverage(msgspec.Struct, frozen=True):
    """For each check the kinds of ROWS that it does not cover here; none means that it does."""

    fingerprint: tuple[str, ...]
    sampling: tuple[str, ...]


def get_coverage(
    path: str, body: Mapping[str, Any], found: Circumstances, calibration: Calibration
) -> Coverage:
    """Which checks cover one answer."""
    kinds = set(_get_kinds_of_request(path, body))
    conditions = calibration.conditions
    if found.prompt_tokens + found.answer_tokens > conditions.context_tokens:
        kinds.add("long contexts")
    if found.cached_tokens and "cache" not in conditions.labels:
        kinds.add("prompt caching")
    if not any(
        label.startswith("concurrent=") and label != "concurrent=1" for label in conditions.labels
    ):
        kinds.add("batch effects")
    fingerprint = {kind for kind in kinds if _STATED[kind].fingerprint != COVERED}
    sampling = {kind for kind in kinds if _STATED[kind].sampling != COVERED}
    if found.fingerprints < min(BLOCKS):
        fingerprint.add("short answers")
    if found.answer_tokens < SAMPLED_TOKENS_MIN:
        sampling.add("short answers")
    if found.choices is not None and found.choices < CHOICES_MIN:
        sampling.add("low-entropy answers")
    return Coverage(tuple(sorted(fingerprint)), tuple(sorted(sampling)))


def get_chain(body: Mapping[str, Any]) -> Chain:
    """The sampler that a request asks for; llama.cpp's defaults where it names none.

    Raises:
        RequestError: `unprocessable`, for what is no number. A broker of good faith does not admit
            it, but whoever sells to itself can sign for any body.
    """
    default = Chain()

    def read(name: str, otherwise: float) -> float:
        value = body.get(name)
        if value is None:
            return otherwise
        if not isinstance(value, (int, float)) or not abs(value) <= NUMBER_MAX:
            raise RequestError("unprocessable", f"{name} is no number that a sampler takes")
        return max(0, value)

    def ppm(name: str, otherwise: int) -> int:
        return round(read(name, otherwise / PPM) * PPM)

    return Chain(
        ppm("temperature", default.temperature_ppm),
        int(read("top_k", default.top_k)),
        ppm("top_p", default.top_p_ppm),
        ppm("min_p", default.min_p_ppm),
    )


def is_text_alone(path: str, body: Mapping[str, Any]) -> bool:
    """Whether the answer is one text as the model wrote it: of it an engine tells nearly all."""
    return set(_get_kinds_of_request(path, body)) <= {"penalties, logit bias"}


def _get_kinds_of_request(path: str, body: Mapping[str, Any]) -> list[str]:
    asked = {
        name: value
        for name, value in body.items()
        if value is not None and value not in _NEUTRAL.get(name, ())
    }
    kinds = []
    if asked.get("tools") or asked.get("tool_choice") not in (None, "auto", "none"):
        kinds.append("tools")
    if any(name in asked for name in _GRAMMARS):
        kinds.append("schema-constrained answers")
    if any(name in asked for name in _BIASES):
        kinds.append("penalties, logit bias")
    if "n" in asked or "best_of" in asked:
        kinds.append("several choices (n)")
    if path not in PATHS or _has_media(asked.get("messages")):
        kinds.append("images and audio")
    known = {*_HARMLESS, *_GRAMMARS, *_BIASES, "tools", "tool_choice", "n", "best_of"}
    if any(name in asked for name in _ADAPTERS):
        kinds.append("LoRA adapters")
    elif not known.issuperset(asked):
        kinds.append("unknown fields")
    return kinds


def _has_media(messages: Any) -> bool:
    if not isinstance(messages, list):
        return messages is not None
    contents = [one.get("content") for one in messages if isinstance(one, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(not isinstance(part, dict) or part.get("type") != "text" for part in parts)


_STATED = {row.kind: row for row in ROWS}
