"""The recorder, how both sides reach it, and what its roots are held to."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any, TypeVar

import msgspec

from chaos.machine.disk import ChaosDatabase
from chaos.machine.network import ChaosTransport, Network
from chaos.market.components import Component, Listener, close_files
from chaos.world import World, get_key
from hanse.chain import Rpc
from hanse.protocol.errors import TransientError, VerificationError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.records.proofs import Leaf, get_record_root
from hanse.protocol.signatures import to_hex
from hanse.recorder import RecorderProcess, RecorderSettings
from hanse.sdk.transport import read_body
from hanse.settlement.records.recorder_client import ANSWER_S, HttpRecorderClient, _to_error
from hanse.settlement.records.sides import Seams
from hanse.settlement.records.submitter import RecordsSettings

URL = "http://recorder"

RECORDS = RecordsSettings(
    recorders=(URL,), interval_s=3.0, unreachable_s=30.0, unmatched_s=60.0, resume_s=10.0
)

PROMISE_BLOCKS = 600
"""So late that only a defect breaks a promise, not a chain that holds transactions back."""

_T = TypeVar("_T")


class ChaosRecorderClient(HttpRecorderClient):
    """The real client, with its one exchange over the world's network."""

    def __init__(self, network: Network) -> None:
        self._transport = ChaosTransport(network)

    async def close(self) -> None:
        """See `RecorderClient`."""

    async def _ask(self, url: str, method: str, path: str, body: bytes, kind: type[_T]) -> _T:
        try:
            async with asyncio.timeout(ANSWER_S):
                response = await self._transport.send(
                    method, url + path, {}, body, silence_s=ANSWER_S
                )
                try:
                    content = await read_body(response, 10_000_000)
                finally:
                    response.close()
        except (TransientError, TimeoutError) as error:
            raise TransientError("recorder_unreachable", f"recorder {url}: {error}") from None
        if response.status != 200:
            raise _to_error(url, response.status, content)
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise VerificationError("response_malformed", f"recorder {url}: {error}") from None


def open_record_seams(component: Component) -> Seams:
    """How a component's submitter reaches recorders, and its clock."""
    return ChaosRecorderClient(component.world.network), component.get_time_s


class RecorderComponent(Component):
    """The recorder that all share."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "recorder")
        self.key = get_key("recorder")

    async def main(self) -> None:
        """See `Component`."""
        settings = RecorderSettings(
            data_dir=self.folder,
            rpc_url="",
            deployment=self.world.deployment,
            interval_blocks=5,
            promise_blocks=PROMISE_BLOCKS,
        )
        recorder = await _make_class(self).start(settings, self.key, now_s=self.get_time_s)
        self.world.note("recorder serves")
        await asyncio.wait([recorder.failed])
        error = recorder.failed.exception()
        await recorder.stop()
        assert error is not None
        raise error

    def _on_death(self) -> None:
        super()._on_death()
        close_files(self.folder / "recorder.lock")


def _make_class(component: RecorderComponent) -> type[RecorderProcess]:
    class ChaosRecorder(RecorderProcess):
        monotonic = staticmethod(component.world.loop.time)

        async def _open_database(self) -> ChaosDatabase:
            return component.open_database()

        def _connect(self) -> Rpc:
            return component.connect()

        def _bind(self) -> Any:
            return Listener(component.world, URL)

    return ChaosRecorder


def list_open_records(recorder: RecorderComponent, sides: Sequence[Component]) -> list[str]:
    """What is not recorded yet, in words."""
    found = []
    tables = {"broker": "receipt_requests WHERE sequence IS NOT NULL"}
    for side in sides:
        table = tables.get(side.name.partition("-")[0], "voucher_receipts")
        (receipts,) = _read(side, f"SELECT COUNT(*) FROM {table}")[0]  # noqa: S608 (ours)
        (recorded,) = _read(side, "SELECT COUNT(*) FROM record_submitted WHERE state = 'recorded'")[
            0
        ]
        if recorded != receipts:
            states = _read(side, "SELECT state, reason, COUNT(*) FROM record_submitted GROUP BY 1")
            found.append(f"{side.name}: {recorded} of {receipts} receipts recorded, {states}")
    (waiting,) = _read(recorder, "SELECT COUNT(*) FROM record_leaves WHERE commit_number IS NULL")[
        0
    ]
    if waiting:
        found.append(f"recorder: {waiting} leaves in no commit")
    return found


def verify_records(
    world: World,
    recorder: RecorderComponent,
    roots: Sequence[tuple[str, str, int, int]],
    shared: Sequence[SignedReceipt],
) -> None:
    """Roots on chain against the recorder's leaves, and those against what both sides hold."""
    commits = _read(recorder, "SELECT number, root, leaves, fee_total FROM record_commits")
    made = sorted((int(n), root, int(count), int(fee)) for n, root, count, fee in commits)
    on_chain = [
        (number, root, count, fee)
        for number, (_, root, count, fee) in enumerate(
            (item for item in roots if item[0] == recorder.key.address), 1
        )
    ]
    if made != on_chain:
        world.violate(f"the recorder made commits {made[-3:]}, on chain are {on_chain[-3:]}")
    held = {
        (r.user, r.provider, r.signer, r.sequence): to_hex(world.domain.digest(r.struct_hash()))
        for r in (signed.receipt for signed in shared)
    }
    world.tallies["commits"] = len(made)
    for number, root, count, fee_total in made:
        rows = _read(
            recorder,
            "SELECT user_address, provider, signer, sequence, receipt_digest, fee, "
            "user_trace_hash, provider_trace_hash FROM record_leaves WHERE commit_number = ?",
            (number,),
        )
        leaves = [Leaf(tuple(row[:4]), row[4], int(row[5]), *row[6:]) for row in rows]
        found = (to_hex(get_record_root(leaves)), len(leaves), sum(leaf.fee for leaf in leaves))
        if found != (root, count, fee_total):
            world.violate(f"commit {number} is {(root, count, fee_total)}, its leaves {found}")
        for row in rows:
            if held.get(tuple(row[:4])) != row[4]:
                world.violate(f"commit {number} holds a receipt that is unmatched: {row[:5]}")
        world.tallies["receipts recorded"] += len(rows)


def _read(component: Component, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
    path = f"file:{component.disk.path}?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as database:
        return database.execute(statement, values).fetchall()
