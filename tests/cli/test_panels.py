"""`hanse disputes` about panels: a cheat challenged, judged and slashed on a real chain."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hanse.chain import Asset, Key, Registry, Rpc, open_disputes
from hanse.chain.keys import unlock_keystore
from hanse.cli.amounts import AssetUnits
from hanse.cli.local_network import PANELS
from hanse.contracts.deployment import Terms
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import (
    FinishReason,
    Offer,
    Prices,
    Receipt,
    Request,
    SignedOffer,
    SignedReceipt,
    Usage,
    Voucher,
)
from hanse.protocol.signatures import ZERO_HASH, to_hex
from hanse.protocol.wire import offer_to_json, receipt_to_json
from tests.cli.local_market import LOCK_TIME_S, LOOK_S, PASSWORD, UNIT, make_outbox

STAKE = 100 * UNIT
AUDITORS = ("auditor-1", "auditor-2", "auditor-3")


@pytest.fixture(scope="module")
def terms():
    return Terms(lock_time_s=LOCK_TIME_S, panels=PANELS)


def unlock(home: Path, name: str) -> Key:
    return unlock_keystore(home / "keys" / f"{name}.json", PASSWORD)


async def register(market, owner: Key, receipt_key: str) -> int:
    """Stake as a provider; returns the chain's time."""
    deployment = market.network.deployment
    async with Rpc.connect(market.url) as rpc:
        registry = Registry(rpc, deployment.registry)
        asset = Asset(rpc, deployment.asset)
        outbox = make_outbox(rpc, owner)
        calls = (
            asset.approve(registry.address, STAKE),
            registry.register(STAKE, receipt_key, owner.address),
        )
        for number, call in enumerate(calls):
            await outbox.submit(f"{number}", call, poll_interval_s=LOOK_S)
        return (await rpc.fetch_head()).timestamp_s


async def read_state(market, provider: str, challenger: str) -> tuple[Any, int]:
    async with Rpc.connect(market.url) as rpc:
        block = (await rpc.fetch_head()).number
        registry = Registry(rpc, market.network.deployment.registry)
        disputes = open_disputes(rpc, market.network.deployment)
        return (
            await registry.read_provider(provider, block=block),
            await disputes.read_credit(challenger, block=block),
        )


def make_receipt_document(
    domain: Domain, user: Key, owner: str, broker: Key, now_s: int
) -> dict[str, Any]:
    """The receipt file of one request, signed by both sides."""
    offer = Offer(
        owner, 1, "chat", "toy", "0x" + "5a" * 32, "Q8_0", "llama", 4_096, 1_024,
        Prices(1_000, 1_000, 2_000), "embedded", ("http://broker.example",), ZERO_HASH,
        2_000_000_000, 1,
    )  # fmt: skip
    offer_hash = to_hex(offer.struct_hash())
    request = Request(offer_hash, "0x" + "b0" * 32, 1_000, "0x" + "1d" * 32, 2_000_000_000)
    request_hash = to_hex(request.struct_hash())
    voucher = Voucher(user.address, owner, 5_000, 10, request_hash)
    receipt = Receipt(
        user.address, owner, user.address, 1, request_hash, "0x" + "a5" * 32,
        Usage(100, 0, 50), 1, 1, FinishReason.STOP, now_s, "0x" + "c0" * 32,
    )  # fmt: skip

    def sign(key: Key, message: Any) -> str:
        return key.sign_digest(domain.digest(message.struct_hash()))

    return {
        "format": "hanse-receipt-1",
        "domain": {"chain_id": domain.chain_id, "escrow": domain.escrow},
        "receipt_key": broker.address,
        "voucher": {
            "user": user.address, "provider": owner, "signer": user.address,
            "cumulative_max": "5000", "sequence_max": "10", "offer_hash": offer_hash,
            "body_hash": request.body_hash, "maximum_fee": "1000",
            "request_id": request.request_id, "deadline": request.deadline,
            "signature": sign(user, voucher),
        },
        "offer": offer_to_json(SignedOffer(offer, sign(broker, offer))),
        "receipt": receipt_to_json(SignedReceipt(receipt, sign(broker, receipt))),
    }  # fmt: skip


@pytest.mark.slow
def test_a_cheat_is_challenged_judged_and_slashed(market, run, tmp_path):
    for name in AUDITORS:
        market.add_key(name, units=100)
        assert run("disputes", "join", "--key", name, "--json").document["lots"] == 1
    market.add_key("provider", units=100)
    market.add_key("provider-receipt")
    challenger = market.add_key("user", units=60)
    owner, broker = unlock(market.home, "provider"), unlock(market.home, "provider-receipt")
    now_s = asyncio.run(register(market, owner, broker.address))
    deployment = market.network.deployment
    domain = Domain(deployment.chain_id, deployment.escrow)
    receipt = make_receipt_document(
        domain, unlock(market.home, "user"), owner.address, broker, now_s
    )
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps({"format": "hanse-evidence-1", "receipt": receipt}))

    made = run("disputes", "challenge", str(file), "--uri", "http://e.test/1", "--json").document
    name = made["challenge"]
    assert (made["stage"], made["uri"]) == ("drawing", "http://e.test/1")
    again = run("disputes", "challenge", str(file), "--json")
    assert again.exit_code == 7
    assert "known" in again.error["message"]

    drawn = run("disputes", "close", name, "--json").document
    assert drawn["stage"] == "voting"
    assert len(drawn["panel"]) == 3
    early = run("disputes", "close", name, "--json")
    assert "its time has not come" in early.error["message"]
    for auditor in AUDITORS:
        assert run("disputes", "vote", name, "upheld", "--key", auditor, "--json").exit_code == 0
    other = run("disputes", "vote", name, "rejected", "--key", "auditor-1", "--json")
    assert other.error["code"] == "usage"
    for auditor in AUDITORS:
        assert run("disputes", "reveal", name, "--key", auditor, "--json").exit_code == 0
    decided = run("disputes", "close", name, "--json").document
    assert (decided["stage"], decided["verdict"]) == ("decided", "upheld")

    market.advance_time(PANELS.appeal_time_s)
    assert run("disputes", "close", name, "--json").document["stage"] == "closed"
    provider, credit = asyncio.run(read_state(market, owner.address, challenger))
    fees = 3 * PANELS.seat_fee
    assert provider.is_condemned
    assert provider.pool == STAKE // 2 - PANELS.bond - fees - 1
    assert credit == 2 * PANELS.bond + fees + 1
    paid = run("disputes", "withdraw", "--json").document
    assert (paid["withdrawn"], paid["credit"]) == (str(credit), "0")
    assert {"auditor", "lots", "stake", "transaction_hash"} <= set(paid)
    fee = run("disputes", "withdraw", "--key", "auditor-1")
    assert f"withdrawn {AssetUnits('tHSD', 6).format(PANELS.seat_fee)}" in " ".join(
        fee.stdout.split()
    ), fee.stderr

    listed = run("disputes", "challenges", "--json").document["challenges"]
    assert [row["challenge"] for row in listed] == [name]
    seated = run("disputes", "challenges", "--seated", "auditor-1", "--json").document
    assert seated["challenges"] == listed
    assert run("disputes", "challenges", "--seated", "user").stdout == "There is none.\n"
    shown = run("disputes", "challenges", name[:10])
    assert "upheld" in shown.stdout
    kept = sorted(path.stat().st_mode & 0o777 for path in (market.home / "panels").iterdir())
    assert kept == [0o600] * 4


def test_a_file_without_a_receipt_is_no_ground_for_a_challenge(run, tmp_path):
    file = tmp_path / "evidence.json"
    for content in ("not json", "[]", '{"format": "x"}'):
        file.write_text(content)
        refused = run("disputes", "challenge", str(file), "--json")
        assert refused.error["code"] == "usage"
        assert "--receipt" in refused.error["message"]
    file.write_text('{"receipt": {"format": "hanse-receipt-1"}}')
    assert run("disputes", "challenge", str(file), "--json").error["code"] == "receipt_invalid"
    missing = run("disputes", "challenge", str(tmp_path / "none.json"), "--json")
    assert missing.error["code"] == "not_found"
