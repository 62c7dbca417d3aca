"""Dishonest providers on a real chain: real contracts, real vouchers, a real user that is robbed.

The provider is `FakeBroker`, which speaks the protocol and keeps no promise that it is not made to
keep; everything of the user's side is real, from its database to its transactions.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from hanse.chain import ChainError, Key
from hanse.chain.asset import Asset
from hanse.chain.keys import Scrypt, create_keystore
from hanse.chain.registry import ProviderInfo, PublishedService, Registry
from hanse.cli.main import hanse as hanse_command
from hanse.cli.network import fetch_network, save_network
from hanse.contracts import Claim
from hanse.contracts.deployment import Terms
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.signatures import to_bytes, to_compact
from hanse.sdk import Hanse, Settings
from hanse.sdk.disputes import build_proof, prove
from hanse.sdk.transport.asgi import AsgiTransport
from hanse.settlement.disputes.dispute_book import DisputeState, StoredDispute
from hanse.settlement.disputes.evidence import (
    Evidence,
    evidence_to_document,
    verify_evidence_file,
)
from hanse.settlement.disputes.findings import Claimed, Finding, Kind
from tests.provider.chain_parts import STAKE, Market, run_market
from tests.sdk.fake_broker import FakeBroker

pytestmark = pytest.mark.slow

URL = "http://cheat"
BODY = json.dumps({"model": "echo", "messages": [], "max_tokens": 50}).encode()
FUNDED = 100_000
ETHER = 10**18


@dataclass
class Stage:
    """A market with one provider that may cheat, and users that it may rob."""

    market: Market
    folder: Path
    broker: FakeBroker
    owner: Key
    users: list[Key] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        return Registry(self.market.rpc, self.market.deployment.registry)

    async def read_provider(self) -> ProviderInfo:
        head = await self.market.rpc.fetch_head()
        return await self.registry.read_provider(self.owner.address, block=head.number)

    async def read_account(self, user: Key) -> int:
        head = await self.market.rpc.fetch_head()
        return await self.market.escrow.read_account(user.address, block=head.number)

    async def make_user(self, user: Key | None = None) -> Key:
        """A wallet with a funded sub-account."""
        user = user or await self.market.make_key()
        asset = Asset(self.market.rpc, self.market.deployment.asset)
        await self.market.do(
            user,
            asset.mint(user.address, FUNDED),
            asset.approve(self.market.deployment.escrow, FUNDED),
            self.market.escrow.deposit(FUNDED),
            self.market.escrow.fund(self.owner.address, user.address, FUNDED),
        )
        self.users.append(user)
        return user

    @contextlib.asynccontextmanager
    async def open(
        self, user: Key, *, has_wallet: bool = True, database: Path | None = None
    ) -> AsyncIterator[Hanse]:
        """The user's real client; opening it again is a restart."""
        transport = AsgiTransport({URL: self.broker})
        settings = Settings(
            self.market.url,
            self.market.deployment,
            database or self.folder / f"{user.address}.db",
            signer=user,
            user=user.address,
            wallet=user if has_wallet else None,
            transport=transport,
            discover_interval_s=0,
            resume_interval_s=0,
            dispute_interval_s=0.1,
        )
        async with Hanse.open(settings) as hanse:
            await hanse._parts.chain.refresh()
            await hanse.discover()
            yield hanse

    async def overclaim(self, user: Key) -> int:
        """Take all that the best voucher allows, over what was served; returns how much."""
        mine = [v for v in self.broker.vouchers.values() if v.signer == user.address]
        best = max(mine, key=lambda v: (v.voucher.sequence_max, v.voucher.cumulative_max))
        r, vs = to_compact(best.signature)
        claim = Claim(
            user=user.address,
            signer=best.signer,
            cumulative_max=best.voucher.cumulative_max,
            claimed=best.voucher.cumulative_max,
            sequence=best.voucher.sequence_max,
            sequence_max=best.voucher.sequence_max,
            request_hash=to_bytes(best.voucher.request_hash),
            r=r,
            vs=vs,
        )
        await self.market.do(
            self.broker.key, self.market.escrow.settle(self.owner.address, [claim])
        )
        return claim.claimed


@contextlib.asynccontextmanager
async def open_stage(folder: Path, cache: Path) -> AsyncIterator[Stage]:
    async with run_market(folder / "chain", cache) as market:
        deployment, rpc = market.deployment, market.rpc
        broker = FakeBroker(
            Domain(deployment.chain_id, deployment.escrow),
            secrets.token_bytes(32),
            time.time,
            url=URL,
        )
        owner = market.owner
        broker.provider = owner.address
        broker.offer = broker._sign_offer(broker.offer.offer.prices, "echo")
        broker.offer_hash = "0x" + broker.offer.offer.struct_hash().hex()
        await market.node.fund(broker.key.address, 10 * ETHER)
        registry, asset = Registry(rpc, deployment.registry), Asset(rpc, deployment.asset)
        await market.do(
            owner,
            asset.approve(deployment.registry, STAKE),
            registry.register(STAKE, broker.key.address, owner.address),
            registry.publish_service(owner.address, _publish(broker)),
        )
        yield Stage(market, folder, broker, owner)


def _publish(broker: FakeBroker) -> PublishedService:
    offer = broker.offer.offer
    prices = offer.prices
    return PublishedService(
        offer.service_id,
        offer.revision,
        broker.offer_hash,
        offer.service_type,
        broker.url,
        prices.input_per_mtok,
        prices.cached_per_mtok,
        prices.output_per_mtok,
    )


async def buy(hanse: Hanse) -> int:
    answer = await hanse.request("/v1/chat/completions", BODY)
    await answer.read()
    assert answer.receipt is not None
    return answer.receipt.fee


async def until_dispute(
    hanse: Hanse, wanted: Callable[[StoredDispute], bool], deadline_s: float = 30.0
) -> StoredDispute:
    """Wait for the background loop to bring a dispute there."""
    ends = time.monotonic() + deadline_s
    found: list[StoredDispute] = []
    while time.monotonic() < ends:
        found = await hanse.get_disputes()
        for dispute in found:
            if wanted(dispute):
                return dispute
        await asyncio.sleep(0.05)
    raise AssertionError(f"no such dispute in time: {[(d.state, d.reason) for d in found]}")


def is_won(dispute: StoredDispute) -> bool:
    return dispute.state is DisputeState.CONFIRMED


async def test_an_overclaim_is_slashed_and_every_victim_in_the_window_made_whole(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache) as stage:
        first, second = await stage.make_user(), await stage.make_user()
        spent: dict[str, int] = {}
        for user in (first, second):
            stage.broker.book = type(stage.broker.book)()  # a sub-account of its own
            async with stage.open(user) as hanse:
                spent[user.address] = await buy(hanse) + await buy(hanse)
        took = {user.address: await stage.overclaim(user) for user in (first, second)}
        assert all(took[name] > spent[name] for name in took)

        async with stage.open(first) as hanse:
            won = await until_dispute(hanse, is_won)
            loss = took[first.address] - spent[first.address]
            assert won.evidence.finding.kind is Kind.OVERCLAIM
            assert won.compensation == won.evidence.finding.loss == loss
            with pytest.raises(HanseError):
                await buy(hanse)  # nothing more is signed away to it
            money = await hanse.read_money()
            assert money.total == FUNDED - spent[first.address], "whole but for what was served"
        assert await stage.read_account(first) == loss
        provider = await stage.read_provider()
        assert provider.is_condemned
        assert (provider.stake, provider.pool) == (0, STAKE // 2 - loss)

        # the other one was away, and comes back before the window is over
        await stage.market.node.advance_time(3 * 86_400 - 600)
        async with stage.open(second) as hanse:
            won = await until_dispute(hanse, is_won)
        assert await stage.read_account(second) == took[second.address] - spent[second.address]
        async with stage.open(second) as hanse:  # once more changes nothing
            await hanse.look_for_cheats()
            assert await hanse.get_disputes() == [won]


async def test_two_receipts_for_one_sequence_are_slashed_across_a_restart(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache) as stage:
        user = await stage.make_user()
        async with stage.open(user) as hanse:
            before = stage.broker.book
            await buy(hanse)
            stage.broker.book = before  # an older copy of its database
            with pytest.raises(VerificationError):
                await buy(hanse)
            found = await until_dispute(hanse, lambda dispute: True)
            assert found.evidence.finding.kind is Kind.EQUIVOCATION
        async with stage.open(user) as hanse:
            won = await until_dispute(hanse, is_won)
            assert won.dispute_id == found.dispute_id
            (proof,) = hanse._parts.chain.list_proven()  # type: ignore[attr-defined]
            assert proof.transaction_hash == won.transaction_hash
        provider = await stage.read_provider()
        assert provider.is_condemned
        assert provider.pool == STAKE // 2, "nothing was claimed yet, so nothing was lost"


async def test_a_provider_that_leaves_right_after_cheating_is_still_caught(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache) as stage:
        user = await stage.make_user()
        async with stage.open(user) as hanse:
            spent = await buy(hanse)
        took = await stage.overclaim(user)
        await stage.market.do(stage.owner, stage.registry.begin_unbonding())
        terms = Terms(lock_time_s=3_600)  # as `run_market` deploys
        away_s = terms.lock_time_s + terms.dispute_window_s
        assert away_s < terms.unbonding_time_s
        await stage.market.node.advance_time(away_s)
        with pytest.raises(ChainError, match="locked"):
            await stage.market.do(stage.owner, stage.registry.finish_unbonding(stage.owner.address))
        async with stage.open(user) as hanse:
            won = await until_dispute(hanse, is_won)
        assert won.compensation == took - spent
        await stage.market.node.advance_time(terms.unbonding_time_s)
        with pytest.raises(ChainError, match="condemned"):
            await stage.market.do(stage.owner, stage.registry.finish_unbonding(stage.owner.address))


async def test_without_native_coin_it_is_kept_and_anyone_can_prove_the_file(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache) as stage:
        user = await stage.make_user()
        async with stage.open(user, has_wallet=False) as hanse:
            spent = await buy(hanse)
        took = await stage.overclaim(user)
        await stage.market.node.fund(user.address, 0)
        file = tmp_path / "dispute.json"
        async with stage.open(user, has_wallet=False) as hanse:
            waiting = await until_dispute(hanse, lambda dispute: "wei" in dispute.reason)
            assert waiting.state is DisputeState.FOUND
            evidence = waiting.evidence
            document = evidence_to_document(evidence.domain, evidence.finding)
            file.write_text(json.dumps(document))

            stranger = await stage.market.make_key()
            outbox = stage.market.outbox(stranger)
            entry = await prove(outbox, stage.market.escrow, verify_evidence_file(file))
            assert await prove(outbox, stage.market.escrow, evidence) == entry, "sent once"
            won = await until_dispute(hanse, is_won)
            assert won.transaction_hash == entry.transaction_hash
        assert await stage.read_account(user) == took - spent, (
            "the victim is paid, not the stranger"
        )


async def test_a_false_accusation_costs_its_maker_the_gas_and_nobody_anything_else(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache) as stage:
        user, accuser = await stage.make_user(), await stage.market.make_key()
        async with stage.open(user) as hanse:
            fees = [await buy(hanse), await buy(hanse)]
            receipts = sorted(
                (stored.signed for stored in await hanse.get_receipts()),
                key=lambda signed: signed.receipt.sequence,
            )
            await hanse.look_for_cheats()
            assert await hanse.get_disputes() == []
        domain, escrow = stage.broker.domain, stage.market.escrow
        bent = msgspec.structs.replace(
            receipts[1], receipt=msgspec.structs.replace(receipts[1].receipt, cumulative_fee=1)
        )
        invented = [
            (Finding(Kind.OVERCLAIM, (receipts[1],), Claimed(sum(fees) + 1, 2)), "no overclaim"),
            (Finding(Kind.EQUIVOCATION, (receipts[1], receipts[1]), Claimed()), "no equivocation"),
            (Finding(Kind.EQUIVOCATION, (receipts[0], receipts[1]), Claimed()), "no equivocation"),
            (Finding(Kind.EQUIVOCATION, (bent, receipts[1]), Claimed()), "signature"),
        ]
        for finding, reason in invented:
            with pytest.raises(ChainError) as caught:
                await prove(stage.market.outbox(accuser), escrow, Evidence(domain, finding, ()))
            assert caught.value.reason == reason
        head = await stage.market.rpc.fetch_head()
        held = await stage.market.rpc.fetch_balance(accuser.address, block=head.number)
        assert held == 100 * ETHER, "what would be refused is not even sent"

        # sent all the same: it reverts, and only the gas is gone
        forced = replace(build_proof(escrow, Evidence(domain, invented[0][0], ())), gas_limit=10**6)
        with pytest.raises(ChainError):
            await stage.market.do(accuser, forced)
        head = await stage.market.rpc.fetch_head()
        assert await stage.market.rpc.fetch_balance(accuser.address, block=head.number) < held
        provider = await stage.read_provider()
        assert (provider.stake, provider.is_condemned) == (STAKE, False)
        elsewhere = Evidence(Domain(1, "0x" + "12" * 20), invented[0][0], ())
        with pytest.raises(RequestError, match="this market's is"):
            await prove(stage.market.outbox(accuser), escrow, elsewhere)


PASSWORD = "a password of the tests"


async def run(home: Path, *arguments: str) -> tuple[int, Any]:
    """`hanse disputes ARGUMENTS --json` in a thread; its exit code and its document."""
    variables = {"HANSE_HOME": str(home), "HANSE_PASSWORD": PASSWORD}
    words = ["disputes", *arguments, "--json"]
    result = await asyncio.to_thread(
        CliRunner().invoke, hanse_command, words, env=variables, prog_name="hanse"
    )
    return result.exit_code, json.loads(result.stdout or result.stderr)


async def test_the_commands_show_export_and_prove_a_dispute(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache) as stage:
        home = tmp_path / "home"
        save_network(home, await fetch_network(stage.market.url, stage.market.deployment))
        keys = home / "keys"
        user, stranger = (
            create_keystore(keys / f"{name}.json", PASSWORD, scrypt=Scrypt.LIGHT)
            for name in ("user", "stranger")
        )
        for key in (user, stranger):
            await stage.market.node.fund(key.address, 10 * ETHER)
        await stage.make_user(user)
        assert await run(home, "list") == (0, {"disputes": []})
        assert (await run(home, "show"))[0] == 5
        books = home / "user.db"
        async with stage.open(user, has_wallet=False, database=books) as hanse:
            spent = await buy(hanse)
        loss = await stage.overclaim(user) - spent
        await stage.market.node.fund(user.address, 0)
        async with stage.open(user, has_wallet=False, database=books) as hanse:
            waiting = await until_dispute(hanse, lambda dispute: "wei" in dispute.reason)
            money = await hanse.read_money()
            assert "dispute_waits" in [alarm.code for alarm in money.alarms]

        code, listed = await run(home, "list")
        (shown,) = listed["disputes"]
        assert (code, shown["state"], shown["loss"]) == (0, "found", str(loss))
        assert await run(home, "show", waiting.dispute_id[:10]) == (0, shown)
        assert (await run(home, "show", "0xnothing"))[0] == 5
        file, bent = tmp_path / "dispute.json", tmp_path / "bent.json"
        document = (await run(home, "export"))[1]
        file.write_text(json.dumps(document))
        bent.write_text(json.dumps({**document, "claimed": {"amount": "1", "sequence": "1"}}))
        assert (await run(home, "prove", str(bent)))[0] == 8

        code, proof = await run(home, "prove", str(file), "--key", "stranger", "--dry-run")
        assert (code, proof["sent"], proof["compensation"]) == (0, False, str(loss))
        assert (await run(home, "prove", str(file)))[0] == 7, "the user's key has no native coin"
        code, proof = await run(home, "prove", str(file), "--key", "stranger")
        assert (code, proof["sent"], proof["compensation"]) == (0, True, str(loss))
        assert await run(home, "prove", str(file), "--key", "stranger") == (0, proof), "sent once"
        assert await stage.read_account(user) == loss
        async with stage.open(user, has_wallet=False, database=books) as hanse:
            await until_dispute(hanse, is_won)
            money = await hanse.read_money()
            assert "dispute_waits" not in [alarm.code for alarm in money.alarms]
        (shown,) = (await run(home, "list"))[1]["disputes"]
        assert (shown["state"], shown["compensation"]) == ("confirmed", str(loss))
        assert shown["transaction_hash"] == proof["transaction_hash"]
