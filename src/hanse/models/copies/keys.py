"""Keys of copies, and the randomness that is drawn from them: the same on every machine.

    copy key = HKDF-SHA256(master, info = "hanse copy 1" || base root || provider || epoch u64)
    stream   = ChaCha20(key = HMAC-SHA256(copy key, label), counter and nonce zero), as a keystream

All draws read little-endian 64-bit words from the stream and use integer steps or operations that
IEEE 754 rounds exactly (+, -, *, /). No logarithm, no sine, no BLAS, no generator of numpy: those
differ between versions and processors, and a copy has to be the same wherever it is made.

Source: RFC 5869 (HKDF), RFC 8439 (ChaCha20); decision 30.
"""

import hashlib
import hmac
from typing import TYPE_CHECKING

from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Address, Hash32, to_bytes, to_hex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INFO = b"hanse copy 1"
"""The first bytes of HKDF's info; a new recipe takes a new number."""

COMMITMENT_TAG = b"hanse copy key 1"
"""Before the key in the hash that commits to it."""

KEY_BYTES = 32
"""Of master and copy keys."""

EPOCH_MAX = 2**64 - 1
"""An epoch is eight bytes of the info."""


def derive_copy_key(master: bytes, base_root: Hash32, provider: Address, epoch: int) -> bytes:
    """The key of one provider's copy of one model in one epoch.

    Args:
        master: 32 secret bytes, of whoever hands out copies and audits them.
        base_root: root of the base model's manifest.
        provider: whom the copy is for.
        epoch: 0, 1, 2 ...: a provider can be given a new copy.

    Raises:
        RequestError: `usage`, the master is not 32 bytes long or the epoch does not fit.
    """
    if len(master) != KEY_BYTES:
        raise RequestError("usage", f"a master key has {KEY_BYTES} bytes, not {len(master)}")
    if not 0 <= epoch <= EPOCH_MAX:
        raise RequestError("usage", f"an epoch is 0 to {EPOCH_MAX}, not {epoch}")
    info = INFO + to_bytes(base_root) + to_bytes(provider) + epoch.to_bytes(8, "big")
    extracted = hmac.digest(bytes(KEY_BYTES), master, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def commit_to_key(copy_key: bytes) -> Hash32:
    """The hash by which a copy's description binds its key without telling it."""
    return to_hex(hashlib.sha256(COMMITMENT_TAG + copy_key).digest())


class KeyStream:
    """An endless stream of words under one label of one key. Draws follow each other."""

    def __init__(self, copy_key: bytes, label: str) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        key = hmac.digest(copy_key, label.encode(), "sha256")
        self._cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def draw_words(self, count: int) -> "NDArray[np.uint64]":
        """The next `count` words, each uniform in 0 .. 2**64 - 1."""
        import numpy as np

        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype="<u8").astype(np.uint64)

    def draw_permutation(self, count: int) -> "NDArray[np.int64]":
        """An order of `count` things: the stable order of as many words."""
        import numpy as np

        return np.argsort(self.draw_words(count), kind="stable").astype(np.int64)

    def draw_signs(self, count: int) -> "NDArray[np.float32]":
        """`count` times +1 or -1, by the top bit of a word."""
        import numpy as np

        odd = (self.draw_words(count) >> np.uint64(63)).astype(np.float32)
        return np.float32(1) - np.float32(2) * odd

    def draw_turns(self, count: int) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
        """Cosines and sines of `count` angles from the whole circle.

        A point of the unit circle by t in [-1, 1): ((1 - t^2) / (1 + t^2), 2t / (1 + t^2)) covers
        its right half, and a sign chooses the half. The angle is not exactly uniform (its density
        varies by a factor of 2), which nothing here needs; that it is exact does matter.
        """
        import numpy as np

        words = self.draw_words(count)
        sign = np.float64(1) - np.float64(2) * (words & np.uint64(1)).astype(np.float64)
        t = (words >> np.uint64(11)).astype(np.float64) / np.float64(2**52) - np.float64(1)
        squared = t * t
        whole = np.float64(1) + squared
        cosine = sign * ((np.float64(1) - squared) / whole)
        sine = sign * ((t + t) / whole)
        return cosine.astype(np.float32), sine.astype(np.float32)
