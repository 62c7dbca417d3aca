"""Whether the committed tokens are the answer that was received, and the prompt the one billed.

What is compared is text: the served bytes are in the receipt's response hash, the tokens in its
commitment root, and the auditor spells out the tokens itself. An engine may differ from plain
spelling in harmless ways (a stop string cut off, half a character held back, a leading space taken
off, thoughts handed out apart, tool calls delivered parsed); all but the last are allowed for
(`served_text`), and that is not covered.

Whatever does not fit is a reason to judge nothing: a shifted sequence would make an honest provider
look like a cheat. It is counted, though (`get_reasons` names it), for a provider whose answers
never fit is not one to buy from.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from hanse.protocol.commitments.fingerprints import ABSENT
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import Usage
from hanse.protocol.nesting import is_nested_too_deep
from hanse.verification.audits.coverage import is_text_alone
from hanse.verification.audits.prefill import Reader
from hanse.verification.audits.served_text import is_all_spelled, read_served, spells

HELD_BACK_BYTES_MAX = 8
"""Of the spelled tokens that an engine may not have sent: half a character, a space, a line feed.
A stop string of the request comes on top."""


TAIL_TOKENS_MAX = 64
"""Unknown tokens behind the whole text: its end, and what a chat parser drops there. A stop string
of the request comes on top, a token for each byte."""

TOLD_TOKENS_MIN = 64
"""Tokens of an answer from which at least TOLD_FINGERPRINTS_MIN of the first ones have to be told
with a fingerprint; of shorter ones a few odd characters at the beginning may leave none."""

TOLD_FINGERPRINTS_MIN = 4
"""Fewer are not compared at all (`statistics.BLOCKS`)."""


class Alignment(msgspec.Struct, frozen=True):
    """What can be prefilled, and why no more.

    Attributes:
        prompt_tokens: as the auditor reads the request.
        count: answer tokens from the first one on that are known and spell the answer.
        reasons: codes of `judging.REASONS`; not empty if nothing may be judged.
    """

    prompt_tokens: tuple[int, ...]
    count: int
    reasons: tuple[str, ...]


class _Body(msgspec.Struct):
    stop: str | list[str] | None = None


def align(
    reader: Reader,
    path: str,
    body: bytes,
    response: bytes,
    entries: Sequence[Entry],
    usage: Usage,
) -> Alignment:
    """Compare tokens with the answer, and the prompt with what was billed; never raises for them.

    Args:
        reader: of the served model.
        path: of the operation.
        body: of the request.
        response: the answer's bytes, of a stream its data frames in order.
        entries: of the opening.
        usage: of the receipt.
    """
    try:
        prompt = tuple(reader.get_prompt_tokens(path, body))
    except HanseError:
        return Alignment((), 0, ("prompt_unreadable",))
    reasons = get_plain_misfits(prompt, path, body, response, entries, usage)
    told = count_told(entries)
    count = next((at for at in range(told) if entries[at].token >= reader.vocabulary), told)
    served = read_served(response)
    tokens = [entry.token for entry in entries[:count]]
    if served.is_text:
        slack = None
        if count == len(entries):  # what ends in a stop is cut within its last token
            slack = _get_slack(body) + len(reader.get_text(tokens[-1:]))
        spelled = reader.get_text(tokens)
        if count < told or not spells(spelled, served, slack):
            reasons.append("text_differs")
        elif _has_long_tail(entries, body) and is_all_spelled(spelled, served):
            reasons.append("tail_unexplained")
    if count == 0:
        reasons.append("nothing_told")
    return Alignment(prompt, count, tuple(reasons))


def get_plain_misfits(
    prompt: Sequence[int],
    path: str,
    body: bytes,
    response: bytes,
    entries: Sequence[Entry],
    usage: Usage,
) -> list[str]:
    """Misfits that whoever has answer, opening and the prompt's tokens sees without a vocabulary.

    So a file of evidence cannot leave them out, or make them up.
    """
    reasons = []
    if len(prompt) != usage.input_tokens + usage.cached_tokens:
        reasons.append("prompt_differs")
    if len(entries) != usage.output_tokens:
        reasons.append("count_differs")
    if not read_served(response).is_text:
        reasons.append("answer_parsed")
        if is_text_alone(path, _read_fields(body)):
            reasons.append("parts_unasked")
    return reasons


def count_told(entries: Sequence[Entry]) -> int:
    """Tokens before the first of which the engine's server told nothing."""
    return next(
        (at for at, entry in enumerate(entries) if entry.token == UNKNOWN_TOKEN), len(entries)
    )


def may_have_tail(entries: Sequence[Entry]) -> bool:
    """Whether there are more unknown tokens than an end takes; `tail_unexplained` needs them."""
    return len(entries) - count_told(entries) > TAIL_TOKENS_MAX


def is_little_told(entries: Sequence[Entry]) -> bool:
    """Whether a long answer is committed to in such a way that nothing of it can be compared.

    Unknown tokens and absent fingerprints are honest here and there. An engine that tells nothing
    but these of a whole text is none: whoever has no copy could commit so to any answer.
    """
    if len(entries) < TOLD_TOKENS_MIN:
        return False
    told = entries[: count_told(entries)]
    return sum(entry.fingerprint != ABSENT for entry in told) < TOLD_FINGERPRINTS_MIN


def _get_slack(body: bytes) -> int:
    """Bytes that may be missing at the end of what was served."""
    try:
        stop = msgspec.json.decode(body, type=_Body).stop or ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        stop = ()
    stops = (stop,) if isinstance(stop, str) else stop
    return HELD_BACK_BYTES_MAX + max((len(one.encode()) for one in stops), default=0)


def _read_fields(body: bytes) -> dict[str, Any]:
    """The request's fields; one that asks for nothing known if it cannot be read."""
    try:
        fields = {} if is_nested_too_deep(body) else msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = {}
    return fields or {"unreadable": True}


def _has_long_tail(entries: Sequence[Entry], body: bytes) -> bool:
    return len(entries) - count_told(entries) > TAIL_TOKENS_MAX + _get_slack(body)
