r"""Bytes of a stream to SSE frames, whole and untouched.

    splitter = FrameSplitter()
    for frame in splitter.feed(chunk): ...     # each ends with its blank line

A frame may arrive in pieces, cut anywhere, also inside its line ends, which are \n or \r\n.
Nothing is decoded and nothing rewritten: the response hash is over exactly these bytes.

Source: WHATWG HTML, "Server-sent events"; `docs/protocol.md`, section "Signed messages".
"""

from hanse.protocol.errors import VerificationError
from hanse.protocol.limits import FRAME_BYTES_MAX
from hanse.protocol.wire.frames import BLANK_LINE

_LONGEST_END = 4


class FrameSplitter:
    """Splits one stream.

    Attributes:
        is_plain: whether each frame that `feed` gave last is certainly of one line.
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.is_plain = False
        self._max = frame_bytes_max
        self._rest = bytearray()
        self._searched = 0

    @property
    def rest_bytes(self) -> int:
        """Bytes of a frame that has not ended; 0 at a clean end."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames that `chunk` completes.

        Raises:
            VerificationError: `response_malformed` if one is longer than the limit.
        """
        if not self._rest and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            line_ends = chunk.count(b"\n")
            if line_ends == 2 and len(chunk) <= self._max:  # one frame, as most chunks are
                self.is_plain = True
                return [chunk]
            frames = [part + b"\n\n" for part in chunk[:-2].split(b"\n\n")]
            self.is_plain = line_ends == 2 * len(frames)  # none has any but its last two
        else:
            frames = self._feed_slowly(chunk)
            self.is_plain = False
        longest = max(map(len, frames), default=0)
        if longest > self._max or len(self._rest) > self._max:
            raise VerificationError(
                "response_malformed",
                f"a frame has {max(longest, len(self._rest))} bytes or more, at most {self._max}",
            )
        return frames

    def _feed_slowly(self, chunk: bytes) -> list[bytes]:
        rest = self._rest
        rest += chunk
        frames: list[bytes] = []
        start = 0
        search_from = max(0, self._searched - _LONGEST_END)
        while found := BLANK_LINE.search(rest, search_from):
            frames.append(bytes(rest[start : found.end()]))
            start = search_from = found.end()
        del rest[:start]
        self._searched = len(rest)
        return frames


def is_data(frame: bytes) -> bool:
    """Whether it is a data frame, of one line; False for comments and for blank lines.

    Raises:
        VerificationError: `response_malformed` for anything else: only these two kinds are covered
            by the protocol, and a client would understand more than was hashed.
    """
    line = frame.rstrip(b"\r\n")
    if b"\n" not in line and b"\r" not in line:  # of one line, as nearly all are
        if line.startswith(b"data:"):
            return True
        if not line or line.startswith(b":"):
            return False
    elif line.startswith(b"data:"):
        raise VerificationError("response_malformed", "a data frame has more than one line")
    elif all(not line or line.startswith(b":") for line in frame.splitlines()):
        return False
    raise VerificationError("response_malformed", "a stream may hold data frames and comments only")
