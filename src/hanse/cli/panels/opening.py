"""The market's Disputes, opened with a key of this home.

async with open_court(session, key, can_send=True) as court:
entry = await court.send(court.disputes.join(1), pays=lot_stake)
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hanse.auditor.panels.court import Court, read_court
from hanse.chain import Rpc
from hanse.chain.deployment import verify_deployment
from hanse.cli.network import load_network
from hanse.cli.session import Session


@asynccontextmanager
async def open_court(
    session: Session, key: str = "", *, can_send: bool = False, use_keyring: bool = False
) -> AsyncIterator[Court]:
    """Open the market's Disputes.

    Raises:
        HanseError: no such key, a wrong password, no node, or contracts that are not ours.
    """
    from hanse.cli.buying.wallet import open_wallet

    network = load_network(session.home)
    if can_send:
        opened = open_wallet(session, network, key, can_send=True, use_keyring=use_keyring)
        async with opened as wallet:
            outbox = wallet.account.outbox
            yield await read_court(wallet.rpc, network.deployment, wallet.user, outbox)
        return
    address = session.get_key_address(key) if key else ""
    async with Rpc.connect(network.rpc_url) as rpc:
        await verify_deployment(rpc, network.deployment)
        yield await read_court(rpc, network.deployment, address, None)
