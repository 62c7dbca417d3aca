"""Hashes over what travels: request bodies, response bytes, model files.

SHA-256, because every language and every browser has it. `ResponseHasher` takes a stream's frames
as they pass.

Source: `docs/protocol.md`, sections "Signed messages" and "Streams".
"""

import hashlib

from hanse.protocol.signatures import Hash32

DONE_FRAME = b"data: [DONE]\n\n"
"""The frame that ends an OpenAI stream; part of the hash where it was sent."""

EMPTY_RESPONSE_HASH: Hash32 = "0x" + hashlib.sha256(b"").hexdigest()
"""The response hash of an answer of which nothing was sent."""


def hash_body(path: str, body: bytes) -> Hash32:
    """The body hash of a request: SHA-256 over `POST `, the path, a line feed and the body.

    The path is inside so that a voucher for one operation cannot buy another with the same body.
    """
    digest = hashlib.sha256(b"POST " + path.encode() + b"\n")
    digest.update(body)
    return "0x" + digest.hexdigest()


def hash_response(body: bytes) -> Hash32:
    """The response hash of a whole answer."""
    return "0x" + hashlib.sha256(body).hexdigest()


class ResponseHasher:
    """The running response hash of a stream.

    `update` takes complete `data:` frames, blank line included; comment frames (keep-alives, the
    receipt) stay outside.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.length_bytes = 0

    def update(self, frame: bytes) -> None:
        """Add one data frame, exactly as sent or received."""
        self._digest.update(frame)
        self.length_bytes += len(frame)

    def get_hash(self) -> Hash32:
        """The hash over all frames so far; more may follow."""
        return "0x" + self._digest.hexdigest()
