"""Gateways beside the network's own, on one running market: replaced, and on a session key.

The session key comes last: what it holds is on the market afterwards.
"""

import asyncio
import signal
from collections import Counter
from urllib.parse import urlsplit

import pytest
from openai import AsyncOpenAI

from hanse.cli.local_network import ChildProcess, find_free_port
from tests.network.books import read_units, wait_agreed
from tests.network.market import TOKENS, Market, is_healthy, stream_words, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

SELLERS = ("lubeck", "hamburg")
MODEL = "echo-shared"
APPLICATIONS = 6


# one that is replaced by another on the same port and books while applications ask it


async def start_beside(market: Market, name: str, base_url: str) -> ChildProcess:
    """A gateway with a shared port, on the books that all gateways of the user have."""
    port = urlsplit(base_url).port
    assert port
    arguments = ["gateway", "start", "--key", "user", "--signer", "gateway", "--shared-port"]
    return await market.network._start(name, port, [*arguments, "--port", str(port)])


async def test_no_stream_breaks_and_no_charge_is_lost_while_a_gateway_is_replaced(market: Market):
    base_url = market.network.gateway_url
    await market.end("gateway")
    old = await start_beside(market, "gateway", base_url)
    outcomes: Counter[str] = Counter()
    is_over = False

    async def ask_on(number: int) -> None:
        async with AsyncOpenAI(base_url=base_url, api_key=market.api_key, timeout=60) as client:
            while not is_over:
                words: list[str] = []
                prompt = f"application {number} asks for words"
                outcome = await stream_words(client, MODEL, prompt, words)
                outcomes[outcome if len(words) in (0, TOKENS) else "short"] += 1

    asking = [asyncio.create_task(ask_on(number)) for number in range(APPLICATIONS)]
    await until(lambda: outcomes["ended"] > APPLICATIONS, 20, "answers come")
    new = await start_beside(market, "gateway-new", base_url)
    # the port answers whoever of the two is asked; only its own words say that it listens
    await until(lambda: "base URL" in new.log_path.read_text(), 60, "the new one listens")
    old.process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(old.process.wait(), 30)
    before = outcomes["ended"]
    await until(lambda: outcomes["ended"] > before + 3 * APPLICATIONS, 20, "the new one answers")
    is_over = True
    await asyncio.gather(*asking)
    assert new.process.returncode is None
    assert set(outcomes) == {"ended"}

    for name in SELLERS:
        await wait_agreed(market, name)
    await read_units(market)
    del market.network.processes["gateway"]
    await market.end("gateway-new")
    await market.network.start_gateway()


# a session key: the wallet pays it once, sub-accounts come by themselves


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
                    model=MODEL,
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
    prompt = ("-m", MODEL, "--max-tokens", "2", "two words")
    shown = await market.network.run_command("quote", *prompt)
    cheap, dear = shown["quotes"]
    assert cheap["provider"] == market.get_address("lubeck")
    assert dear["provider"] == market.get_address("hamburg")
    raw = await market.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "two words"}], max_tokens=2
    )
    assert 0 < int(raw.headers["hanse-fee"]) <= int(cheap["maximum_fee"])
