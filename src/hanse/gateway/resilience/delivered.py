"""What an application has received of a stream, read from its frames once that is needed.

Raw frames are kept as they pass, which costs nothing; they are read when a stream breaks, or when
so many are held that their text alone takes less memory. What is read is what a continuation needs:
the text of each choice, how many tokens that was, and which name the stream goes by.

How many tokens were delivered, of all choices together, the first of these that is there:

1. the provider's receipt of its part;
2. the `usage` in the latest frame that has one;
3. one for each frame with text. An engine puts at least one token into such a frame, so this is
   never too many: the application may get a few tokens more than it asked for, never fewer.

Of one choice among several only the third is known.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from hanse.protocol.errors import VerificationError
from hanse.protocol.limits import CHOICES_MAX

HELD_BYTES_MAX = 131_072
"""Raw frames held before they are read: some 700 of a token each, more than most answers have."""

TEXT_BYTES_MAX = 65_536
"""Of a text that can be continued: some 16,000 tokens. It becomes a prompt that is paid for, and a
stranger wrote it."""

ERROR_FRAME = b'data: {"error"'
"""Begins the frame in which a provider says that its engine broke."""


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: Any = None  # `Raw | None` would take null alone
    function_call: Any = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Frame(msgspec.Struct):
    id: str = ""
    created: int = 0
    model: str = ""
    object: str = ""
    choices: list[_Choice] = []
    usage: _Usage | None = None


_DECODE = msgspec.json.Decoder(_Frame).decode


@dataclass(slots=True)
class Said:
    """What was handed on of one choice.

    Attributes:
        text: of it.
        frames: with text, each a token at least.
        has_role: whether a frame said who speaks.
        finish_reason: why it ended, once a frame said so.
        obstacle: why its rest cannot be asked for elsewhere; empty if it can.
    """

    text: str = ""
    frames: int = 0
    has_role: bool = False
    finish_reason: str = ""
    obstacle: str = ""


_NOTHING = Said()


class Delivered(msgspec.Struct):
    """What was handed on so far.

    Attributes:
        held: raw frames not read yet; whoever relays appends to it.
        id, created, model, kind: the stream's, of its first frame.
        choices: by their index, those that a frame spoke of.
        tokens: of all choices; see the module.
        obstacle: why nothing of it can be gone on with elsewhere; empty if it can.
    """

    held: list[bytes] = []
    id: str = ""
    created: int = 0
    model: str = ""
    kind: str = ""
    choices: dict[int, Said] = {}
    tokens: int = 0
    obstacle: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of an answer was handed on, a role perhaps."""
        return not self.obstacle and not any(
            said.text or said.finish_reason or said.obstacle for said in self.choices.values()
        )

    def get(self, index: int) -> Said:
        """What was handed on of a choice."""
        return self.choices.get(index, _NOTHING)

    def read(self) -> None:
        """Read what is held, and let go of it."""
        texts: dict[int, list[str]] = {}
        for raw in self.held:
            self._add(_read_frame(raw), texts)
        self.held.clear()
        for index, parts in texts.items():
            said = self.choices[index]
            said.text += "".join(parts)
            if len(said.text) > TEXT_BYTES_MAX:
                said.obstacle = f"its text has more than {TEXT_BYTES_MAX} characters"

    def _add(self, frame: _Frame | None, texts: dict[int, list[str]]) -> None:
        if frame is None:
            self.obstacle = "one of its frames cannot be read"
            return
        if not self.id:
            self.id, self.created = frame.id, frame.created
            self.model, self.kind = frame.model, frame.object
        for choice in frame.choices:
            if not 0 <= choice.index < CHOICES_MAX:
                self.obstacle = f"it has a choice {choice.index}"
                continue
            said = self.choices.setdefault(choice.index, Said())
            delta = choice.delta or _Delta()
            text = delta.content or choice.text
            if text:
                texts.setdefault(choice.index, []).append(text)
                said.frames += 1
                self.tokens += 1
            said.has_role = said.has_role or delta.role is not None
            said.finish_reason = choice.finish_reason or said.finish_reason
            said.obstacle = said.obstacle or _find_obstacle(delta)
        if frame.usage is not None:
            self.tokens = max(self.tokens, frame.usage.completion_tokens)


def verify_frame(raw: bytes) -> None:
    r"""Verify that a data frame holds a whole JSON object, by its ends.

    Raises:
        VerificationError: `response_malformed`.
    """
    content = raw[5:].strip() if raw.startswith(b"data:") else b""
    if not (content.startswith(b"{") and content.endswith(b"}")):
        raise VerificationError("response_malformed", "a frame of the stream is no JSON object")


def _read_frame(raw: bytes) -> _Frame | None:
    try:
        return _DECODE(raw[5:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _find_obstacle(delta: _Delta) -> str:
    if delta.tool_calls is not None or delta.function_call is not None:
        return "a tool call is under way"
    if delta.reasoning_content:
        return "it thinks aloud, and thoughts cannot be handed over"
    return ""
