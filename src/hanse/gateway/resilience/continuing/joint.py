"""Makes the frames of a later part look like those of the first."""

from collections.abc import Sequence
from typing import Any

import msgspec

from hanse.gateway.resilience.delivered import Delivered
from hanse.protocol.errors import VerificationError

_ODD = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    AttributeError,
    TypeError,
    KeyError,
)
"""What comes of a frame that is JSON, or not even that, but no chunk of an answer."""


class Joint:
    """For a stream that goes on as one.

    Args:
        delivered: of all parts before; its id, time and model are kept.
        prompts: prompt tokens of each part before, None where nobody told.
    """

    def __init__(self, delivered: Delivered, prompts: Sequence[int | None]) -> None:
        self._delivered = delivered
        self._prompts = tuple(prompts)
        self._tokens_before = delivered.tokens

    def join(self, raw: bytes) -> bytes | None:
        """One frame as the application gets it; None if it would say nothing new.

        Raises:
            VerificationError: `response_malformed`.
        """
        try:
            frame = name_after(msgspec.json.decode(raw[5:], type=dict[str, Any]), self._delivered)
            if frame.get("usage"):
                self._add_up(frame["usage"])
            return None if is_silent(frame) else encode(frame)
        except _ODD:
            raise get_malformed() from None

    def _add_up(self, usage: dict[str, Any]) -> None:
        own = max(0, usage["prompt_tokens"] - self._tokens_before)
        usage["prompt_tokens"] += sum(own if told is None else told for told in self._prompts)
        usage["completion_tokens"] += self._tokens_before
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


class ChoiceJoint:
    """For one choice of several: its frames come from a request for one choice.

    Attributes:
        prompt_tokens: of all its parts, as its frames said last; None if they did not.
        tokens: of it; one for each frame with text until its frames say more.
    """

    def __init__(self, delivered: Delivered, index: int) -> None:
        self.prompt_tokens: int | None = None
        self.tokens = 0
        self._delivered = delivered
        self._index = index

    def join(self, raw: bytes) -> bytes | None:
        """One frame as the application gets it, its usage kept back; None if it says nothing new.

        Raises:
            VerificationError: `response_malformed`.
        """
        try:
            frame = msgspec.json.decode(raw[5:], type=dict[str, Any])
            for choice in frame.get("choices") or []:
                if choice.get("index", 0) != 0:
                    raise get_malformed()
                choice["index"] = self._index
                said = choice.get("text") or (choice.get("delta") or {}).get("content")
                self.tokens += bool(said)
            if usage := frame.pop("usage", None):
                self.prompt_tokens = int(usage["prompt_tokens"])
                self.tokens = int(usage["completion_tokens"])
            frame = name_after(frame, self._delivered)
            return encode(frame) if frame.get("choices") and not is_silent(frame) else None
        except (*_ODD, ValueError):
            raise get_malformed() from None


def name_after(frame: dict[str, Any], first: Delivered) -> dict[str, Any]:
    """It goes by the first part's name, and says no role that was said."""
    if first.id:
        frame |= {"id": first.id, "created": first.created, "model": first.model}
    for choice in frame.get("choices") or []:
        delta = choice.get("delta")
        if delta and first.get(choice.get("index", 0)).has_role:
            delta.pop("role", None)
    return frame


def is_silent(frame: dict[str, Any]) -> bool:
    """Whether its choices say nothing, and neither does its usage."""
    choices = frame.get("choices")
    if not choices or frame.get("usage"):
        return False
    return not any(
        choice.get("delta") or choice.get("text") or choice.get("finish_reason") is not None
        for choice in choices
    )


def encode(frame: dict[str, Any]) -> bytes:
    """As a frame of a stream."""
    return b"data: " + msgspec.json.encode(frame) + b"\n\n"


def get_malformed() -> VerificationError:
    """What is raised for a frame that is no chunk."""
    return VerificationError("response_malformed", "a frame of the stream is no chunk of an answer")
