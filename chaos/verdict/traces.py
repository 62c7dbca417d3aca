"""Traces after a run: every note against the store, its key, the receipt and the records."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from chaos.market.buyers import UserComponent
from chaos.market.components import Component
from chaos.market.recording import RecorderComponent
from chaos.market.sellers import BrokerComponent
from chaos.market.tracing import get_trace_key
from chaos.world import World, get_key
from hanse.protocol.errors import HanseError
from hanse.protocol.signatures import ZERO_HASH
from hanse.settlement.traces.bundle import open_trace
from hanse.settlement.traces.checking import check_trace
from hanse.settlement.traces.document import hash_object
from hanse.settlement.traces.notes import SealedKey


def verify_traces(
    world: World,
    brokers: Sequence[BrokerComponent],
    users: Sequence[UserComponent],
    recorder: RecorderComponent,
) -> None:
    """Check all; violations go to the world."""
    noted: set[str] = set()
    at: dict[tuple[Any, ...], str] = {}
    keeping = [("user", user) for user in users if user.has_traces]
    for side, component in [*keeping, *(("provider", b) for b in brokers if b.has_traces)]:
        for row in _read(
            component,
            "SELECT user_address, provider, signer, sequence, trace_hash, state, has_object "
            "FROM traces",
        ):
            trace_hash, state, has_object = row[4:]
            at[side, *row[:4]] = trace_hash
            world.tallies[f"traces {state}"] += 1
            if has_object:
                noted.add(trace_hash)
            if state == "stored":
                _verify_stored(world, component, brokers, trace_hash, row[1])
    for left in sorted(world.objects.keys() - noted):
        world.violate(f"an object that no note knows is left in the store: {left}")
    for row in _read(
        recorder,
        "SELECT user_address, provider, signer, sequence, user_trace_hash, provider_trace_hash "
        "FROM record_leaves",
    ):
        for side, trace_hash in (("user", row[4]), ("provider", row[5])):
            if trace_hash not in (ZERO_HASH, at.get((side, *row[:4]))):
                world.violate(f"a leaf of {row[:4]} names a trace of the {side}'s that is none")
            world.tallies["leaves with a trace"] += trace_hash != ZERO_HASH


def _verify_stored(
    world: World,
    component: Component,
    brokers: Sequence[BrokerComponent],
    trace_hash: str,
    provider: str,
) -> None:
    content = world.objects.get(trace_hash)
    if content is None or hash_object(content) != trace_hash:
        world.violate(f"{component.name}: trace {trace_hash} is stored and not there")
        return
    keys = [
        SealedKey(recipient, public, bytes.fromhex(sealed))
        for recipient, public, sealed in _read(
            component,
            "SELECT recipient, public_key, sealed FROM trace_keys WHERE trace_hash = ?",
            (trace_hash,),
        )
    ]
    (role,) = [broker.role for broker in brokers if broker.owner.address == provider]
    try:
        trace = open_trace(content, trace_hash, keys, get_trace_key(component.role))
        check_trace(trace, world.domain, get_key(f"{role} receipts").address)
    except HanseError as error:
        world.violate(f"{component.name}: trace {trace_hash}: {error.message}")


def _read(component: Component, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
    path = f"file:{component.disk.path}?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as database:
        return database.execute(statement, values).fetchall()
