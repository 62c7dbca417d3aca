"""Heartbeats: what a broker says of one service now, so that gateways know whom to ask.

Source: `docs/protocol.md`, sections "Signed messages" and "Heartbeats".
"""

from typing import ClassVar

import msgspec

from hanse.protocol.eip712 import address_word, uint_word
from hanse.protocol.signatures import Address, Signature, keccak


class Heartbeat(msgspec.Struct, frozen=True):
    """How busy one service is. A claim of its provider's, bound by nothing but its signature.

    Attributes:
        provider: the provider's (owner's) address.
        service_id: which of its services.
        sent_at_ms: unix milliseconds by the provider's clock. It rises with every heartbeat of a
            service, so it is the sequence against replays too.
        slots: requests that the engine runs at once.
        free_slots: of these, how many are free.
        queued: admitted requests that wait for a slot.
        queue_free: how many more may wait before the broker refuses.
        is_warm: whether the model is loaded and its engine answers.
    """

    TYPE: ClassVar[str] = (
        "Heartbeat(address provider,uint256 serviceId,uint256 sentAtMs,uint256 slots,"
        "uint256 freeSlots,uint256 queued,uint256 queueFree,bool isWarm)"
    )

    provider: Address
    service_id: int
    sent_at_ms: int
    slots: int
    free_slots: int
    queued: int
    queue_free: int
    is_warm: bool

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields."""
        return keccak(
            b"".join(
                (
                    _HEARTBEAT_TYPEHASH,
                    address_word(self.provider),
                    uint_word(self.service_id),
                    uint_word(self.sent_at_ms),
                    uint_word(self.slots),
                    uint_word(self.free_slots),
                    uint_word(self.queued),
                    uint_word(self.queue_free),
                    uint_word(self.is_warm),
                )
            )
        )


class SignedHeartbeat(msgspec.Struct, frozen=True):
    """A heartbeat and its receipt key's signature."""

    heartbeat: Heartbeat
    signature: Signature


_HEARTBEAT_TYPEHASH = keccak(Heartbeat.TYPE.encode())
