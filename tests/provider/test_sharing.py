"""Real broker processes on one PostgreSQL database: nothing twice, nothing lost, somebody leads."""

import asyncio
import json
import signal
import time

import aiohttp
import msgspec
import psycopg
import pytest

from hanse.protocol.eip712 import Domain
from hanse.protocol.hashing import EMPTY_RESPONSE_HASH
from hanse.protocol.messages import FinishReason
from hanse.protocol.pricing import get_maximum_fee
from tests.provider.broker_parts import QUICK_LEASE, Caller, chat_body, until
from tests.provider.chain_parts import STAKE, run_market
from tests.provider.test_crashes import broker_process, fetch_offer, send_into_crash

pytestmark = pytest.mark.slow
SLACK_S = 2.0
"""Beyond the stated time, for a machine that runs other tests as well."""


@pytest.fixture
def database(postgres_server) -> str:
    return postgres_server.create_database()


def read_requests(database: str) -> list[tuple[str, int | None]]:
    with psycopg.connect(database) as connection:
        return connection.execute("SELECT request_id, sequence FROM receipt_requests").fetchall()


async def fetch_health(url: str) -> dict:
    async with aiohttp.ClientSession() as session, session.get(url + "/health") as answer:
        return await answer.json()


async def send_all(callers, signed, at_once=1_000):
    """Every request by each caller in turn, `at_once` at a time at each."""
    turns = [asyncio.Semaphore(at_once) for _ in callers]

    async def send(number, one):
        async with turns[number]:
            return await callers[number].send(one)

    return await asyncio.gather(*(send(i % len(callers), one) for i, one in enumerate(signed)))


async def test_a_thousand_replays_over_two_brokers_are_served_and_paid_once(database):
    async with broker_process(database) as (_, first), broker_process(database) as (_, second):
        offer = await fetch_offer(first)
        async with Caller(first, offer) as one, Caller(second, offer) as two:
            signed = one.sign()
            # as many as one sub-account may have at work, so that all of them reach the book
            replies = await send_all([one, two], [signed] * 1_000, at_once=60)
            served = [reply for reply in replies if reply.status == 200]
            assert len(served) == 1
            one.check(signed, served[0])
            others = {reply.error["code"] for reply in replies if reply.status != 200}
            assert others == {"request_replayed"}
            for caller in (one, two):  # both tell the same book
                data, receipts = await caller.fetch_receipts()
                assert [r.receipt for r in receipts] == [served[0].receipt.receipt]
                assert (data["state"]["sequence"], data["in_flight"]) == ("1", [])
    assert len(read_requests(database)) == 1


async def test_one_sub_account_through_two_brokers_is_never_overspent(database, monkeypatch):
    """Each of 120 vouchers claims the whole balance; it is enough for 20 requests at once."""
    affordable = 20
    body = json.dumps(chat_body()).encode()
    async with broker_process(database) as (_, url):
        most = get_maximum_fee(await fetch_offer(url), len(body), 8)
    monkeypatch.setenv("FUNDS", str(funds := affordable * most))
    slow = {"delay_s": 0.3}
    async with (
        broker_process(database, **slow) as (_, first),
        broker_process(database, **slow) as (_, second),
    ):
        offer = await fetch_offer(first)
        async with Caller(first, offer) as one, Caller(second, offer) as two:
            signed = [one.sign(committed=funds, sequence_max=1_000) for _ in range(120)]
            replies = await send_all([one, two], signed)
            served = [reply for reply in replies if reply.status == 200]
            assert len(served) == affordable
            refused = {reply.error["code"] for reply in replies if reply.status != 200}
            assert refused <= {"insufficient_balance", "voucher_too_low", "overloaded"}
            assert refused & {"insufficient_balance", "voucher_too_low"}
            data, receipts = await two.fetch_receipts()
            assert sorted(r.receipt.sequence for r in receipts) == list(range(1, affordable + 1))
            total = sum(r.receipt.fee for r in receipts)
            assert int(data["state"]["cumulative_fee"]) == total <= funds
            assert data["state"]["reserved"] == "0"


async def test_a_killed_brokers_request_is_closed_by_the_other_and_no_one_elses(database):
    async with (
        broker_process(database, delay_s=0.4) as (dying, first),
        broker_process(database, delay_s=0.4) as (_, second),
    ):
        offer = await fetch_offer(first)
        async with Caller(first, offer) as one, Caller(second, offer) as two:
            cut, whole = (one.sign(stream=True, committed=10**9, sequence_max=9) for _ in range(2))
            cutting = asyncio.create_task(send_into_crash(one, cut))
            serving = asyncio.create_task(two.send(whole))
            await until(lambda: len(read_requests(database)) == 2)
            dying.kill()
            killed_at = time.monotonic()
            await cutting
            closed_at = 0.0

            async def is_closed() -> bool:
                return (await two.fetch_receipts())[0]["in_flight"] == [
                    whole.voucher.request.request_id
                ] or serving.done()

            await until(is_closed, 30)
            closed_at = time.monotonic()
            reply = await serving
            two.check(whole, reply)
            assert reply.receipt.receipt.fee > 0
            await until(lambda: all(n for _, n in read_requests(database)), 30)
            assert closed_at - killed_at < QUICK_LEASE.ends_after_s + SLACK_S + 4
            _, receipts = await two.fetch_receipts()
            (closed,) = [r.receipt for r in receipts if r.receipt.fee == 0]
            assert closed.request_hash == cut.voucher.voucher.request_hash
            assert closed.response_hash == EMPTY_RESPONSE_HASH
            assert closed.finish_reason is FinishReason.ERROR


async def test_a_broker_that_stalls_past_its_lease_signs_nothing_for_what_was_closed(database):
    async with (
        broker_process(database, delay_s=0.2) as (stalled, first),
        broker_process(database) as (_, second),
    ):
        offer = await fetch_offer(first)
        async with Caller(first, offer) as one, Caller(second, offer) as two:
            signed = one.sign(stream=True)
            streaming = asyncio.create_task(send_into_crash(one, signed))
            await until(lambda: len(read_requests(database)) == 1)
            stalled.send_signal(signal.SIGSTOP)
            try:
                await until(lambda: all(n for _, n in read_requests(database)), 30)
            finally:
                stalled.send_signal(signal.SIGCONT)
            reply = await streaming
            assert reply is None or not reply.ended
            assert reply is None or reply.receipt is None
            _, receipts = await two.fetch_receipts()
            assert [(r.receipt.sequence, r.receipt.fee) for r in receipts] == [(1, 0)]
            again = await send_into_crash(one, one.sign(committed=10**9, sequence_max=9))
            assert again is None or again.status == 503


@pytest.mark.parametrize("failpoint", ["settle_enqueued", "settle_confirmed"])
async def test_a_leader_killed_while_it_settles_is_replaced_and_all_is_paid_once(
    database, tmp_path, anvil_cache, failpoint
):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        chain = tmp_path / "chain.json"
        chain.write_text(
            json.dumps(
                {
                    "url": market.url,
                    "owner": market.owner._secret.to_hex(),
                    "receipt": market.receipt._secret.to_hex(),
                    "deployment": msgspec.json.encode(market.deployment).decode(),
                    "stake": str(STAKE),
                    "database": database,
                }
            )
        )
        folders = [str(tmp_path / name) for name in ("one", "two")]
        async with (
            broker_process(folders[0], str(chain), failpoint=failpoint) as (leader, first),
            broker_process(folders[1], str(chain)) as (follower, second),
        ):
            leads = (await fetch_health(first))["instance"]
            assert (await fetch_health(second))["leader"] == leads
            user, signer = await market.make_user(10**6)
            d = market.deployment
            async with Caller(
                second,
                await fetch_offer(second),
                signer,
                user.address,
                domain=Domain(d.chain_id, d.escrow),
                provider=market.owner.address,
                receipt_key=market.receipt.address,
            ) as caller:
                head = (await market.rpc.fetch_head()).number

                async def both_see_it() -> bool:
                    seen = [(await fetch_health(url))["chain_block"] for url in (first, second)]
                    return min(seen) >= head - 2

                await until(both_see_it)
                fees = [(await caller.buy()).receipt.receipt.fee for _ in range(3)]
            leader.send_signal(signal.SIGUSR1)
            assert await asyncio.wait_for(leader.wait(), 30) == -signal.SIGKILL
            killed_at = time.monotonic()

            async def leads_now() -> bool:
                health = await fetch_health(second)
                return health["leader"] == health["instance"] != leads

            await until(leads_now, 30)
            assert time.monotonic() - killed_at < QUICK_LEASE.ends_after_s + SLACK_S
            follower.send_signal(signal.SIGUSR1)
            line = await asyncio.wait_for(follower.stdout.readline(), 60)
            assert json.loads(line)["paid"] in (0, sum(fees))
            assert await market.read_asset(market.owner.address) == sum(fees)
            account = await market.read_sub_account(user, signer)
            assert (account.claimed, account.balance) == (sum(fees), 10**6 - sum(fees))
