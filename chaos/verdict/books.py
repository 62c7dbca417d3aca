"""Reads both sides' databases and the contracts apart from the code that keeps them.

Plain SQL on the files, so that a defect of the books' own code cannot hide itself; contract views
at the head for every balance.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from chaos.market.components import Component
from chaos.world import World
from hanse.chain import OutboxEntry
from hanse.contracts.artifacts import ContractName, load_artifact
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.wire import receipt_from_json

if TYPE_CHECKING:
    from chaos.market.buyers import UserComponent
    from chaos.market.sellers import BrokerComponent

NOBODY = "0x" + "00" * 19 + "01"


@dataclass(frozen=True)
class Served:
    """One request in a provider's book; `receipt` is None while it is at work."""

    request_id: str
    maximum_fee: int
    receipt: SignedReceipt | None


@dataclass(frozen=True)
class ProviderSide:
    """A provider's row of one sub-account."""

    sequence: int
    cumulative_fee: int
    reserved: int
    in_flight: int
    settled_fee: int
    requests: tuple[Served, ...]

    @property
    def receipts(self) -> list[SignedReceipt]:
        """In sequence."""
        found = [served.receipt for served in self.requests if served.receipt is not None]
        return sorted(found, key=lambda signed: signed.receipt.sequence)


@dataclass(frozen=True)
class UserSide:
    """A user's row of the same sub-account.

    `states` are those of its vouchers by request id, `verifications` (kind, reason, request id).
    """

    acknowledged: int
    acknowledged_fee: int
    in_flight: int
    in_flight_fee: int
    highest_cumulative_max: int
    held: int
    disputed: str
    states: dict[str, str]
    receipts: tuple[SignedReceipt, ...]
    verifications: tuple[tuple[str, str, str], ...]
    conflicts: int


@dataclass(frozen=True)
class OnChain:
    """A sub-account as the contract shows it."""

    balance: int
    claimed: int
    sequence: int
    refund: int
    unlock_time_s: int


def read_provider(broker: "BrokerComponent", user: str) -> ProviderSide | None:
    """The broker's side of the sub-account whose user and signer is `user`."""
    rows, found = _read(
        broker,
        (
            "SELECT sequence, cumulative_fee, reserved, in_flight, settled_fee "
            "FROM receipt_sub_accounts WHERE user_address = ? AND signer = ?",
            (user, user),
        ),
        (
            "SELECT request_id, maximum_fee, receipt FROM receipt_requests WHERE signer = ?",
            (user,),
        ),
    )
    if not rows:
        return None
    sequence, fee, reserved, in_flight, settled = rows[0]
    requests = tuple(Served(r[0], int(r[1]), _decode(r[2]) if r[2] else None) for r in found)
    return ProviderSide(sequence, int(fee), int(reserved), in_flight, int(settled), requests)


def read_user(user: "UserComponent", provider: str) -> UserSide | None:
    """The user's side of its sub-account with a provider."""
    rows, vouchers, receipts, conflicts = _read(
        user,
        (
            "SELECT acknowledged, acknowledged_fee, in_flight, in_flight_fee, "
            "highest_cumulative_max, held, disputed FROM voucher_sub_accounts WHERE provider = ?",
            (provider,),
        ),
        (
            "SELECT v.request_id, v.state FROM vouchers v JOIN voucher_sub_accounts s "
            "ON s.number = v.sub_account WHERE s.provider = ?",
            (provider,),
        ),
        (
            "SELECT r.receipt, r.verification, r.reason, r.request_id FROM voucher_receipts r "
            "JOIN voucher_sub_accounts s ON s.number = r.sub_account WHERE s.provider = ? "
            "ORDER BY r.sequence",
            (provider,),
        ),
        ("SELECT COUNT(*) FROM voucher_conflicts", ()),
    )
    if not rows:
        return None
    acknowledged, fee, in_flight, in_flight_fee, highest, held, disputed = rows[0]
    return UserSide(
        acknowledged,
        int(fee),
        in_flight,
        int(in_flight_fee),
        int(highest),
        held,
        disputed,
        dict(vouchers),
        tuple(_decode(row[0]) for row in receipts),
        tuple((row[1], row[2], row[3]) for row in receipts),
        conflicts[0][0],
    )


def read_disputes(user: "UserComponent") -> list[str]:
    """What a user found and raised against providers, in words."""
    (rows,) = _read(user, ("SELECT provider, state, reason, evidence FROM disputes", ()))
    return [" ".join(map(str, row))[:400] for row in rows]


def read_entries(component: Component) -> list[OutboxEntry]:
    """Every transaction that a component ever asked for."""
    (rows,) = _read(component, ("SELECT entry FROM chain_outbox ORDER BY scope, ordinal", ()))
    return [msgspec.json.decode(row[0], type=OutboxEntry) for row in rows]


def view(world: World, contract: ContractName, address: str, name: str, *arguments: Any) -> Any:
    """What a contract's view returns at the head."""
    artifact = load_artifact(contract)
    data = artifact.encode_call(name, *arguments)
    ran = world.chain.state.call(world.chain.head, NOBODY, address, data)
    assert ran.succeeded, f"{contract}.{name} reverted"
    values = artifact.decode_output(name, ran.output)
    return values[0] if len(values) == 1 else values


def view_sub_account(world: World, user: str, provider: str) -> OnChain:
    """The sub-account whose signer is its user."""
    escrow = world.deployment.escrow
    return OnChain(*view(world, "Escrow", escrow, "get_sub_account", user, provider, user))


def list_open_work(
    world: World, brokers: "Sequence[BrokerComponent]", users: "Sequence[UserComponent]"
) -> list[str]:
    """What has not ended yet, in words; empty once all is quiet."""
    found: list[str] = []
    for broker in brokers:
        (rows,) = _read(
            broker,
            (
                "SELECT user_address, in_flight, cumulative_fee, settled_fee "
                "FROM receipt_sub_accounts WHERE in_flight > 0 OR cumulative_fee <> settled_fee",
                (),
            ),
        )
        found += [f"{broker.name}: {r[1]} at work, {r[2]} owed, {r[3]} settled" for r in rows]
    for user in users:
        ((count,),) = _read(user, ("SELECT COUNT(*) FROM vouchers WHERE state = 'issued'", ()))[0]
        if count:
            found.append(f"{user.name}: {count} vouchers open")
        for broker in brokers:
            refund = view_sub_account(world, user.key.address, broker.owner.address).refund
            if refund:
                found.append(f"{user.name}: a refund of {refund} from {broker.name}")
    for component in (*brokers, *users):
        waiting = [entry for entry in read_entries(component) if not entry.is_final]
        found += [f"{component.name}: {e.call.label} is {e.state} {e.reason}" for e in waiting]
    return found


def _decode(text: str) -> SignedReceipt:
    return receipt_from_json(json.loads(text))


def _read(component: Component, *queries: tuple[str, tuple[Any, ...]]) -> list[list[Any]]:
    path = f"file:{component.disk.path}?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as database:
        database.execute("BEGIN")  # one snapshot for all of them
        return [database.execute(sql, values).fetchall() for sql, values in queries]
