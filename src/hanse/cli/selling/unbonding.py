"""`hanse provider unbond`: the stake's way back, one transaction of the owner's key each."""

import asyncio
from contextlib import AsyncExitStack

from hanse.chain import Call, Outbox, Rpc, verify_deployment
from hanse.chain.registry import ProviderInfo, Registry
from hanse.cli.control import hold_folder
from hanse.cli.moments import format_time, format_until
from hanse.cli.network import load_network
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Address
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.store import open_database


async def unbond(session: Session, name: str, what: str, *, use_keyring: bool) -> None:
    """Begin, cancel or finish, and show what came of it.

    Raises:
        RequestError: nothing can be begun, cancelled or finished now; the message says why.
        ChainError: the Registry refused.
    """
    network, provider = load_network(session.home), session.get_key_address(name)
    deployment, units, output = network.deployment, network.units, session.output
    async with AsyncExitStack() as stack:
        rpc = await stack.enter_async_context(Rpc.connect(network.rpc_url))
        await verify_deployment(rpc, deployment)
        registry = Registry(rpc, deployment.registry)
        head = await rpc.fetch_head()
        before = await registry.read_provider(
            provider, block=max(0, head.number - deployment.confirmations)
        )
        _verify_possible(before, provider, what, head.timestamp_s)
        key = session.unlock_key(name, use_keyring=use_keyring)
        stack.enter_context(hold_folder(session.home / "sending" / name))
        database = await open_database(session.get_database_path(name))
        stack.push_async_callback(database.close)
        outbox = Outbox(
            rpc,
            key,
            await open_outbox_storage(database),
            chain_id=deployment.chain_id,
            confirmations=deployment.confirmations,
        )
        loop = asyncio.create_task(outbox.run())
        stack.callback(loop.cancel)
        call = _get_call(registry, provider, what)
        with output.wait(f"{call.label}: until {deployment.confirmations} blocks confirm it ..."):
            entry = await outbox.submit(f"unbond:{what}:{head.number}", call)
        after = await registry.read_provider(provider, block=entry.block_number or 0)
        now_s = (await rpc.fetch_head()).timestamp_s
    output.show(
        {
            "provider": provider,
            "did": what,
            "transaction_hash": entry.transaction_hash,
            "stake": str(after.stake),
            "unbonding_until_s": after.unbonding_until_s,
        },
        lambda: output.fields(
            (
                ("provider", provider),
                ("transaction", entry.transaction_hash),
                ("stake", units.format(after.stake)),
            )
        ),
    )
    if after.unbonding_until_s:
        until_s = after.unbonding_until_s
        output.note(
            f"{units.format(after.stake)} come free at {format_time(until_s)}, "
            f"{format_until(until_s, now_s)}; then: hanse provider unbond --finish --name {name}"
        )


def _get_call(registry: Registry, provider: Address, what: str) -> Call:
    if what == "begin":
        return registry.begin_unbonding()
    return registry.cancel_unbonding() if what == "cancel" else registry.finish_unbonding(provider)


def _verify_possible(info: ProviderInfo, provider: Address, what: str, now_s: int) -> None:
    """Say before any gas is spent what the contract would refuse."""
    until_s = info.unbonding_until_s
    if what == "begin" and until_s:
        reason = f"is unbonding already, until {format_time(until_s)}"
    elif what == "begin" and not info.stake:
        reason = "has no stake to take back"
    elif what != "begin" and not until_s:
        reason = "is not unbonding; begin it with: hanse provider unbond"
    elif what == "finish" and now_s < until_s:
        reason = f"is unbonding until {format_time(until_s)}, {format_until(until_s, now_s)}"
    else:
        return
    raise RequestError("usage", f"{provider} {reason}")
