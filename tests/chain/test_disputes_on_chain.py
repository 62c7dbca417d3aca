"""The dispute calls of the typed faces, on a real node: the receipt as the rest of Hanse has it."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from chain_parts import make_funded_key
from test_contracts_on_chain import Party, make_deployment

from hanse.chain import ChainError, Key, Rpc, open_contracts
from hanse.contracts import Claim
from hanse.protocol.eip712 import Domain
from hanse.protocol.intents import Fund
from hanse.protocol.messages import FinishReason, Receipt, SignedReceipt, Usage, Voucher
from hanse.protocol.signatures import to_bytes, to_compact

HASH = "0x" + "ab" * 32
STAKE = 1_001


class Market:
    """A staked provider that took 300 from a depositor for two requests."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc

    async def open(self) -> "Market":
        deployment = await make_deployment(self.rpc)
        self.domain = Domain(deployment.chain_id, deployment.escrow)
        self.escrow, self.registry, asset = open_contracts(self.rpc, deployment)
        self.depositor_key, self.receipt_key = (
            await make_funded_key(self.rpc),
            await make_funded_key(self.rpc),
        )
        self.depositor = Party(self.rpc, self.depositor_key)
        self.provider = Party(self.rpc, await make_funded_key(self.rpc))
        await self.provider.do(asset.mint(self.provider.address, STAKE))
        await self.provider.do(asset.approve(self.registry.address, STAKE))
        await self.provider.do(
            self.registry.register(STAKE, self.receipt_key.address, self.provider.address)
        )
        await self.depositor.do(asset.mint(self.depositor.address, 1_000))
        await self.depositor.do(asset.approve(self.escrow.address, 1_000))
        fund = Fund(self.provider.address, self.depositor.address, 400)
        await self.depositor.do(self.escrow.open(1_000, [fund]))
        await self.provider.do(self.escrow.settle(self.provider.address, [self.claim(300, 2)]))
        return self

    def claim(self, claimed: int, sequence: int) -> Claim:
        voucher = Voucher(self.depositor.address, self.provider.address, claimed, sequence, HASH)
        digest = self.domain.digest(voucher.struct_hash())
        r, vs = to_compact(self.depositor_key.sign_digest(digest))
        return Claim(
            user=self.depositor.address,
            signer=self.depositor.address,
            cumulative_max=claimed,
            claimed=claimed,
            sequence=sequence,
            sequence_max=sequence,
            request_hash=to_bytes(HASH),
            r=r,
            vs=vs,
        )

    def receipt(self, key: Key | None = None, **changes: Any) -> SignedReceipt:
        receipt = Receipt(
            user=self.depositor.address,
            provider=self.provider.address,
            signer=self.depositor.address,
            sequence=2,
            request_hash=HASH,
            response_hash="0x" + "cd" * 32,
            usage=Usage(9, 3, 4),
            fee=20,
            cumulative_fee=120,
            finish_reason=FinishReason.LENGTH,
            finished_at=1_800_000_000,
            commitment_root="0x" + "ef" * 32,
        )
        receipt = msgspec.structs.replace(receipt, **changes)
        digest = self.domain.digest(receipt.struct_hash())
        return SignedReceipt(receipt, (key or self.receipt_key).sign_digest(digest))


@pytest.fixture
async def market(anvil: str) -> AsyncIterator[Market]:
    async with Rpc.connect(anvil) as rpc:
        yield await Market(rpc).open()


async def test_anyone_proves_an_overclaim_and_the_user_is_paid_back(market: Market) -> None:
    reporter = Party(market.rpc, await make_funded_key(market.rpc))
    block = await reporter.do(market.escrow.prove_overclaim(market.receipt()))
    assert await market.escrow.read_account(market.depositor.address, block=block) == 600 + 180
    names = (market.depositor.address, market.provider.address, market.depositor.address)
    assert await market.escrow.read_compensation(*names, block=block) == 180
    info = await market.registry.read_provider(market.provider.address, block=block)
    assert info.is_condemned
    assert (info.stake, info.pool) == (0, 500 - 180)
    assert not await market.registry.read_is_active(market.provider.address, block=block)
    for call in (
        market.escrow.prove_overclaim(market.receipt()),
        market.registry.burn_rest(market.provider.address),
    ):
        with pytest.raises(ChainError) as caught:
            await reporter.do(call)
        assert caught.value.reason in ("compensated", "locked")


async def test_anyone_proves_an_equivocation(market: Market) -> None:
    reporter = Party(market.rpc, await make_funded_key(market.rpc))
    dearer = market.receipt(cumulative_fee=250)
    block = await reporter.do(market.escrow.prove_equivocation(market.receipt(), dearer))
    assert await market.escrow.read_account(market.depositor.address, block=block) == 600 + 130


async def test_a_false_accusation_reverts(market: Market) -> None:
    reporter = Party(market.rpc, await make_funded_key(market.rpc))
    block = (await market.rpc.fetch_head()).number
    for call, reason in (
        (market.escrow.prove_overclaim(market.receipt(cumulative_fee=300)), "no overclaim"),
        (market.escrow.prove_overclaim(market.receipt(key=market.depositor_key)), "signature"),
        (
            market.escrow.prove_equivocation(market.receipt(), market.receipt()),
            "no equivocation",
        ),
    ):
        with pytest.raises(ChainError) as caught:
            await reporter.do(call)
        assert caught.value.reason == reason
    info = await market.registry.read_provider(market.provider.address, block=block)
    assert (info.stake, info.is_condemned) == (STAKE, False)
