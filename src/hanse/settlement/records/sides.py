"""The loop of records over a broker's or a user's own database and node.

    async with open_provider_submitter(settings, provider, key, database, rpc, deployment) as made:
        made.run()          # spawn it
        made.get_head       # for the settler

Traces are joined in by whoever keeps some: `find_trace_hash` is asked once a receipt.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from hanse.chain import Deployment, Rpc
from hanse.chain.deployment import open_records
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Receipt, SignedReceipt
from hanse.protocol.records import Side
from hanse.protocol.signatures import ZERO_HASH, Address, DigestSigner, Hash32
from hanse.settlement.records.answers import Identity
from hanse.settlement.records.chain_check import ChainRecords
from hanse.settlement.records.recorder_client import HttpRecorderClient, RecorderClient
from hanse.settlement.records.sources import ProviderReceipts, UserReceipts
from hanse.settlement.records.submission_book import ReceiptSource, open_submission_book
from hanse.settlement.records.submitter import RecordsSettings, Submitter
from hanse.store.database import Database

FindTrace = Callable[[Receipt], Awaitable[Hash32 | None]]
"""The hash of the trace that a side keeps of a receipt's request, or None."""

Seams = tuple[RecorderClient, Callable[[], float]]
"""The network and the clock of a simulation; the real ones are made where none are given."""


@contextlib.asynccontextmanager
async def open_provider_submitter(
    settings: RecordsSettings,
    provider: Address,
    receipt_key: DigestSigner,
    database: Database,
    rpc: Rpc,
    deployment: Deployment,
    find_trace: FindTrace | None = None,
    seams: Seams | None = None,
) -> AsyncIterator[Submitter]:
    """The provider's loop, over its broker's database."""
    domain = Domain(deployment.chain_id, deployment.escrow)
    identity = Identity(Side.PROVIDER, provider, receipt_key, domain)
    source = ProviderReceipts(provider)
    async with _open(
        settings, identity, source, database, rpc, deployment, find_trace, seams=seams
    ) as made:
        yield made


@contextlib.asynccontextmanager
async def open_user_submitter(
    settings: RecordsSettings,
    user: Address,
    signer: DigestSigner,
    database: Database,
    rpc: Rpc,
    deployment: Deployment,
    find_trace: FindTrace | None = None,
    resume: Callable[[Address], Awaitable[object]] | None = None,
    seams: Seams | None = None,
) -> AsyncIterator[Submitter]:
    """The user side's loop, over its own database; `resume` runs the handshake with a provider."""
    domain = Domain(deployment.chain_id, deployment.escrow)
    identity = Identity(Side.USER, signer.address, signer, domain)
    source = UserReceipts(user, signer.address)
    async with _open(
        settings, identity, source, database, rpc, deployment, find_trace, resume, seams
    ) as made:
        yield made


@contextlib.asynccontextmanager
async def run_behind(submitter: Submitter) -> AsyncIterator[None]:
    """Run a loop for as long as the block lasts."""
    task = asyncio.create_task(submitter.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _open(
    settings: RecordsSettings,
    identity: Identity,
    source: ReceiptSource,
    database: Database,
    rpc: Rpc,
    deployment: Deployment,
    find_trace: FindTrace | None,
    resume: Callable[[Address], Awaitable[object]] | None = None,
    seams: Seams | None = None,
) -> AsyncIterator[Submitter]:
    async def find_trace_hash(signed: SignedReceipt) -> Hash32:
        found = await find_trace(signed.receipt) if find_trace else None
        return found or ZERO_HASH

    client, now_s = seams or (HttpRecorderClient(), time.time)
    try:
        records = open_records(rpc, deployment)
        yield Submitter(
            settings,
            identity,
            await open_submission_book(database),
            source,
            client,
            ChainRecords(rpc, records, deployment.confirmations),
            now_s=now_s,
            find_trace_hash=find_trace_hash,
            resume=resume,
        )
    finally:
        await client.close()
