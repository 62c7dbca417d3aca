"""Reads both sides' books and the chain apart from the code that keeps them, and compares.

The databases are opened read-only with plain SQL, so that a defect of the books' own code cannot
hide itself; the chain is asked for every balance.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from hanse.chain import Rpc
from hanse.chain.asset import Asset
from hanse.chain.escrow import Escrow
from hanse.chain.registry import Registry
from hanse.protocol.wire import receipt_from_json
from tests.network.market import Market, until


@dataclass(frozen=True)
class Served:
    """One request in the provider's book; `receipt` is None while it is at work."""

    request_id: str
    maximum_fee: int
    receipt: Any | None


@dataclass(frozen=True)
class ProviderSide:
    """The provider's row of the sub-account with the gateway's key.

    `fees` are those of all its sub-accounts.
    """

    sequence: int = 0
    cumulative_fee: int = 0
    reserved: int = 0
    in_flight: int = 0
    requests: tuple[Served, ...] = ()
    fees: int = 0

    @property
    def receipts(self) -> list[Any]:
        """In sequence."""
        found = [served.receipt for served in self.requests if served.receipt is not None]
        return sorted(found, key=lambda receipt: receipt.sequence)

    def get_request_id(self, receipt: Any) -> str:
        return next(served.request_id for served in self.requests if served.receipt == receipt)


@dataclass(frozen=True)
class UserSide:
    """The user's row of the same sub-account."""

    acknowledged: int = 0
    acknowledged_fee: int = 0
    in_flight: int = 0
    in_flight_fee: int = 0
    held: int = 0
    disputed: str = ""
    open: tuple[tuple[str, int], ...] = ()
    receipts: tuple[Any, ...] = ()
    verifications: tuple[str, ...] = ()
    conflicts: int = 0


def read_provider(market: Market, name: str) -> ProviderSide:
    network = market.network
    user, signer = (network.get_key(key).address for key in ("user", "gateway"))
    rows, found, fees = _read(
        network.home / name / "broker.sqlite3",
        (
            "SELECT sequence, cumulative_fee, reserved, in_flight "
            "FROM receipt_sub_accounts WHERE user_address = ? AND signer = ?",
            (user, signer),
        ),
        (
            "SELECT request_id, maximum_fee, receipt FROM receipt_requests WHERE signer = ?",
            (signer,),
        ),
        ("SELECT cumulative_fee FROM receipt_sub_accounts", ()),
    )
    requests = tuple(
        Served(row[0], int(row[1]), _decode(row[2]) if row[2] else None) for row in found
    )
    if not rows:
        return ProviderSide()
    sequence, fee, reserved, in_flight = rows[0]
    in_all = sum(int(row[0]) for row in fees)
    return ProviderSide(sequence, int(fee), int(reserved), in_flight, requests, in_all)


def read_user(market: Market, name: str) -> UserSide:
    provider = market.get_address(name)
    path = market.network.home / "user.db"
    (row,), vouchers, receipts, conflicts = _read(
        path,
        (
            "SELECT number, acknowledged, acknowledged_fee, in_flight, in_flight_fee, held, "
            "disputed FROM voucher_sub_accounts WHERE provider = ? UNION ALL "
            "SELECT 0, 0, '0', 0, '0', 0, '' LIMIT 1",
            (provider,),
        ),
        (
            "SELECT v.request_id, v.maximum_fee FROM vouchers v JOIN voucher_sub_accounts s "
            "ON s.number = v.sub_account WHERE s.provider = ? AND v.state = 'issued'",
            (provider,),
        ),
        (
            "SELECT r.receipt, r.verification FROM voucher_receipts r JOIN voucher_sub_accounts s "
            "ON s.number = r.sub_account WHERE s.provider = ? ORDER BY r.sequence",
            (provider,),
        ),
        ("SELECT COUNT(*) FROM voucher_conflicts", ()),
    )
    return UserSide(
        row[1],
        int(row[2]),
        row[3],
        int(row[4]),
        row[5],
        row[6],
        tuple((found[0], int(found[1])) for found in vouchers),
        tuple(_decode(found[0]) for found in receipts),
        tuple(found[1] for found in receipts),
        conflicts[0][0],
    )


async def wait_agreed(market: Market, name: str, limit_s: float = 120) -> ProviderSide:
    """Wait until nothing that the broker ever admitted is open on either side; then compare all.

    A voucher whose request the broker never admitted stays in flight on the user's side until its
    deadline has passed (four minutes): nobody else can know that it will not be admitted.
    """

    def is_quiet() -> bool:
        provider, user = read_provider(market, name), read_user(market, name)
        admitted = {served.request_id for served in provider.requests}
        return (
            provider.in_flight == 0
            and user.acknowledged == provider.sequence
            and not any(request_id in admitted for request_id, _ in user.open)
        )

    await until(is_quiet, limit_s, f"the books of {name} and of its user agree")
    provider, user = read_provider(market, name), read_user(market, name)
    verify_agreed(market, name, provider, user)
    return provider


def verify_agreed(market: Market, name: str, provider: ProviderSide, user: UserSide) -> None:
    """Every rule that must hold between the two books once nothing is at work."""
    assert (provider.in_flight, provider.reserved) == (0, 0)
    assert (user.acknowledged, user.acknowledged_fee) == (
        provider.sequence,
        provider.cumulative_fee,
    )
    assert (user.held, user.disputed, user.conflicts) == (0, "", 0)
    assert "mismatched" not in user.verifications
    assert list(user.receipts) == provider.receipts

    assert user.in_flight == len(user.open)
    assert user.in_flight_fee == sum(fee for _, fee in user.open)
    assert not {request_id for request_id, _ in user.open} & {
        served.request_id for served in provider.requests
    }

    running = 0
    for number, receipt in enumerate(provider.receipts, 1):
        assert receipt.sequence == number
        running += receipt.fee
        assert receipt.cumulative_fee == running
        assert receipt.fee == get_price_of(market, name, receipt)
    for served in provider.requests:
        assert served.receipt is not None
        assert served.receipt.fee <= served.maximum_fee


def get_price_of(market: Market, name: str, receipt: Any) -> int:
    """What a receipt's usage costs: price x tokens, rounded up; 0 without an output token."""
    usage, units = receipt.usage, market.network.network.units
    if usage.output_tokens == 0:
        return 0
    plan = market.get_plan(name)
    input_price, output_price = units.parse(plan.input_price), units.parse(plan.output_price)
    total = input_price * (usage.input_tokens + usage.cached_tokens)
    total += output_price * usage.output_tokens
    return -(-total // 1_000_000)


@dataclass(frozen=True)
class Units:
    """Base units of the asset by place, at the newest block."""

    minted: int
    user_wallet: int
    account: int
    sub_accounts: dict[str, int]
    claimed: dict[str, int]
    provider_wallets: dict[str, int]
    escrow: int


async def read_units(market: Market) -> Units:
    """Read every place, and check that the places are all that was ever minted."""
    network = market.network
    deployment = network.deployment
    user = network.get_key("user").address
    names = {plan.name: market.get_address(plan.name) for plan in network.plans}
    async with Rpc.connect(network.rpc_url) as rpc:
        asset, escrow = Asset(rpc, deployment.asset), Escrow(rpc, deployment.escrow)
        registry = Registry(rpc, deployment.registry)
        block = (await rpc.fetch_head()).number
        (minted,) = await asset.contract.read("totalSupply", block=block)
        account = await escrow.read_account(user, block=block)
        held = {
            name: [
                await escrow.read_sub_account(
                    user, address, network.get_key(signer).address, block=block
                )
                for signer in market.signers
            ]
            for name, address in names.items()
        }
        others = 0
        for key in ("deployer", "gateway"):
            others += await asset.read_balance(network.get_key(key).address, block=block)
        units = Units(
            int(minted),
            await asset.read_balance(user, block=block),
            account,
            {name: sum(found.balance for found in all_of) for name, all_of in held.items()},
            {name: sum(found.claimed for found in all_of) for name, all_of in held.items()},
            {
                name: await asset.read_balance(address, block=block)
                for name, address in names.items()
            },
            await asset.read_balance(deployment.escrow, block=block),
        )
        stakes = 0
        for address in names.values():
            stakes += (await registry.read_provider(address, block=block)).stake
        in_registry = await asset.read_balance(deployment.registry, block=block)
    assert units.escrow == units.account + sum(units.sub_accounts.values())
    assert in_registry == stakes
    assert others == 0
    assert units.minted == (
        units.user_wallet + units.escrow + sum(units.provider_wallets.values()) + stakes
    )
    # a provider's wallet holds what it was paid, and nothing else: its stake is in the Registry
    assert units.provider_wallets == units.claimed
    return units


def _decode(text: str) -> Any:
    return receipt_from_json(json.loads(text)).receipt


def _read(path: Any, *queries: tuple[str, tuple[Any, ...]]) -> list[list[Any]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        database.execute("BEGIN")  # one snapshot for all of them
        return [database.execute(sql, values).fetchall() for sql, values in queries]
