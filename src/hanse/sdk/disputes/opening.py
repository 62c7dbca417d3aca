"""Making the disputes of a client from its settings."""

import asyncio
import contextlib
from collections.abc import Callable

from hanse.chain import Deployment, Outbox, Rpc
from hanse.protocol.eip712 import Domain
from hanse.sdk.account import Account
from hanse.sdk.disputes.watching import ClaimsView, Disputes
from hanse.sdk.settings import Settings
from hanse.settlement.books.voucher_book import VoucherBook
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.settlement.disputes.dispute_book import open_dispute_book
from hanse.store.database import Database


async def open_disputes(
    rpc: Rpc,
    deployment: Deployment,
    database: Database,
    chain: ClaimsView,
    vouchers: VoucherBook,
    account: Account,
    settings: Settings,
    clock: Callable[[], float],
    stack: contextlib.AsyncExitStack,
) -> Disputes:
    """The disputes of `settings`' user, raised by its wallet, else by its session key.

    What it runs behind ends when `stack` closes.
    """
    outbox = account.outbox
    if outbox is None:
        # Apart from the wallet's own transactions, which another process may be sending.
        outbox = Outbox(
            rpc,
            settings.signer,
            await open_outbox_storage(database),
            chain_id=deployment.chain_id,
            confirmations=deployment.confirmations,
            lane="disputes",
        )
        _run(outbox, stack)
    domain = Domain(deployment.chain_id, deployment.escrow)
    return Disputes(
        await open_dispute_book(database, domain),
        vouchers,
        chain,
        settings.get_user(),
        outbox,
        account.escrow,
        account.registry,
        auto=settings.auto_dispute,
        clock=clock,
    )


def _run(outbox: Outbox, stack: contextlib.AsyncExitStack) -> None:
    task = asyncio.create_task(outbox.run())

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)
