"""Signed heartbeats as JSON, as brokers serve them and the user's side reads them.

The same bytes could be pushed to whoever listens: a heartbeat needs no answer, names its service,
and is judged by its signature and `sent_at_ms` alone.

Source: `docs/protocol.md`, section "Heartbeats".
"""

from typing import Any

import msgspec

from hanse.protocol.errors import HanseError, VerificationError
from hanse.protocol.limits import HEARTBEAT_COUNT_MAX, SEQUENCE_MAX
from hanse.protocol.messages import Heartbeat, SignedHeartbeat
from hanse.protocol.signatures import parse_address
from hanse.protocol.wire.fields import (
    TIME_MAX,
    WIRE_VERSION,
    check_range,
    check_version,
    convert_json,
)

HEARTBEATS_PATH = "/hanse/v1/heartbeats"


class _HeartbeatWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    provider: str
    service_id: int
    sent_at_ms: int
    slots: int
    free_slots: int
    queued: int
    queue_free: int
    is_warm: bool
    signature: str


def heartbeat_to_json(signed: SignedHeartbeat) -> dict[str, Any]:
    """A signed heartbeat as a JSON-ready dict."""
    data: dict[str, Any] = msgspec.to_builtins(signed.heartbeat)
    return {"v": WIRE_VERSION, **data, "signature": signed.signature}


def heartbeat_from_json(data: object) -> SignedHeartbeat:
    """Read a signed heartbeat from decoded JSON; its signature is still unchecked.

    Raises:
        VerificationError: `heartbeat_invalid`, naming what is wrong.
    """
    try:
        w = convert_json(data, _HeartbeatWire)
        check_version(w.v)
        slots = check_range(w.slots, HEARTBEAT_COUNT_MAX, "slots", least=1)
        heartbeat = Heartbeat(
            provider=parse_address(w.provider, "provider"),
            service_id=check_range(w.service_id, SEQUENCE_MAX, "service_id"),
            sent_at_ms=check_range(w.sent_at_ms, 1_000 * TIME_MAX, "sent_at_ms"),
            slots=slots,
            free_slots=check_range(w.free_slots, slots, "free_slots"),
            queued=check_range(w.queued, HEARTBEAT_COUNT_MAX, "queued"),
            queue_free=check_range(w.queue_free, HEARTBEAT_COUNT_MAX, "queue_free"),
            is_warm=w.is_warm,
        )
    except HanseError as error:
        raise VerificationError("heartbeat_invalid", f"heartbeat: {error}") from None
    return SignedHeartbeat(heartbeat, w.signature)
