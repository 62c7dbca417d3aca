"""An answer's bytes under a key that only the caller holds.

The broker keeps an answer until the caller acknowledges its receipt, so that a caller that crashed
can still get what it paid for. The key comes in the voucher header and is never stored, so neither
the broker's disk nor a later look at its memory shows the answer.

    sealed = nonce (12 bytes) || AES-256-GCM(answer_key, nonce, answer, associated data)

The associated data is the request id's 32 bytes. A key is used once, for one request, by rule of
the caller; a random nonce keeps it safe all the same.

Source: `docs/protocol.md`, section "Resume"; NIST SP 800-38D.
"""

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanse.protocol.limits import ANSWER_RETAINED_BYTES_MAX
from hanse.protocol.signatures import Hash32, to_bytes

NONCE_BYTES = 12


def seal_answer(
    answer_key: bytes,
    request_id: Hash32,
    answer: bytes,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Seal the last `ANSWER_RETAINED_BYTES_MAX` bytes of an answer."""
    nonce = random_bytes(NONCE_BYTES)
    kept = answer[-ANSWER_RETAINED_BYTES_MAX:]
    return nonce + AESGCM(answer_key).encrypt(nonce, kept, to_bytes(request_id))


class AnswerTail:
    """The last bytes of a stream, at most about twice `ANSWER_RETAINED_BYTES_MAX` of memory."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, part: bytes) -> None:
        """Add bytes as they were sent."""
        self._parts.append(part)
        self._length += len(part)
        if self._length > 2 * ANSWER_RETAINED_BYTES_MAX:
            kept = self.get_bytes()
            self._parts, self._length = [kept], len(kept)

    def get_bytes(self) -> bytes:
        """The end of what was added."""
        return b"".join(self._parts)[-ANSWER_RETAINED_BYTES_MAX:]
