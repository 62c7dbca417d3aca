"""An offer says `embedded`, and its bills come without a commitment: seen, counted, left."""

import pytest

from hanse.market.health import BREACHES_OUT
from hanse.protocol.errors import HanseError, TransientError
from hanse.protocol.signatures import ZERO_HASH
from hanse.sdk import Verification
from tests.sdk.conftest import World
from tests.sdk.test_dishonest import BODY, STREAM, buy


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_a_bill_without_the_promised_commitment_is_counted_and_known(
    world: World, body: bytes
) -> None:
    world.cheap.offer_embedded()
    world.only(world.cheap)
    async with world.open() as hanse:
        await buy(hanse, body)
        world.cheap.commitment_root = ZERO_HASH
        assert b"forty" in await buy(hanse, body), "the answer is what was signed for: it is given"
        broken, kept = await hanse.get_receipts()
        assert (kept.verification, kept.reason) == (Verification.VERIFIED, "")
        assert broken.verification is Verification.UNCOMMITTED
        assert "without a commitment" in broken.reason
        await world.assert_books_agree(world.cheap)


async def test_a_provider_is_left_after_a_few_of_them_and_the_next_one_serves(world: World) -> None:
    world.cheap.offer_embedded()
    world.cheap.commitment_root = ZERO_HASH
    world.only(world.cheap)
    async with world.open() as hanse:
        for _ in range(BREACHES_OUT):
            await buy(hanse, BODY)
        with pytest.raises(HanseError, match="without a commitment"):
            await buy(hanse, BODY)
    assert world.cheap.paid_requests == BREACHES_OUT


async def test_what_promises_no_commitment_or_costs_nothing_owes_none(world: World) -> None:
    world.only(world.dear)  # of class `reputation`
    async with world.open() as hanse:
        await buy(hanse, BODY)
        world.cheap.offer_embedded()
        world.cheap.commitment_root = ZERO_HASH
        world.cheap.lie = "engine-fails"  # with a receipt of fee 0
        world.only(world.cheap)
        await hanse.discover()
        with pytest.raises(TransientError):
            await buy(hanse, BODY)
        found = [receipt.verification for receipt in await hanse.get_receipts()]
        assert found == [Verification.VERIFIED] * 2


@pytest.mark.parametrize("is_kept", [True, False], ids=["answer kept", "answer gone"])
async def test_a_broken_off_answer_hides_no_breach(world: World, is_kept: bool) -> None:
    """Whoever cuts the end off, so that the receipt comes by resume, is held to it all the same."""
    world.cheap.offer_embedded()
    world.cheap.commitment_root = ZERO_HASH
    world.cheap.lie = "cut-before-receipt"
    world.only(world.cheap)
    async with world.open() as hanse:
        with pytest.raises(TransientError):
            await buy(hanse, STREAM)
        if not is_kept:
            world.cheap.answers.clear()
        (report,) = await hanse.resume()
        assert len(report.errors) == 1
        assert report.unverified == (0 if is_kept else 1)
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.UNCOMMITTED
        assert ("cannot be compared" in receipt.reason) is not is_kept


async def test_a_breach_is_known_after_a_restart(world: World) -> None:
    world.cheap.offer_embedded()
    world.cheap.commitment_root = ZERO_HASH
    world.only(world.cheap)
    async with world.open() as hanse:
        await buy(hanse, BODY)
    async with world.open() as hanse:
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.UNCOMMITTED
