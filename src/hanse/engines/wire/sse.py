"""Server-sent events out of bytes, as they arrive and in whatever pieces.

Only the `data` field matters to an OpenAI stream: comments, ids and event names are skipped. Both
line endings that servers use are taken. Frames and the whole stream have limits, because an engine
can be somebody else's server.

Source: WHATWG HTML, section "Server-sent events".
"""

from hanse.protocol.errors import TransientError
from hanse.protocol.limits import FRAME_BYTES_MAX, RESPONSE_BYTES_MAX

DONE = b"[DONE]"
"""The payload that ends an OpenAI stream."""


class FrameSplitter:
    """Feeds on bytes, gives whole payloads (what stands after `data:`)."""

    def __init__(
        self, frame_bytes_max: int = FRAME_BYTES_MAX, total_bytes_max: int = RESPONSE_BYTES_MAX
    ) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._left_bytes = total_bytes_max
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads that are complete with these bytes.

        Raises:
            TransientError: a frame or the stream is over its limit.
        """
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise TransientError("engine_unavailable", "The engine's answer is over its limit.")
        if b"\r" in data:
            # A carriage return inside JSON is always escaped, so these are line ends.
            data = data.replace(b"\r", b"")
        if not self._buffer and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            payload = data[6:-2]
            if payload and b"\n" not in payload:  # one frame, as nearly every arrival is
                return [payload]
        frames = (self._buffer + data).split(b"\n\n")
        self._buffer = frames.pop()
        if len(self._buffer) > self._frame_bytes_max:
            raise TransientError(
                "engine_unavailable",
                f"The engine sent a frame of more than {self._frame_bytes_max} bytes.",
            )
        payloads = []
        for frame in frames:
            is_plain = frame.startswith(b"data: ") and b"\n" not in frame
            if payload := frame[6:] if is_plain else _read_payload(frame):
                payloads.append(payload)
        return payloads


def _read_payload(frame: bytes) -> bytes:
    """What its `data` lines hold; most frames are one such line, and are not read here."""
    lines = (line for line in frame.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)
