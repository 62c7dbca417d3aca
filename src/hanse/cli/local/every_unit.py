"""Where every unit of a local network's asset is, by holder and place.

    rows, minted = await account_for(network, money)

The user's places come from its own books and the chain (`hanse.sdk.money`), those of the network's
providers are read beside them. Together they must be all that was ever minted.

A person may have sent some on, to a gateway's own key or to a host that sells. Who was ever sent
any is known from the asset's Transfer events, and only if there is such a stranger may something be
left over: it is shown as what others have in their wallets, in Escrow and at stake. What Disputes
holds for strangers is one place.
"""

from hanse.chain import Rpc
from hanse.chain.asset import Asset
from hanse.chain.chain_types import BlockNumber
from hanse.chain.deployment import open_disputes
from hanse.chain.registry import Registry
from hanse.cli.local.cast import AUDITORS, CHALLENGER, CHEAT
from hanse.cli.local_network import LocalNetwork
from hanse.protocol.errors import InvariantError
from hanse.protocol.signatures import ZERO_ADDRESS, Address
from hanse.sdk.money import Money, Place

Row = tuple[str, str, int]
"""Holder, place, amount."""

OTHERS = "others"

_IN_DISPUTES = {"auditing": "stake in Disputes", "credit": "credit in Disputes"}
"""Places there, by the same words for whoever has them. Why a credit was awarded `hanse money`
says; what a cheat is owed for its answers stays accrued, and is its to claim."""

_OUTSIDE = ("wallet", "stake", *_IN_DISPUTES)
"""Places of the user's that are not in Escrow."""


async def account_for(network: LocalNetwork, money: Money) -> tuple[list[Row], int]:
    """Every unit of the asset that exists, and what was minted by the asset's own count.

    Raises:
        InvariantError: it does not add up.
    """
    rows = [("user", _describe(network, place), place.amount) for place in money.places]
    deployment, block = network.deployment, money.block
    async with Rpc.connect(network.rpc_url) as rpc:
        asset = Asset(rpc, deployment.asset)
        of_providers, in_registry = await _list_providers(network, rpc, block)
        of_judges, in_disputes = await _list_judges(network, rpc, block)
        rows += [*of_providers, *of_judges]
        in_disputes += sum(place.amount for place in money.places if place.place in _IN_DISPUTES)
        in_registry += sum(place.amount for place in money.places if place.place == "stake")
        (minted,) = await asset.contract.read("totalSupply", block=block)
        inside = await asset.read_balance(deployment.escrow, block=block)
        stakes = await asset.read_balance(deployment.registry, block=block)
        judged = await asset.read_balance(deployment.disputes, block=block)
        known = {money.user, *_list_keys(network).values(), deployment.escrow}
        known |= {deployment.registry, deployment.disputes}
        strangers = sorted(await _list_receivers(rpc, asset, block) - known)
        outside = sum([await asset.read_balance(other, block=block) for other in strangers])
    if judged - in_disputes:
        rows.append((OTHERS, "stakes, bonds and credits in Disputes", judged - in_disputes))
    in_escrow = sum(place.amount for place in money.places if place.place not in _OUTSIDE)
    if strangers:
        rows += list_left_over(outside, inside - in_escrow, stakes - in_registry)
        in_escrow = inside
    total = sum(amount for _, _, amount in rows)
    if money.differences or total != minted or in_escrow != inside:
        raise InvariantError(
            "invariant_broken",
            f"{total} of {minted} accounted for, Escrow holds {inside} of {in_escrow}: "
            f"{'; '.join(money.differences)}",
        )
    return rows, int(minted)


async def _list_providers(
    network: LocalNetwork, rpc: Rpc, block: BlockNumber
) -> tuple[list[Row], int]:
    """What the network's providers have, and how much of it Registry holds."""
    asset = Asset(rpc, network.deployment.asset)
    registry = Registry(rpc, network.deployment.registry)
    keys, rows, inside = _list_keys(network), list[Row](), 0
    for name in (*(plan.name for plan in network.plans), CHEAT):
        if name not in keys:
            continue
        held = await asset.read_balance(keys[name], block=block)
        info = await registry.read_provider(keys[name], block=block)
        rows += [(name, "wallet (paid)", held), (name, "stake", info.stake)]
        rows.append((name, "what was its stake, for its victims", info.pool))
        inside += info.stake + info.pool
    (burned,) = await registry.contract.read("burned", block=block)
    rows.append(("nobody", "burned of stakes: no function moves it", int(burned)))
    return rows, inside + int(burned)


async def _list_judges(
    network: LocalNetwork, rpc: Rpc, block: BlockNumber
) -> tuple[list[Row], int]:
    """What auditors and challenger have, and how much of it Disputes holds."""
    asset = Asset(rpc, network.deployment.asset)
    disputes = open_disputes(rpc, network.deployment)
    keys, rows, inside = _list_keys(network), list[Row](), 0
    for name in (*AUDITORS, CHALLENGER):
        if name not in keys:
            continue
        held = await asset.read_balance(keys[name], block=block)
        stake = (await disputes.read_auditor(keys[name], block=block)).stake
        credit = await disputes.read_credit(keys[name], block=block)
        rows += [(name, "wallet", held), (name, _IN_DISPUTES["auditing"], stake)]
        rows.append((name, _IN_DISPUTES["credit"], credit))
        inside += stake + credit
    (burned,) = await disputes.contract.read("burned", block=block)
    rows.append(("nobody", "burned of bonds and fines", int(burned)))
    return rows, inside + int(burned)


def _list_keys(network: LocalNetwork) -> dict[str, Address]:
    """The addresses of those of the network who are there."""
    names = (*(plan.name for plan in network.plans), CHEAT, *AUDITORS, CHALLENGER)
    found = [name for name in names if network.session.get_key_path(name).is_file()]
    return {name: network.session.get_key_address(name) for name in found}


def list_left_over(wallets: int, in_escrow: int, stakes: int) -> list[Row]:
    """What others have; each contract must hold at least what is known.

    Raises:
        InvariantError: one of them holds less.
    """
    if in_escrow < 0 or stakes < 0:
        raise InvariantError(
            "invariant_broken",
            f"beside what is known Escrow holds {in_escrow} and Registry {stakes}, not less than 0",
        )
    places = ("wallets", wallets), ("accounts and sub-accounts", in_escrow), ("stakes", stakes)
    return [(OTHERS, place, amount) for place, amount in places]


async def _list_receivers(rpc: Rpc, asset: Asset, block: BlockNumber) -> set[Address]:
    """Everybody who was ever sent the asset."""
    topic = "0x" + asset.contract.artifact.events["Transfer"].topic.hex()
    logs = await rpc.fetch_logs([asset.address], first=0, last=block, topics=[topic])
    events = [asset.contract.find_event(log, 0) for log in logs]
    found = {str(event.fields["receiver"]).lower() for event in events if event is not None}
    return found - {ZERO_ADDRESS}


def _describe(network: LocalNetwork, place: Place) -> str:
    if not place.provider:
        return _IN_DISPUTES.get(place.place, place.place)
    names = {network.get_key("gateway").address: "", network.get_key("user").address: " by user"}
    whose = names.get(place.signer, f" by {place.signer}")
    return f"sub-account with {get_provider_name(network, place.provider)}{whose}, {place.place}"


def get_provider_name(network: LocalNetwork, provider: Address) -> str:
    """What this network calls a provider; its address if it is none of the network's."""
    names = {address: name for name, address in _list_keys(network).items()}
    return names.get(provider, provider)
