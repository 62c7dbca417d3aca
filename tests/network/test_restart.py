"""A gateway is replaced by another on the same port and books while applications ask it."""

import asyncio
import signal
from collections import Counter
from urllib.parse import urlsplit

import pytest
from openai import AsyncOpenAI

from hanse.cli.local_network import ChildProcess
from tests.network.books import read_units, wait_agreed
from tests.network.market import TOKENS, Market, stream_words, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

APPLICATIONS = 6


async def start_gateway(market: Market, name: str, base_url: str) -> ChildProcess:
    """A gateway with a shared port, on the books that all gateways of the user have."""
    port = urlsplit(base_url).port
    assert port
    arguments = ["gateway", "start", "--key", "user", "--signer", "gateway", "--shared-port"]
    return await market.network._start(name, port, [*arguments, "--port", str(port)])


async def test_no_stream_breaks_and_no_charge_is_lost_while_a_gateway_is_replaced(market: Market):
    base_url = market.network.gateway_url
    await market.end("gateway")
    old = await start_gateway(market, "gateway", base_url)
    outcomes: Counter[str] = Counter()
    is_over = False

    async def ask_on(number: int) -> None:
        async with AsyncOpenAI(base_url=base_url, api_key=market.api_key, timeout=60) as client:
            while not is_over:
                words: list[str] = []
                prompt = f"application {number} asks for words"
                outcome = await stream_words(client, "echo-shared", prompt, words)
                outcomes[outcome if len(words) in (0, TOKENS) else "short"] += 1

    asking = [asyncio.create_task(ask_on(number)) for number in range(APPLICATIONS)]
    await until(lambda: outcomes["ended"] > APPLICATIONS, 20, "answers come")
    new = await start_gateway(market, "gateway-new", base_url)
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

    for name in ("lubeck", "hamburg"):
        await wait_agreed(market, name)
    await read_units(market)
    del market.network.processes["gateway"]
    await market.end("gateway-new")
    await market.network.start_gateway()
