r"""A stream's frames, for all who read one: one rule of where they end and which is the last.

A frame ends with a blank line, by \n or by \r\n, and a space may follow `data:` or not. Both are
the provider's choice and inside the response hash. A reader that took only one of them would see no
answer where the others see one: an audit, say, or a check of the stated usage.

Pure; bytes as they come are cut by `hanse.sdk.transport.frames`, with this rule.
"""

import re

from hanse.protocol.hashing import DONE_FRAME

BLANK_LINE = re.compile(rb"\r?\n\r?\n")
"""Ends a frame."""

DONE = b"[DONE]"
"""What stands in the frame that ends an OpenAI stream."""


def is_done(frame: bytes) -> bool:
    """Whether it is the frame that ends an OpenAI stream."""
    return frame == DONE_FRAME or frame.strip() in (b"data: [DONE]", b"data:[DONE]")


def is_stream(response: bytes) -> bool:
    """Whether these bytes are a stream's data frames and no whole answer, which is JSON."""
    return response.startswith(b"data:")


def split_payloads(response: bytes) -> list[bytes]:
    """What stands behind `data:` in each frame of a kept stream, `[DONE]` left out.

    A whole answer is its own payload.
    """
    if not is_stream(response):
        return [response]
    frames = (frame for frame in BLANK_LINE.split(response) if frame.startswith(b"data:"))
    payloads = [frame[5:].strip() for frame in frames]
    return [payload for payload in payloads if payload != DONE]
