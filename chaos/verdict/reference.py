"""The chain's whole history once more, on the reference ledger, and the contracts held to it.

Every transaction of the final branch is replayed by `hanse.protocol.ledger`: it must be refused
there if it reverted, and succeed if it did. What the ledger then holds must be what the contracts
show, unit by unit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.chain.state import Block
from chaos.chain.transactions import Sent
from chaos.verdict.books import view, view_sub_account
from chaos.world import TERMS, World, get_key
from hanse.contracts.artifacts import load_artifact
from hanse.protocol import ledger as rules
from hanse.protocol.errors import RequestError
from hanse.protocol.intents import Fund
from hanse.protocol.ledger import Ledger, Step, SubAccountId, VoucherClaim
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import to_hex

_AMOUNT = 2**96 - 1
_SEQUENCE = 2**64 - 1

OF_THE_ASSET = ("deposit", "deposit_with_permit", "open", "open_with_permit", "register")
"""Calls that may also fail because the asset refuses (an expired permit, an empty wallet), which is
no rule of the ledger's."""


@dataclass
class History:
    """What the replay found.

    Attributes:
        ledger: at the head.
        sent_by: every mined transaction of each sender.
        refund_delays_s: by the chain's clock, from each refund's unlocking to its completion.
        roots: what recorders committed, as (recorder, root, count, fee_total).
    """

    ledger: Ledger
    sent_by: dict[str, list[str]] = field(default_factory=dict)
    refund_delays_s: list[int] = field(default_factory=list)
    roots: list[tuple[str, str, int, int]] = field(default_factory=list)


def replay(world: World) -> History:
    """Replay everything; violations go to the world."""
    found = History(
        Ledger(
            rules.Rules(
                domain=world.domain,
                lock_time_s=TERMS.lock_time_s,
                minimum_stake=TERMS.minimum_stake,
                dispute_window_s=TERMS.dispute_window_s,
                unbonding_time_s=TERMS.unbonding_time_s,
                key_delay_s=TERMS.key_delay_s,
            )
        )
    )
    for block in world.chain.blocks:
        for sent, ran in zip(block.sent, block.ran, strict=True):
            found.sent_by.setdefault(sent.sender, []).append(sent.hash)
            _replay_one(world, found, block, sent, ran.succeeded)
    return found


def count_lost_units(world: World, history: History) -> int:
    """Base units that are nowhere, or somewhere for nobody; 0 if all are accounted for."""
    deployment, ledger = world.deployment, history.ledger
    roles = ("user", "gateway", "broker-1", "broker-2", "recorder")
    owners = {role: get_key(role).address for role in roles}
    asset, escrow, registry = deployment.asset, deployment.escrow, deployment.registry
    balance_of: Callable[[str], int] = lambda who: view(  # noqa: E731
        world, "TestAsset", asset, "balanceOf", who
    )
    wallets = sum(balance_of(owner) for owner in owners.values())
    accounts = sum(view(world, "Escrow", escrow, "accounts", who) for who in owners.values())
    set_aside = stakes = 0
    for role in ("broker-1", "broker-2"):
        stakes += view(world, "Registry", registry, "get_provider", owners[role])[0]
        for user in ("user", "gateway"):
            key = SubAccountId(owners[user], owners[role], owners[user])
            shown = view_sub_account(world, owners[user], owners[role])
            set_aside += shown.balance
            wanted = ledger.sub_accounts.get(key, rules.SubAccount())
            _compare(world, f"sub-account {user} / {role}", shown, wanted)
            free = view(world, "Escrow", escrow, "accounts", owners[user])
            if free != ledger.accounts.get(owners[user], 0):
                world.violate(f"account of {user}: the contract has {free}, the ledger otherwise")
    held = {"Escrow": (balance_of(escrow), accounts + set_aside, ledger.escrow_held)}
    held["Registry"] = (balance_of(registry), stakes, ledger.registry_held)
    for name, (of_asset, of_books, of_ledger) in held.items():
        if not of_asset == of_books == of_ledger:
            world.violate(f"{name} holds {of_asset}, owes {of_books}, ledger {of_ledger}")
    lost: int = world.minted - wallets - accounts - set_aside - stakes
    return lost


def _compare(world: World, what: str, shown: Any, wanted: rules.SubAccount) -> None:
    on_chain = (shown.balance, shown.claimed, shown.sequence)
    in_ledger = (wanted.balance, wanted.claimed, wanted.sequence)
    if on_chain != in_ledger:
        world.violate(f"{what}: the contract has {on_chain}, the ledger {in_ledger}")


def _replay_one(world: World, history: History, block: Block, sent: Sent, succeeded: bool) -> None:
    deployment = world.deployment
    names = {
        deployment.asset: "TestAsset",
        deployment.escrow: "Escrow",
        deployment.registry: "Registry",
        deployment.records: "Records",
    }
    name = names.get(sent.to)
    if name is None or name == "TestAsset":
        return  # approvals, and transfers of nothing that fill a nonce
    function, arguments = load_artifact(name).decode_call(sent.data)
    apply = _TRANSITIONS.get(function)
    if apply is None:
        world.violate(f"nobody should call {name}.{function}: transaction {sent.hash}")
        return
    if function == "claim_refund" and succeeded:
        key = SubAccountId(*arguments.values())
        unlock_s = history.ledger.refunds[key].unlock_time_s
        history.refund_delays_s.append(block.timestamp_s - unlock_s)
    if function == "commit" and succeeded:
        root, count, fee_total = arguments.values()
        history.roots.append((sent.sender, to_hex(root), count, fee_total))
    try:
        step = apply(history.ledger, sent.sender, arguments, block.timestamp_s)
    except RequestError as error:
        if succeeded:
            world.violate(f"{function} succeeded on chain, the ledger refuses: {error.message}")
        return
    if succeeded:
        history.ledger = step.ledger
    elif function not in OF_THE_ASSET:
        world.violate(f"{function} reverted on chain, the ledger allows it: {arguments}")


_Apply = Callable[[Ledger, str, Mapping[str, Any], int], Step]


def _fund(ledger: Ledger, sender: str, a: Mapping[str, Any], now_s: int) -> Step:
    return rules.apply_fund(ledger, sender, Fund(a["provider"], a["signer"], a["amount"]))


def _open(ledger: Ledger, sender: str, a: Mapping[str, Any], now_s: int) -> Step:
    funds = [Fund(*row) for row in a["funds"]]
    return rules.apply_open(ledger, sender, a["deposit_amount"], funds)


def _key(sender: str, a: Mapping[str, Any]) -> SubAccountId:
    return SubAccountId(a.get("user", sender), a["provider"], a["signer"])


def _settle(ledger: Ledger, sender: str, a: Mapping[str, Any], now_s: int) -> Step:
    claims = [
        VoucherClaim(
            user=f"0x{row[0] >> 96:040x}",
            signer=f"0x{row[1] >> 96:040x}",
            cumulative_max=row[1] & _AMOUNT,
            claimed=row[0] & _AMOUNT,
            sequence=row[2] >> 192,
            sequence_max=row[2] & _SEQUENCE,
            request_hash=to_hex(row[3]),
            r=row[4],
            vs=row[5].to_bytes(32, "big"),
        )
        for row in a["claims"]
    ]
    return rules.apply_settle(ledger, sender, a["provider"], claims, to_hex(a["records_head"]))


def _publish(ledger: Ledger, sender: str, a: Mapping[str, Any], now_s: int) -> Step:
    provider, service_id, revision, offer_hash, service_type, uri, *prices = a.values()
    offer = (to_hex(offer_hash), service_type, uri, Prices(*prices))
    return rules.apply_publish_service(ledger, sender, provider, service_id, revision, *offer)


_TRANSITIONS: dict[str, _Apply] = {
    "deposit": lambda g, s, a, t: rules.apply_deposit(g, s, a["amount"]),
    "deposit_with_permit": lambda g, s, a, t: rules.apply_deposit(g, s, a["amount"]),
    "withdraw": lambda g, s, a, t: rules.apply_withdraw(g, s, a["amount"]),
    "fund": _fund,
    "open": _open,
    "open_with_permit": _open,
    "request_refund": lambda g, s, a, t: rules.apply_request_refund(g, _key(s, a), a["amount"], t),
    "cancel_refund": lambda g, s, a, t: rules.apply_cancel_refund(g, _key(s, a)),
    "claim_refund": lambda g, s, a, t: rules.apply_claim_refund(g, _key(s, a), t),
    "settle": _settle,
    "register": lambda g, s, a, t: rules.apply_register(g, s, *a.values()),
    "publish_service": _publish,
    "commit": lambda g, s, a, t: rules.apply_commit(g, s, to_hex(a["root"]), *list(a.values())[1:]),
}
