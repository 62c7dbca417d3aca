"""What an application has received of a stream, read from its frames once that is needed.

Raw frames are kept as they pass, which costs nothing; they are read when a stream breaks, or when
so many are held that their text alone takes less memory. What is read is what a continuation needs:
the text, how many tokens that was, and which name the stream goes by.

How many tokens were delivered, the first of these that is there:

1. the provider's receipt of its part;
2. the `usage` in the latest frame that has one;
3. one for each frame with text. An engine puts at least one token into such a frame, so this is
   never too many: the application may get a few tokens more than it asked for, never fewer.
"""

from dataclasses import dataclass, field

import msgspec

from hanse.protocol.errors import VerificationError

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
    tool_calls: msgspec.Raw | None = None
    function_call: msgspec.Raw | None = None


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
class Delivered:
    """What was handed on so far.

    Attributes:
        held: raw frames not read yet; whoever relays appends to it.
        id, created, model, kind: the stream's, of its first frame.
        text: of its only choice.
        tokens: of that text; see the module.
        has_role: whether a frame said who speaks.
        finish_reason: why the answer ended, once a frame said so.
        obstacle: why the rest cannot be asked for elsewhere; empty if it can.
    """

    held: list[bytes] = field(default_factory=list)
    id: str = ""
    created: int = 0
    model: str = ""
    kind: str = ""
    text: str = ""
    tokens: int = 0
    has_role: bool = False
    finish_reason: str = ""
    obstacle: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of an answer was handed on, a role perhaps."""
        return not (self.text or self.finish_reason or self.obstacle)

    def read(self) -> None:
        """Read what is held, and let go of it."""
        texts: list[str] = []
        for raw in self.held:
            self._add(_read_frame(raw), texts)
        self.held.clear()
        self.text += "".join(texts)
        if len(self.text) > TEXT_BYTES_MAX:
            self.obstacle = f"its text has more than {TEXT_BYTES_MAX} characters"

    def _add(self, frame: _Frame, texts: list[str]) -> None:
        if not self.id:
            self.id, self.created = frame.id, frame.created
            self.model, self.kind = frame.model, frame.object
        for choice in frame.choices:
            delta = choice.delta or _Delta()
            text = delta.content or choice.text
            if text:
                texts.append(text)
                self.tokens += 1
            self.has_role = self.has_role or delta.role is not None
            self.finish_reason = choice.finish_reason or self.finish_reason
            self.obstacle = self.obstacle or _find_obstacle(choice.index, delta)
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


def _read_frame(raw: bytes) -> _Frame:
    try:
        return _DECODE(raw[5:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Frame(choices=[_Choice(delta=_Delta(tool_calls=msgspec.Raw(b"{}")))])


def _find_obstacle(index: int, delta: _Delta) -> str:
    if index:
        return "it has several choices"
    if delta.tool_calls is not None or delta.function_call is not None:
        return "a tool call is under way"
    if delta.reasoning_content:
        return "it thinks aloud, and thoughts cannot be handed over"
    return ""
