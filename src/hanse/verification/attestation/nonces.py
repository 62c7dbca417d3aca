"""Nonces of the verifier: issued here, good for two minutes, and for one attestation.

A quote that binds a nonce of ours was made after we issued it. Without that a broker could show the
quote of a machine that has long been switched off or taken apart.
"""

from collections.abc import Callable

from hanse.protocol.attestation.binding import NONCE_BYTES
from hanse.protocol.errors import TransientError, VerificationError
from hanse.protocol.signatures import Hash32, to_hex

NONCE_LIFETIME_S = 120.0
"""A quote takes milliseconds, a GPU's token some seconds; a slow broker has its chance."""

NONCES_MAX = 65_536
"""Issued within their lifetime: more would be an endless loop of asking."""


class NonceBook:
    """See the module. In memory: after a restart every earlier nonce is unknown, which is safe."""

    def __init__(
        self,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        lifetime_s: float = NONCE_LIFETIME_S,
    ) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._lifetime_s = lifetime_s
        self._issued: dict[Hash32, float] = {}  # in the order of their issue
        self._used: set[Hash32] = set()

    def issue(self) -> Hash32:
        """A fresh nonce.

        Raises:
            TransientError: `overloaded` if too many are open.
        """
        nonce = to_hex(self._random_bytes(NONCE_BYTES))
        self.adopt(nonce)
        return nonce

    def adopt(self, nonce: Hash32) -> None:
        """Take a nonce that this side made elsewhere, as issued now.

        Whoever calls this vouches for it: that it was random, and never used before.
        """
        self._sweep()
        if len(self._issued) >= NONCES_MAX:
            raise TransientError("overloaded", f"{NONCES_MAX} nonces are open", retry_after_s=1.0)
        self._issued[nonce] = self._clock()

    def redeem(self, nonce: Hash32) -> None:
        """Use a nonce up, whatever becomes of the attestation.

        Raises:
            VerificationError: `attestation_nonce_unknown`, `attestation_nonce_expired`,
                `attestation_nonce_used`.
        """
        issued_at = self._issued.get(nonce)
        if issued_at is None:
            raise VerificationError(
                "attestation_nonce_unknown", f"the nonce {nonce} was not issued here, or long ago"
            )
        age_s = self._clock() - issued_at
        if age_s > self._lifetime_s:
            raise VerificationError(
                "attestation_nonce_expired",
                f"the nonce {nonce} is {age_s:.0f} s old, at most {self._lifetime_s:.0f} count",
            )
        if nonce in self._used:
            raise VerificationError("attestation_nonce_used", f"the nonce {nonce} was used before")
        self._used.add(nonce)

    def _sweep(self) -> None:
        """Forget what expired a lifetime ago: until then it is told apart from what never was."""
        until = self._clock() - 2 * self._lifetime_s
        gone = []
        for nonce, issued_at in self._issued.items():  # oldest first
            if issued_at >= until:
                break
            gone.append(nonce)
        for nonce in gone:
            del self._issued[nonce]
            self._used.discard(nonce)
