"""A provider whose stake does not stand any more: it offers nothing, and gets what was signed."""

import json
import logging

import msgspec
import pytest

from hanse.chain import ChainError
from hanse.chain.registry import Registry
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Prices
from hanse.provider import BrokerProcess
from hanse.sdk.disputes import build_proof
from hanse.settlement.disputes.evidence import Evidence
from hanse.settlement.disputes.findings import Claimed, Finding, Kind
from tests.provider.broker_parts import until
from tests.provider.chain_parts import STAKE, run_market
from tests.provider.test_process_on_chain import caller_of, start

pytestmark = pytest.mark.slow

DEARER = Prices(200_000, 50_000, 300_000)
"""Something to publish at the next start."""

FUNDED = 10**6


async def condemn(market, signed) -> None:
    """Prove an equivocation: the receipt key signs another receipt for the same sequence."""
    domain = Domain(market.deployment.chain_id, market.deployment.escrow)
    other = msgspec.structs.replace(signed.receipt, response_hash="0x" + "ee" * 32)
    second = msgspec.structs.replace(
        signed,
        receipt=other,
        signature=market.receipt.sign_digest(domain.digest(other.struct_hash())),
    )
    finding = Finding(Kind.EQUIVOCATION, (signed, second), Claimed())
    call = build_proof(market.escrow, Evidence(domain, finding, ()))
    await market.do(await market.make_key(), call)


async def read_service(market):
    head = await market.rpc.fetch_head()
    registry = Registry(market.rpc, market.deployment.registry)
    return await registry.read_service(market.owner.address, 1, block=head.number)


async def wait_funds(process: BrokerProcess, user, signer):
    view = process.broker.parts.chain_view
    return await until(lambda: view.find_funds(user.address, signer.address))


async def test_a_condemned_provider_starts_offers_nothing_settles_and_refunds(
    tmp_path, anvil_cache, caplog
):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start(market, tmp_path)
        user, signer = await market.make_user(FUNDED)
        await wait_funds(process, user, signer)
        async with caller_of(market, process, user, signer) as caller:
            fee = (bought := await caller.buy()).receipt.receipt.fee
            before = await read_service(market)
            with caplog.at_level(logging.ERROR):
                await condemn(market, bought.receipt)
                await process.read_money()
                # it serves on for who signed before it knew, and publishes nothing more
                assert process.broker.parts.offers.list_current() == []
                fee += (await caller.buy()).receipt.receipt.fee
                await process._rounds.maintain()
            assert caplog.text.count("this provider is condemned") == 1
        await process.stop()
        caplog.clear()

        with caplog.at_level(logging.ERROR):
            process = await start(market, tmp_path, owner=False, prices=DEARER)
        assert caplog.text.count("this provider is condemned") == 1
        assert process.broker.money_alarms == ("condemned",)
        assert process.broker.admitting
        async with caller.__class__(
            process.url,
            caller.offer,
            signer,
            user.address,
            domain=caller.domain,
            provider=market.owner.address,
            receipt_key=market.receipt.address,
        ) as late:
            assert json.loads((await late.get("/hanse/v1/offers")).body) == {"offers": []}
            health = await late.get("/health")
            assert health.status == 503
            assert b"offers nothing" in health.body
            refused = await late.send(late.sign())
            assert refused.error["code"] == "offer_changed"
        await process._rounds.maintain()
        assert await read_service(market) == before, "nothing was published"

        paid_before = await market.read_asset(market.owner.address)
        (batch,) = await process.settle_now()
        assert batch.paid == fee
        assert await market.read_asset(market.owner.address) == paid_before + fee
        await market.do(
            user,
            market.escrow.request_refund(market.owner.address, signer.address, FUNDED - fee),
        )
        view = process.broker.parts.chain_view
        await until(lambda: view.find_funds(user.address, signer.address).pending_refund, 10)
        await market.node.advance_time(3_601)
        assert await process.complete_due_refunds() == 1
        head = await market.rpc.fetch_head()
        assert await market.escrow.read_account(user.address, block=head.number) == FUNDED - fee
        await process.stop()


async def test_an_unbonding_provider_starts_and_publishes_once_it_stays_after_all(
    tmp_path, anvil_cache
):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start(market, tmp_path)
        user, signer = await market.make_user(FUNDED)
        await wait_funds(process, user, signer)
        async with caller_of(market, process, user, signer) as caller:
            fee = (await caller.buy()).receipt.receipt.fee
        await process.stop()
        registry = Registry(market.rpc, market.deployment.registry)
        await market.do(market.owner, registry.begin_unbonding())
        with pytest.raises(ChainError):
            await market.do(market.owner, registry.begin_unbonding())

        process = await start(market, tmp_path, owner=False, prices=DEARER)
        assert process.broker.parts.offers.list_current() == []
        (batch,) = await process.settle_now()
        assert batch.paid == fee
        await market.do(market.owner, registry.cancel_unbonding())
        await process._rounds.maintain()
        (current,) = process.broker.parts.offers.list_current()
        assert current.signed.offer.prices == DEARER
        assert (await read_service(market)).offer_hash == current.offer_hash
        info = await registry.read_provider(
            market.owner.address, block=(await market.rpc.fetch_head()).number
        )
        assert info.stake == STAKE
        await process.stop()
