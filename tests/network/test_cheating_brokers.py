"""Brokers that cheat on purpose (`--cheat`), on a real chain, and the real user that finds them.

The broker is the product's own, with one hook set; all that it is caught by is the user's own side.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hanse.chain.asset import Asset
from hanse.chain.registry import Registry
from hanse.engines import open_engine
from hanse.protocol.errors import HanseError, VerificationError
from hanse.provider import BrokerKeys, BrokerProcess, Service
from hanse.sdk import Hanse, Settings, Verification
from hanse.settlement.disputes.dispute_book import DisputeState, StoredDispute
from hanse.settlement.disputes.findings import Kind
from tests.provider.chain_parts import PRICES, Market, run_market

pytestmark = pytest.mark.slow

FUNDED = 100_000
PATH = "/v1/chat/completions"
BODY = json.dumps(
    {"model": "echo-fake", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 50}
).encode()
STREAM = BODY.replace(b"{", b'{"stream": true, "stream_options": {"include_usage": true}, ', 1)


@dataclass
class Stage:
    """A provider that cheats, and its user."""

    market: Market
    process: BrokerProcess
    hanse: Hanse

    async def buy(self, body: bytes = BODY) -> int:
        answer = await self.hanse.request(PATH, body)
        if answer.is_stream:
            async for _ in answer.frames():
                pass
        else:
            await answer.read()
        assert answer.receipt is not None
        return answer.receipt.fee

    async def until_won(self, kind: Kind, deadline_s: float = 30.0) -> StoredDispute:
        """Wait until Escrow has judged a dispute of this kind for the user."""
        ends = time.monotonic() + deadline_s
        found: list[StoredDispute] = []
        while time.monotonic() < ends:
            found = await self.hanse.get_disputes()
            for dispute in found:
                is_kind = dispute.evidence.finding.kind is kind
                if is_kind and dispute.state is DisputeState.CONFIRMED:
                    return dispute
            await asyncio.sleep(0.05)
        raise AssertionError(f"no such dispute in time: {[(d.state, d.reason) for d in found]}")

    async def assert_is_condemned(self) -> None:
        registry = Registry(self.market.rpc, self.market.deployment.registry)
        head = await self.market.rpc.fetch_head()
        provider = await registry.read_provider(self.market.owner.address, block=head.number)
        assert (provider.is_condemned, provider.stake) == (True, 0)


@contextlib.asynccontextmanager
async def open_stage(folder: Path, cache: Path, *cheats: str) -> AsyncIterator[Stage]:
    async with run_market(folder / "chain", cache) as market:
        service = Service(1, open_engine("echo", {"answer_tokens": 8}), PRICES)
        process = await BrokerProcess.start(
            market.get_broker_settings(folder / "broker", cheats=cheats),
            BrokerKeys(market.receipt, market.owner),
            [service],
        )
        try:
            settings = await make_settings(market, folder)
            async with Hanse.open(settings) as hanse:
                await hanse._parts.chain.refresh()
                await hanse.discover()
                yield Stage(market, process, hanse)
        finally:
            await process.stop()


async def make_settings(market: Market, folder: Path) -> Settings:
    """Of a user whose wallet signs, with a funded sub-account."""
    user = await market.make_key()
    asset = Asset(market.rpc, market.deployment.asset)
    await market.do(
        user,
        asset.mint(user.address, FUNDED),
        asset.approve(market.deployment.escrow, FUNDED),
        market.escrow.deposit(FUNDED),
        market.escrow.fund(market.owner.address, user.address, FUNDED),
    )
    return Settings(
        market.url,
        market.deployment,
        folder / "user.db",
        signer=user,
        user=user.address,
        wallet=user,
        discover_interval_s=0,
        resume_interval_s=0,
        dispute_interval_s=0.1,
    )


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_overbilling_contradicts_the_answer_and_ends_the_trade(
    tmp_path: Path, anvil_cache: Path, body: bytes
) -> None:
    async with open_stage(tmp_path, anvil_cache, "overbill") as stage:
        with pytest.raises(VerificationError) as caught:
            await stage.buy(body)
        assert caught.value.code == "response_mismatch"
        (receipt,) = await stage.hanse.get_receipts()
        assert receipt.verification is Verification.MISMATCHED
        assert receipt.signed.receipt.usage.output_tokens == 12, "8 were delivered"
        with pytest.raises(HanseError, match=r"is down since|is disputed"):
            await stage.buy(body)


async def test_overclaiming_is_proven_and_slashed_and_the_user_made_whole(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache, "overclaim") as stage:
        spent = await stage.buy() + await stage.buy()
        (batch,) = await stage.process.settle_now()
        assert batch.paid > spent
        won = await stage.until_won(Kind.OVERCLAIM)
        assert won.compensation == won.evidence.finding.loss == batch.paid - spent
        await stage.assert_is_condemned()
        money = await stage.hanse.read_money()
        assert money.total == FUNDED - spent, "whole but for what was served"


async def test_a_second_receipt_on_resume_is_proven_and_slashed(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache, "equivocate") as stage:
        await stage.buy()
        (report,) = await stage.hanse.resume(adopt=True)
        assert report.errors
        won = await stage.until_won(Kind.EQUIVOCATION)
        first, second = (signed.receipt for signed in won.evidence.finding.receipts)
        assert first.sequence == second.sequence == 1
        assert first.cumulative_fee != second.cumulative_fee
        await stage.assert_is_condemned()


async def test_without_a_cheat_the_same_broker_is_found_honest(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_stage(tmp_path, anvil_cache) as stage:
        spent = await stage.buy() + await stage.buy(STREAM)
        (batch,) = await stage.process.settle_now()
        assert batch.paid == spent
        (report,) = await stage.hanse.resume(adopt=True)
        assert report.errors == []
        await stage.hanse.look_for_cheats()
        assert await stage.hanse.get_disputes() == []
