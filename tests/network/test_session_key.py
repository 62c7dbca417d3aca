"""A gateway on a session key: the wallet pays it once, sub-accounts come by themselves."""

import asyncio

import pytest
from openai import AsyncOpenAI

from hanse.cli.local_network import find_free_port
from tests.network.market import Market, is_healthy, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


async def test_one_transfer_from_the_wallet_is_all_that_a_gateway_needs(market: Market) -> None:
    network = market.network
    await network.give("owner-of-session", 3_000_000)
    address = network.get_key("session").address
    sent = await network.run_command(
        *("gateway", "fund", "1", "--key", "owner-of-session", "--to", "session")
    )
    assert (sent["amount"], sent["receiver"]) == ("1000000", address)

    port = find_free_port()
    arguments = ["gateway", "start", "--key", "session", "--fund-to", "0.4", "--fund-per-day", "1"]
    child = await network._start("session-gateway", port, [*arguments, "--port", str(port)])
    try:
        await until(lambda: is_healthy(child), 60, "the gateway answers")
        url = f"{child.url}/v1"
        async with AsyncOpenAI(base_url=url, api_key=market.api_key, max_retries=3) as client:
            asked = [
                client.chat.completions.create(
                    model="echo-shared",
                    messages=[{"role": "user", "content": "two words"}],
                    max_tokens=2,
                )
                for _ in range(3)
            ]
            answers = await asyncio.gather(*asked)
        told = [str(answer.choices[0].message.content).split() for answer in answers]
        assert [sorted(words) for words in told] == [["two", "words"]] * 3
    finally:
        await network.stop_process("session-gateway")
    shown = await network.run_command("account", "show", "--key", "session")
    held = [int(one["balance"]) for one in shown["sub_accounts"]]
    assert sorted(held) == [400_000, 400_000]  # both providers of the model, each to the target
    assert int(shown["wallet"]) == 200_000


async def test_a_quote_needs_no_key_and_agrees_with_what_is_paid(market: Market) -> None:
    prompt = ("-m", "echo-shared", "--max-tokens", "2", "two words")
    shown = await market.network.run_command("quote", *prompt)
    cheap, dear = shown["quotes"]
    assert cheap["provider"] == market.get_address("lubeck")
    assert dear["provider"] == market.get_address("hamburg")
    raw = await market.client.chat.completions.with_raw_response.create(
        model="echo-shared", messages=[{"role": "user", "content": "two words"}], max_tokens=2
    )
    assert 0 < int(raw.headers["hanse-fee"]) <= int(cheap["maximum_fee"])
