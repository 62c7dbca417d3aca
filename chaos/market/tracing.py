"""Traces in a run: one store that every side reaches, which refuses at times, or acts and refuses.

    writer = await open_chaos_traces(component, database, Side.PROVIDER)

The gateway and the shared broker keep traces, the other user and broker none, so that records hold
leaves of all four kinds. The writer is the real one; the store is a dictionary of the world's.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chaos.market.components import Component
from hanse.protocol.errors import TransientError
from hanse.protocol.signatures import Hash32, keccak
from hanse.settlement.traces.capture import TraceLimits, TraceSettings
from hanse.settlement.traces.document import Side, hash_object
from hanse.settlement.traces.notes import open_trace_notes
from hanse.settlement.traces.object_store import ObjectStore
from hanse.settlement.traces.sealing import get_public_key
from hanse.settlement.traces.writer import TraceWriter
from hanse.store.database import Database

LOCATION = "chaos"

LIMITS = TraceLimits(pauses_s=(0.5, 2.0), drain_s=2.0, pending_s=30, sweep_interval_s=15.0)


class ChaosObjectStore(ObjectStore):
    """The world's objects over the world's network."""

    def __init__(self, component: Component) -> None:
        self.location = LOCATION
        self._world = component.world

    async def put(self, content: bytes) -> Hash32:
        """See `ObjectStore`."""
        name = hash_object(content)
        await self._reach()
        self._world.objects[name] = content
        if self._world.network.happens("lost"):
            raise TransientError("store_unavailable", "the chaos store broke off after it acted")
        return name

    async def has(self, name: Hash32, length_bytes: int) -> bool:
        """See `ObjectStore`."""
        await self._reach()
        return len(self._world.objects.get(name, b"")) == length_bytes

    async def delete(self, name: Hash32) -> None:
        """See `ObjectStore`."""
        await self._reach()
        self._world.objects.pop(name, None)

    async def _reach(self) -> None:
        await asyncio.sleep(self._world.network.get_wait_s())
        if self._world.network.happens("refused"):
            raise TransientError("store_unavailable", "the chaos store refuses")


async def open_chaos_traces(component: Component, database: Database, side: Side) -> TraceWriter:
    """A component's writer; not yet at work."""
    return TraceWriter(
        get_trace_settings(component),
        await open_trace_notes(database),
        ChaosObjectStore(component),
        side,
        component.get_time_s,
        random_bytes=component.lot.randbytes,
    )


def get_trace_settings(component: Component) -> TraceSettings:
    """To its role's key, kept for ever."""
    key = get_public_key(get_trace_key(component.role))
    return TraceSettings(LOCATION, key, days=0, limits=LIMITS)


def get_trace_key(role: str) -> X25519PrivateKey:
    """What opens a role's traces."""
    return X25519PrivateKey.from_private_bytes(keccak(f"chaos traces {role}".encode()))


def list_open_traces(sides: Sequence[Component]) -> list[str]:
    """What is not stored or given up yet, in words."""
    found = []
    for side in sides:
        with closing(sqlite3.connect(f"file:{side.disk.path}?mode=ro", uri=True)) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'traces'").fetchone():
                ((count,),) = database.execute(
                    "SELECT COUNT(*) FROM traces WHERE state = 'pending' "
                    "OR (state = 'lost' AND has_object = 1)"
                ).fetchall()
                found += [f"{side.name}: {count} traces open"] if count else []
    return found
