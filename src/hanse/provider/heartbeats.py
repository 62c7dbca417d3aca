"""Heartbeats: what each service of this broker can take now, signed by the receipt key.

Anybody may ask, so a new one is made at most once in `HEARTBEAT_EVERY_S`, when somebody asks;
whoever asks more often gets the same again.

Source: `docs/protocol.md`, section "Heartbeats".
"""

import asyncio
from typing import Any

from hanse.protocol.messages import Heartbeat, SignedHeartbeat
from hanse.protocol.wire import heartbeat_to_json
from hanse.provider.finishing import ServingParts
from hanse.provider.offers import Service, list_engines
from hanse.provider.slots import Slots

HEARTBEAT_EVERY_S = 1.0
"""A signature and a look at the engine a second: nothing, and newer than any reader asks for."""


class Heartbeats:
    """Makes them, one a service."""

    def __init__(self, parts: ServingParts, slots: Slots) -> None:
        self._parts = parts
        self._slots = slots
        self._made_at = -HEARTBEAT_EVERY_S
        self._sent_at_ms = 0
        self._newest: list[dict[str, Any]] = []
        self._lock = asyncio.Lock()

    async def get_newest(self) -> list[dict[str, Any]]:
        """The newest heartbeat of every service on offer, as JSON."""
        async with self._lock:
            now = self._parts.monotonic()
            if now >= self._made_at + HEARTBEAT_EVERY_S:
                self._made_at = now
                self._newest = await self._make()
            return self._newest

    async def _make(self) -> list[dict[str, Any]]:
        services = [offer.service for offer in self._parts.offers.list_current()]
        engines = list_engines(services)
        healthy = await asyncio.gather(*(engine.healthy() for engine in engines))
        warm = {
            id(engine) for engine, is_healthy in zip(engines, healthy, strict=True) if is_healthy
        }
        # it must rise, also where the clock is set back
        self._sent_at_ms = max(self._sent_at_ms + 1, int(self._parts.now_s() * 1_000))
        return [self._sign(service, id(service.engine) in warm) for service in services]

    def _sign(self, service: Service, is_warm: bool) -> dict[str, Any]:
        parts, taken = self._parts, self._slots.get_taken(service.service_id)
        slots = max(1, service.engine.capabilities.parallel)
        queued = max(0, taken - slots)
        heartbeat = Heartbeat(
            provider=parts.provider,
            service_id=service.service_id,
            sent_at_ms=self._sent_at_ms,
            slots=slots,
            free_slots=max(0, slots - taken),
            queued=queued,
            queue_free=max(0, parts.limits.queue_max - queued),
            is_warm=is_warm,
        )
        digest = parts.domain.digest(heartbeat.struct_hash())
        return heartbeat_to_json(
            SignedHeartbeat(heartbeat, parts.book.receipt_key.sign_digest(digest))
        )
