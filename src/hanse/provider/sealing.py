"""An answer's bytes under a key that only the caller holds.

The broker keeps an answer until the caller acknowledges its receipt, so that a caller that crashed
can still get what it paid for. The key comes in the voucher header and is never stored, so neither
the broker's disk nor a later look at its memory shows the answer.

    sealed = nonce (12 bytes) || AES-256-GCM(answer_key, nonce, answer, associated data)

The associated data is the request id's 32 bytes. A request is sealed once, and the nonce is a hash
of its id, so key and nonce meet once even if a careless caller sends one key with several requests.

Source: `docs/protocol.md`, section "Resume"; NIST SP 800-38D.
"""

import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanse.protocol.limits import ANSWER_RETAINED_BYTES_MAX
from hanse.protocol.signatures import Hash32

NONCE_BYTES = 12

UNHASHED_BYTES_MAX = 256 * 1024
"""Sent bytes that wait to be hashed together: one call for hundreds of small frames."""


def seal_answer(answer_key: bytes, request_id: Hash32, answer: bytes) -> bytes:
    """Seal the last `ANSWER_RETAINED_BYTES_MAX` bytes of an answer."""
    data = bytes.fromhex(request_id[2:])
    nonce = hashlib.sha256(b"hanse answer nonce" + data).digest()[:NONCE_BYTES]
    kept = answer[-ANSWER_RETAINED_BYTES_MAX:]
    return nonce + AESGCM(answer_key).encrypt(nonce, kept, data)


class SentBytes:
    """What a stream has sent: its response hash, and its end for keeping.

    Frames are small and many, so they are hashed together once enough have come. Holds about 1.5
    times `ANSWER_RETAINED_BYTES_MAX` at most. `on_sent` is given all of it, in order and in pieces,
    by the time that its hash was asked for.
    """

    def __init__(self, on_sent: Callable[[bytes], None] | None = None) -> None:
        self._on_sent = on_sent
        self._digest = hashlib.sha256()
        self._new: list[bytes] = []
        self._new_bytes = 0
        self._kept = b""

    def add(self, frames: bytes) -> None:
        """Add whole data frames, exactly as sent."""
        self._new.append(frames)
        self._new_bytes += len(frames)
        if self._new_bytes > UNHASHED_BYTES_MAX:
            self._fold()

    def get_hash_and_tail(self) -> tuple[Hash32, bytes]:
        """The response hash so far, and the last bytes, at most `ANSWER_RETAINED_BYTES_MAX`."""
        self._fold()
        return "0x" + self._digest.hexdigest(), self._kept

    def _fold(self) -> None:
        new = b"".join(self._new)
        self._new.clear()
        self._new_bytes = 0
        self._digest.update(new)
        if self._on_sent is not None and new:
            self._on_sent(new)
        self._kept = (self._kept + new)[-ANSWER_RETAINED_BYTES_MAX:]
