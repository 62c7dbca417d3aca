"""The text of an answer as its buyer received it, and whether tokens spell it.

    served = read_served(response)
    served.is_text                   else there is nothing to compare tokens with
    spells(spelled, served, slack)

Most answers are one text. A model that thinks writes its thoughts first, and its server hands them
out apart, without the marks that it wrote round them (`<think>`). So thoughts and answer are looked
for one after the other in what the tokens spell, with a mark between them at most. Calls of tools
and several choices are taken apart further: those cannot be compared.
"""

from typing import NamedTuple

import msgspec

from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.wire.frames import split_payloads

PARTS_MAX = 8
"""Thoughts and texts that take turns; more are no answer that can be compared."""

MARK_BYTES_MAX = 64
"""Around thoughts: the longest in use has about 30 bytes, and line feeds come on top."""

_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()


class Part(NamedTuple):
    """A text of an answer."""

    text: bytes
    is_thought: bool


class Served(msgspec.Struct, frozen=True):
    """What was received.

    Attributes:
        parts: texts in order, neighbours of one kind as one; of most answers one or none.
        is_text: whether that is all. Else it holds calls of tools or several choices, takes turns
            without end, or is no answer at all.
    """

    parts: tuple[Part, ...]
    is_text: bool

    @property
    def has_thoughts(self) -> bool:
        """Whether some of it was written before the answer proper."""
        return any(part.is_thought for part in self.parts)

    @property
    def text(self) -> bytes:
        """All of it."""
        return b"".join(part.text for part in self.parts)


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[object] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    index: int = 0


class _Frame(msgspec.Struct):
    choices: list[_Choice] = []


def read_served(response: bytes) -> Served:
    """The texts of an answer, or of a stream's frames."""
    found: list[tuple[bool, list[str]]] = []
    if is_nested_too_deep(response):
        return Served((), False)
    try:
        for payload in split_payloads(response):
            for choice in msgspec.json.decode(payload, type=_Frame).choices:
                part = choice.delta or choice.message or _Delta(choice.text)
                if choice.index or part.tool_calls:
                    return Served((), False)
                thought = part.reasoning_content or part.reasoning
                for is_thought, text in ((True, thought), (False, part.content)):
                    if text and found and found[-1][0] is is_thought:
                        found[-1][1].append(text)
                    elif text:
                        found.append((is_thought, [text]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Served((), False)
    parts = tuple(Part("".join(texts).encode(), is_thought) for is_thought, texts in found)
    return Served(parts, len(parts) <= PARTS_MAX)


def spells(spelled: bytes, served: Served, slack: int | None) -> bool:
    """Whether tokens spell what was served.

    Args:
        spelled: by the tokens that are known.
        served: the answer.
        slack: bytes that may be spelled behind it; None if the tokens are only its beginning.
    """
    if not served.has_thoughts:
        return _spells_plain(spelled, served.text, slack)
    *first, last = (_trim(part.text) for part in served.parts)
    at = 0
    for text in first:
        end = _find_end(spelled, text, at)
        if end is None:
            return slack is None and _is_begun(spelled[at:], text)
        at = end
    most = MARK_BYTES_MAX * served.parts[-1].is_thought
    if slack is None:
        end = _find_end(spelled, last, at)
        return _is_begun(spelled[at:], last) if end is None else len(spelled) - end <= most
    found = spelled.rfind(last, at, at + MARK_BYTES_MAX + len(last))
    return found >= 0 and len(spelled) - found - len(last) <= most + slack


def is_all_spelled(spelled: bytes, served: Served) -> bool:
    """Whether tokens that spell the beginning of what was served spell all of it."""
    if not served.has_thoughts:
        return len(spelled.lstrip(b" ")) >= len(_trim_plain(served.text))
    at = 0
    for part in served.parts:
        end = _find_end(spelled, _trim(part.text), at)
        if end is None:
            return False
        at = end
    return True


def _spells_plain(spelled: bytes, text: bytes, slack: int | None) -> bool:
    text = _trim_plain(text)
    if slack is None:
        return text.startswith(spelled.decode(errors="ignore").encode().lstrip(b" "))
    spelled = spelled.lstrip(b" ")
    return spelled.startswith(text) and len(spelled) <= len(text) + slack


def _trim_plain(text: bytes) -> bytes:
    return text.removesuffix(_UNKNOWN).lstrip(b" ")


def _trim(text: bytes) -> bytes:
    """Without what a server may have cut off or put there at the ends of a part."""
    return text.strip().removesuffix(_UNKNOWN)


def _find_end(spelled: bytes, text: bytes, at: int) -> int | None:
    """Where a part ends that begins behind a mark at most."""
    found = spelled.find(text, at, at + MARK_BYTES_MAX + len(text))
    return None if found < 0 else found + len(text)


def _is_begun(spelled: bytes, text: bytes) -> bool:
    """Whether this is a mark, and behind it a part's beginning."""
    spelled = spelled.decode(errors="ignore").encode()
    marks = range(min(MARK_BYTES_MAX, len(spelled)) + 1)
    return any(text.startswith(spelled[mark:]) for mark in marks)
