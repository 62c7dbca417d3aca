"""Whose machines were verified, until when, and why others were not.

| state of a receipt key | event | next |
| --- | --- | --- |
| unverified | its attestation verifies | verified, until a time |
| verified | that time passes | unverified |
| any | its attestation is refused | refused, until one verifies |

An offer of class `tee` is chosen only while its provider's receipt key is verified. Nothing else
can put it in: an offer whose machine nobody looked at is out.

What is written here was verified elsewhere (`hanse.sdk.attesting`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from hanse.market.offers import ListedOffer
from hanse.protocol.signatures import Address

TEE = "tee"
"""The class of offers that this is about."""

UNVERIFIED = (
    "its machine has not been verified; that takes an attestation policy (`hanse attest policy`)"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the last look at a machine came to: verified until a time, or why not."""

    valid_until: float
    image: str = ""
    reason: str = ""


class AttestedBook:
    """Standings by provider and receipt key, in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._standings: dict[tuple[Address, Address], Standing] = {}
        self._on_change: Callable[[Address], None] = _ignore

    def watch(self, on_change: Callable[[Address], None]) -> None:
        """Call this after each change of a provider."""
        self._on_change = on_change

    def verify_until(
        self, provider: Address, receipt_key: Address, image: str, valid_until: float
    ) -> None:
        """Its attestation was verified and counts until then."""
        self._standings[provider, receipt_key] = Standing(valid_until, image)
        self._on_change(provider)

    def refuse(self, provider: Address, receipt_key: Address, reason: str) -> None:
        """Its attestation was refused: it is out until one is verified."""
        self._standings[provider, receipt_key] = Standing(0.0, reason=reason)
        self._on_change(provider)

    def find(self, provider: Address, receipt_key: Address) -> Standing | None:
        """The last standing; None if nobody looked."""
        return self._standings.get((provider, receipt_key))

    def find_problem(self, listed: ListedOffer) -> str:
        """Why an offer may not be chosen; empty if it may, or is of another class."""
        if listed.offer.verifiability != TEE:
            return ""
        standing = self.find(listed.provider, listed.receipt_key)
        if standing is None:
            return UNVERIFIED
        if standing.reason:
            return standing.reason
        if standing.valid_until <= self._clock():
            return "its machine's last verification is too old"
        return ""


def _ignore(provider: Address) -> None:
    """Nobody watches."""
