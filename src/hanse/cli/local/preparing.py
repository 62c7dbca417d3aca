"""Gets the cheat and its judges ready while the first round is being shown.

    task = asyncio.create_task(prepare_cheat(network, model))

Begins once the first paid answer is there, so that nothing of it delays that. Each step is one that
a person could type; what is there from an earlier start is kept.
"""

import asyncio
import secrets

from hanse.chain import Rpc
from hanse.chain.asset import Asset
from hanse.chain.deployment import open_disputes
from hanse.cli.local.cast import (
    AUDITORS,
    BOND_MAX,
    CALIBRATION,
    CHALLENGER,
    PURSE,
    get_copy_path,
    is_condemned,
    make_plan,
)
from hanse.cli.local.panel import close_leftovers
from hanse.cli.local_network import NATIVE_WEI, LocalNetwork
from hanse.protocol.signatures import Hash32

MASTER = "master.key"
"""In HOME/audits: all copies of this network are made from it."""


async def prepare_cheat(network: LocalNetwork, model: str) -> frozenset[Hash32]:
    """Make the copy, stake the auditors, start the cheat and the user's watcher.

    What an earlier start left at Disputes is closed first: auditors who were absent then are fined
    by it, and made whole.

    Returns:
        The challenges of the cheat so far.

    Raises:
        HanseError: a step failed.
    """
    plan = make_plan(network, model)
    network.get_key(CHALLENGER)

    async def stake() -> frozenset[Hash32]:
        known = await close_leftovers(network, network.get_key(plan.name).address)
        await stake_auditors(network)
        return known

    _, known = await asyncio.gather(_make_copy(network), stake())
    if await is_condemned(network):
        return known
    await network.prepare_provider(plan)
    await asyncio.gather(network.start_provider(plan), start_watcher(network))
    return known


async def start_watcher(network: LocalNetwork) -> None:
    """`hanse audit watch` for the gateway's purchases, which also challenges what it finds.

    Every answer is audited: one alone would be drawn with 1 %.
    """
    arguments = ["audit", "watch", "--key", "user", "--signer", "gateway", "--at-least", "100"]
    arguments += ["--copies", str(get_copy_path(network).parent), "--record-wait-s", "0"]
    arguments += ["--calibration", str(CALIBRATION), "--json"]
    arguments += ["--challenge", CHALLENGER, "--bond-max", BOND_MAX]
    await network.start_silent("watcher", arguments)


async def _make_copy(network: LocalNetwork) -> None:
    """The cheat's own copy of the packaged model: 10 s of a core, once."""
    path = get_copy_path(network)
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    master = path.parent.parent / MASTER
    named = ("--master" if master.exists() else "--new-master", str(master))
    provider = network.get_key(make_plan(network, "").name).address
    await network.run_command(
        "models", "rebase", "packaged", "--provider", provider, *named, "-o", str(path)
    )


async def stake_auditors(network: LocalNetwork) -> None:
    """One whole lot for each auditor, also after a fine, and the challenger's purse."""
    keys = {name: network.get_key(name).address for name in (*AUDITORS, CHALLENGER)}
    for address in keys.values():
        await network.node.fund(address, NATIVE_WEI)
    joins: list[tuple[str, str]] = []
    async with Rpc.connect(network.rpc_url) as rpc:
        asset = Asset(rpc, network.deployment.asset)
        disputes = open_disputes(rpc, network.deployment)
        block = (await rpc.fetch_head()).number
        terms = await disputes.read_terms(block=block)
        price = terms.bond + terms.seats * terms.seat_fee
        held = {name: await asset.read_balance(keys[name], block=block) for name in keys}
        missing = {} if held[CHALLENGER] >= price else {CHALLENGER: PURSE}
        for name in AUDITORS:
            known = await disputes.read_auditor(keys[name], block=block)
            lacks = max(known.lots, 1) * terms.lot_stake - known.stake
            if lacks > 0:
                joins.append((name, "0" if known.lots else "1"))
                missing[name] = max(0, lacks - held[name])
        calls = [asset.mint(keys[name], amount) for name, amount in missing.items() if amount]
        async with network.open_outbox("deployer") as outbox:
            await asyncio.gather(*(outbox.submit(secrets.token_hex(8), call) for call in calls))
    await asyncio.gather(
        *(network.run_command("disputes", "join", lots, "--key", name) for name, lots in joins)
    )
