"""Money moved by commands on a running network, and what applications see when it is short."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import APIStatusError

from hanse.cli.local_network import LOCK_TIME_S
from hanse.protocol.errors import HanseError
from tests.network.books import read_provider, read_units, wait_agreed
from tests.network.market import TOKENS, Market, buy_again, stream_words, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

SELLERS = ("rostock", "lubeck", "hamburg")
UNIT = 1_000_000


async def read_money(market: Market) -> dict[str, Any]:
    """`hanse money`; it adds up, and to what the chain holds."""
    money: dict[str, Any] = await market.network.run_command("money")
    assert money["differences"] == []
    assert sum(int(place["amount"]) for place in money["places"]) == int(money["total"])
    units = await read_units(market)
    assert int(money["by_place"]["wallet"]) == units.user_wallet
    assert int(money["by_place"]["account"]) == units.account
    inside = sum(
        int(money["by_place"][place]) for place in ("free", "reserved", "accrued", "refund")
    )
    assert inside == sum(units.sub_accounts.values())
    assert int(money["paid"]) == sum(units.claimed.values())
    return money


def get_moved(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """By how much each place has changed; what has not is left out."""
    moved = {
        place: int(after["by_place"][place]) - int(before["by_place"][place])
        for place in after["by_place"]
    }
    return {place: amount for place, amount in moved.items() if amount}


async def test_every_move_is_where_it_says(market):
    """Wallet -> account -> sub-account -> refund -> account -> wallet; the sum never changes."""
    command = market.network.run_command
    moves = [
        (("deposit", "3"), {"wallet": -3 * UNIT, "account": 3 * UNIT}),
        (("fund", "lubeck", "2", "--signer", "gateway"), {"account": -2 * UNIT, "free": 2 * UNIT}),
        (("refund", "lubeck", "2", "--signer", "gateway"), {"free": -2 * UNIT, "refund": 2 * UNIT}),
        (
            ("refund", "lubeck", "--claim", "--signer", "gateway"),
            {"account": 2 * UNIT, "refund": -2 * UNIT},
        ),
        (("withdraw", "3"), {"account": -3 * UNIT, "wallet": 3 * UNIT}),
    ]
    before = await read_money(market)
    for arguments, expected in moves:
        if "--claim" in arguments:
            with pytest.raises(HanseError, match="comes free at"):
                await command("account", *arguments)
            await market.network.node.advance_time(LOCK_TIME_S + 1)
        done = None
        try:
            done = await command("account", *arguments)
        except HanseError as error:
            # the broker completes due refunds too, and may have been faster
            if "--claim" not in arguments or "no refund" not in error.message:
                raise
        after = await read_money(market)
        assert get_moved(before, after) == expected, arguments
        assert after["total"] == before["total"]
        if done is not None:
            assert after["journal"][-1]["transaction_hash"] == done["transaction_hash"]
        before = after

    with pytest.raises(HanseError, match="the account holds"):
        await command("account", "withdraw", "1000000")
    assert get_moved(before, await read_money(market)) == {}


async def test_a_purchase_moves_its_fee_and_nothing_else(market):
    before = await read_money(market)
    words: list[str] = []
    prompt = "what does one answer cost"
    assert await stream_words(market.client, "echo-shared", prompt, words) == "ended"
    receipt = (await wait_agreed(market, "lubeck")).receipts[-1]
    assert receipt.usage.output_tokens == len(words) == TOKENS
    accrued = await read_money(market)
    assert get_moved(before, accrued) == {"free": -receipt.fee, "accrued": receipt.fee}

    due = get_accrued(accrued, market.get_address("lubeck"))
    settled_now = await market.network.run_command("settle", "--name", "lubeck")
    settled = await read_money(market)
    assert get_moved(accrued, settled) == {"accrued": -due}
    assert int(settled["paid"]) - int(accrued["paid"]) == int(settled_now["paid"]) == due
    assert due >= receipt.fee


def get_accrued(money: dict[str, Any], provider: str) -> int:
    return sum(
        int(place["amount"])
        for place in money["places"]
        if (place["place"], place["provider"]) == ("accrued", provider)
    )


@pytest_asyncio.fixture(loop_scope="session")
async def emptied(market: Market) -> AsyncIterator[str]:
    """A provider whose sub-account has all its free money asked back; in the end it stays."""
    command = market.network.run_command
    await command("account", "refund", "rostock", "--signer", "gateway")
    before = await read_money(market)
    pending = int(before["by_place"]["refund"])
    assert pending > 0
    yield "rostock"
    await command("account", "refund", "rostock", "--cancel", "--signer", "gateway")
    after = await read_money(market)
    assert get_moved(before, after).keys() <= {"free", "refund", "accrued"}
    assert after["by_place"]["refund"] == "0"
    await buy_again(market, "echo-rostock")
    await wait_agreed(market, "rostock")


async def test_an_empty_sub_account_is_a_402_with_amounts(market, emptied):
    before = read_provider(market, emptied)

    async def find_error() -> APIStatusError | None:
        try:
            await market.client.chat.completions.create(
                model="echo-rostock", messages=[{"role": "user", "content": "hello"}], max_tokens=2
            )
        except APIStatusError as error:
            return error
        return None

    # the gateway sees the refund once its block is confirmed
    error = await until(find_error, 20, "the request is refused")
    assert error.status_code == 402
    assert error.code == "insufficient_balance"
    assert error.type == "insufficient_quota"
    needed, available, missing = (
        int(error.body["hanse"][name]) for name in ("needed", "available", "missing")
    )
    assert available == 0
    assert needed == missing > 0
    assert str(needed) in error.message
    after = await wait_agreed(market, emptied)
    assert after.sequence - before.sequence <= 1  # at most what was served before it was seen


async def test_failover_to_the_dearer_provider_and_none(market):
    cheap, dear, model = "lubeck", "hamburg", "echo-shared"
    await buy_again(market, model)
    before = {name: await wait_agreed(market, name) for name in (cheap, dear)}
    await market.network.stop_process(cheap)

    words: list[str] = []
    assert await stream_words(market.client, model, "who serves me now", words) == "ended"
    after = {name: await wait_agreed(market, name) for name in (cheap, dear)}
    assert after[cheap] == before[cheap]
    (paid,) = after[dear].receipts[before[dear].sequence :]
    assert paid.usage.output_tokens == len(words) == TOKENS
    assert paid.fee == after[dear].cumulative_fee - before[dear].cumulative_fee > 0

    await market.network.stop_process(dear)
    with pytest.raises(APIStatusError) as caught:
        await market.client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "is anybody there"}]
        )
    error = caught.value
    assert error.status_code == 503
    assert error.code in ("no_provider", "provider_unreachable")
    assert market.get_address(dear) in error.message or "refused" in error.message, error.message
    assert int(error.response.headers["retry-after"]) > 0

    for name in (cheap, dear):
        await market.restart_provider(name)
    await buy_again(market, model)
    for name in (cheap, dear):
        await wait_agreed(market, name)
    await read_money(market)
