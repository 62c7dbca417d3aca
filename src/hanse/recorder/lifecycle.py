"""A recorder from its settings to its end: database, chain, server, commit loop.

Start: check the book against the chain, serve, commit. Stop: close the listener, end the loops. A
commit that is under way goes on at the next start, as after a crash.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from hanse.chain import Key, Rpc
from hanse.chain.deployment import open_contracts, open_records, verify_deployment
from hanse.chain.outbox import Outbox
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError
from hanse.recorder.app import Recorder
from hanse.recorder.book import RecorderBook, open_recorder_book
from hanse.recorder.committer import Committer, no_failpoint
from hanse.recorder.metrics import RecorderMetrics
from hanse.recorder.parties import ChainParties, Parties
from hanse.recorder.settings import RecorderSettings
from hanse.serving import HttpServer, ServingProcess, run_until_signal
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.store import Database, hold_folder, open_database

DATABASE_NAME = "recorder.sqlite3"

SWEEP_S = 600.0
"""Between looks at entries that waited too long."""

_log = logging.getLogger(__name__)


class RecorderProcess(ServingProcess):
    """A running recorder. Make one with `start`, end it with `stop`."""

    def __init__(self, settings: RecorderSettings) -> None:
        super().__init__("recorder")
        self.settings = settings
        self.recorder: Recorder
        self.book: RecorderBook
        self.committer: Committer

    @classmethod
    async def start(
        cls,
        settings: RecorderSettings,
        key: Key,
        now_s: Callable[[], float] = time.time,
        failpoint: Callable[[str], None] = no_failpoint,
    ) -> "RecorderProcess":
        """Start everything; returns when submissions are taken.

        Raises:
            RequestError: a setting, the key or the database does not fit.
            TransientError: the chain's node or the store is not ready.
            InvariantError: the book is behind the chain.
        """
        process = cls(settings)
        return await process._begin(process._start(key, now_s, failpoint))

    async def stop(self) -> None:
        """Stop serving and close."""
        try:
            await self.server.stop()
        finally:
            await self._close()

    async def _start(
        self, key: Key, now_s: Callable[[], float], failpoint: Callable[[str], None]
    ) -> None:
        settings, deployment = self.settings, self.settings.deployment
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._closers.enter_context(hold_folder(settings.data_dir, "recorder"))
        database = await self._open_database()
        self._closers.push_async_callback(database.close)
        rpc = self._connect()
        self._closers.push_async_callback(rpc.close)
        await verify_deployment(rpc, deployment)
        self.server = self._bind()
        self._closers.push_async_callback(self.server.stop)
        await self._assemble(database, rpc, key, now_s, failpoint)
        await self.committer.verify_book()
        self._loops.spawn(self.committer.run(settings.poll_interval_s))
        self._loops.spawn(self._sweep(now_s))
        await self.server.start(self.recorder)

    # The seams to disk, node, network and clock; a simulation overrides them.

    monotonic = staticmethod(time.monotonic)

    async def _open_database(self) -> Database:
        return await open_database(self.settings.database or self.settings.data_dir / DATABASE_NAME)

    def _connect(self) -> Rpc:
        return Rpc.connect(self.settings.rpc_url)

    def _bind(self) -> HttpServer:
        return HttpServer.bind(self.settings.host, self.settings.port)

    async def _assemble(
        self,
        database: Database,
        rpc: Rpc,
        key: Key,
        now_s: Callable[[], float],
        failpoint: Callable[[str], None],
    ) -> None:
        settings, deployment = self.settings, self.settings.deployment
        domain, metrics = Domain(deployment.chain_id, deployment.escrow), RecorderMetrics()
        escrow, registry, _ = open_contracts(rpc, deployment)
        records = open_records(rpc, deployment)
        self.book = await open_recorder_book(
            database, key.address, domain, records.address, settings.limits
        )
        outbox = Outbox(
            rpc,
            key,
            await open_outbox_storage(database),
            chain_id=deployment.chain_id,
            confirmations=deployment.confirmations,
            clock=self.monotonic,
        )
        self.committer = Committer(
            self.book,
            records,
            outbox,
            rpc,
            interval_blocks=settings.interval_blocks,
            confirmations=deployment.confirmations,
            metrics=metrics,
            monotonic=self.monotonic,
            failpoint=failpoint,
        )
        chain = ChainParties(rpc, registry, escrow, deployment.confirmations)
        parties = Parties(
            chain.fetch_receipt_key, chain.fetch_exists, settings.limits, self.monotonic
        )
        self.recorder = Recorder(
            key=key,
            domain=domain,
            book=self.book,
            parties=parties,
            committer=self.committer,
            metrics=metrics,
            interval_blocks=settings.interval_blocks,
            promise_blocks=settings.get_promise_blocks(),
            limits=settings.limits,
            now_s=now_s,
            monotonic=self.monotonic,
            failpoint=failpoint,
        )
        self._metrics = metrics
        self._loops.spawn(outbox.run())

    async def _sweep(self, now_s: Callable[[], float]) -> None:
        while True:
            try:
                await self.book.sweep_waiting(int(now_s()))
                self._metrics.waiting.set(await self.book.count_waiting())
            except HanseError as error:
                _log.warning("old entries stay for now: %s", error.message)
            await asyncio.sleep(SWEEP_S)


async def run_recorder(
    settings: RecorderSettings,
    key: Key,
    *,
    on_ready: Callable[[RecorderProcess], None] = lambda process: None,
) -> None:
    """Run a recorder until SIGTERM or SIGINT.

    Raises:
        HanseError: it could not start, or had to stop: the message says why and what to do.
    """
    await run_until_signal(await RecorderProcess.start(settings, key), on_ready)
