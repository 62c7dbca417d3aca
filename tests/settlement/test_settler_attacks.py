"""What others do on the chain must not make a broker burn gas for ever or miss its money."""

import asyncio

import pytest

from hanse.chain import create_key
from hanse.chain.asset import Asset
from hanse.contracts import Claim
from hanse.protocol.intents import Fund
from hanse.protocol.messages import Voucher
from hanse.protocol.signatures import ZERO_HASH, to_bytes, to_compact
from hanse.settlement.netting.scheduler import REFUNDS_PER_ROUND_MAX
from tests.settlement.test_settler import run_desk

pytestmark = pytest.mark.slow


async def test_a_second_broker_on_one_key_does_not_make_the_first_settle_for_ever(
    tmp_path, anvil_cache
):
    """Its sequences are ahead on the chain: the same claim is "nothing new" however often sent."""
    async with run_desk(tmp_path, anvil_cache) as desk:
        market, provider = desk.market, desk.market.owner.address
        user, signer = await market.make_user(1_000)
        await desk.sell(user, signer, 1)
        await desk.scheduler.settle(asked=True)
        voucher = Voucher(user.address, provider, 50, 9, ZERO_HASH)
        r, vs = to_compact(signer.sign_digest(desk.domain.digest(voucher.struct_hash())))
        other = Claim(user.address, signer.address, 50, 50, 9, 9, to_bytes(ZERO_HASH), r, vs)
        await desk.sell(user, signer, 600)  # once the claim below shows, nothing is admitted
        await market.do(market.receipt, market.escrow.settle(provider, [other]))
        await desk.see(user, signer, claimed=50)
        async with asyncio.timeout(20):
            batches = await desk.scheduler.settle(asked=True)
        assert [c.status_name for b in batches for c in b.claims] == ["nothing new"]
        assert await desk.scheduler.settle(asked=True) == [], "it is not sent again"


async def test_many_small_refunds_do_not_keep_a_broker_from_its_claims(tmp_path, anvil_cache):
    """Each costs a confirmation's time; a round of maintenance must come to its end before that."""
    count = REFUNDS_PER_ROUND_MAX + 3
    async with run_desk(tmp_path, anvil_cache) as desk:
        market, provider = desk.market, desk.market.owner.address
        user, signers = await market.make_key(), [create_key() for _ in range(count)]
        asset = Asset(market.rpc, market.deployment.asset)
        amounts = [1] * (count - 1) + [50]
        funds = [Fund(provider, s.address, n) for s, n in zip(signers, amounts, strict=True)]
        await market.do(
            user,
            asset.mint(user.address, 1_000),
            asset.approve(market.deployment.escrow, 1_000),
            market.escrow.open(sum(amounts), funds),
            *(
                market.escrow.request_refund(provider, s.address, n)
                for s, n in zip(signers, amounts, strict=True)
            ),
        )
        await market.node.advance_time(3_700)
        await market.node.mine(1)
        await desk.see(user, signers[-1], pending_refund=50)
        assert await desk.scheduler.complete_due_refunds() == REFUNDS_PER_ROUND_MAX
        await desk.see(user, signers[-1], balance=0)
        assert await desk.scheduler.complete_due_refunds() == 3
