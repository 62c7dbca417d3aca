"""Real HTTP, a real chain: two providers and a user share one recorder's transactions."""

import pytest

from hanse.protocol.records import verify_record
from hanse.settlement.records.chain_check import verify_on_chain
from tests.recorder.record_parts import ReceiptList, digest_of, key_of, until

pytestmark = pytest.mark.slow


async def test_two_providers_are_recorded_in_one_transaction(world):
    first, second = await world.add_seller(), await world.add_seller()
    buyer = await world.add_buyer(first, second)
    at_first = [world.make_receipt(first, buyer, n) for n in range(1, 11)]
    at_second = [world.make_receipt(second, buyer, n) for n in range(1, 11)]
    everything = at_first + at_second
    process = await world.start_recorder()
    try:
        async with (
            world.submitter(first, ReceiptList(at_first), process.url) as one,
            world.submitter(second, ReceiptList(at_second), process.url) as two,
            world.submitter(buyer, ReceiptList(everything), process.url) as user,
        ):
            await one.step()
            await two.step()
            waiting = await one.book.list_waiting()
            assert {known.reason for known in waiting} == {"missing_at_user"}
            assert await world.read_commits(process.recorder.address) == []
            await user.step()
            states = await user.book.count_states()
            assert states == {"matched": 20}

            async def is_recorded() -> bool:
                await user.step()
                return (await user.book.count_states()).get("recorded") == 20

            await until(is_recorded)
            (commit,) = await world.read_commits(process.recorder.address)
            assert (commit.number, commit.count, commit.fee_total) == (1, 20, 60)
            for signed in everything:
                known = await user.book.find_entry(key_of(signed))
                verify_record(known.proof, digest_of(world, signed))
                await verify_on_chain(world.view, known.proof)
            assert await user.get_head() == commit.head

            # nothing more is posted when there is nothing more
            commits_at = process.committer.block + 3 * process.settings.interval_blocks
            await world.market.node.mine(3 * process.settings.interval_blocks)
            await until(lambda: process.committer.block >= commits_at)
            assert len(await world.read_commits(process.recorder.address)) == 1
            # what stood unmatched at the providers is submitted again, and proven
            for side in (one, two):

                async def is_proven(side=side) -> bool:
                    await side.book.note_asked(
                        [known.entry for known in await side.book.list_waiting()], 0
                    )
                    await side.step()
                    return (await side.book.count_states()) == {"recorded": 10}

                await until(is_proven)
            receipt = await world.market.rpc.fetch_receipt(known.proof.transaction_hash)
            print("gas of the first commit:", receipt.gas_used)
            assert receipt.gas_used <= 60_000
    finally:
        await process.stop()
