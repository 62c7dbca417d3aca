"""A whole network for system tests: real chain, contracts and processes, a fake engine.

    async with open_network(home, anvil_cache, [ECHO_A, ECHO_B]) as market:
        words = await stream_words(market.client, "echo-a", "some words", [])

What is not real: the engine is `echo`, whose tokens come at a set pace, so that a test can hit the
middle of a stream; and the local chain adds its blocks faster than once a second. Everything else
is started by the commands that `hanse up` uses. The application is an unmodified OpenAI client.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from openai import APIConnectionError, APIError, AsyncOpenAI

from hanse.chain.localnode import LocalNode
from hanse.cli.first_round import PURSE, get_api_key, open_user
from hanse.cli.local_network import CONFIRMATIONS, ChildProcess, LocalNetwork, ProviderPlan
from tests.waiting import until as until

ROOT = Path(__file__).parents[2]
BLOCK_TIME_S = 0.1
TOKEN_DELAY_S = 0.02
TOKENS = 16
SUB_ACCOUNT = 5_000_000
"""Base units set aside for each provider: some 60 requests in flight at the most."""


def plan(name: str, *, model: str, output_price: str = "200") -> ProviderPlan:
    """A provider of a fake model; a request of 16 tokens costs 0.0032 and its prompt."""
    settings = {"token_delay_s": str(TOKEN_DELAY_S), "answer_tokens": str(TOKENS)}
    options = ("--settle-every", "0")
    return ProviderPlan(name, "100", output_price, "echo", model, settings, options)


@dataclass
class Market:
    """A running network with its application's client; `signers` have the user's sub-accounts."""

    network: LocalNetwork
    api_key: str
    client: AsyncOpenAI
    signers: list[str] = field(default_factory=lambda: ["gateway"])

    def get_plan(self, name: str) -> ProviderPlan:
        return next(plan for plan in self.network.plans if plan.name == name)

    def get_address(self, name: str) -> str:
        return self.network.get_key(name).address

    @property
    def environment(self) -> dict[str, str]:
        """For our commands, as the network itself sets it."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HANSE_")}
        password = (self.network.home / "password").read_text().strip()
        return {**kept, "HANSE_PASSWORD": password, "PYTHONUNBUFFERED": "1"}

    async def start_crashing(self, name: str, failpoint: str) -> ChildProcess:
        """Start a provider that kills itself at a named step; see `crashing_provider`."""
        await self.end(name)
        network, chosen = self.network, self.get_plan(name)
        port = network._get_port(name)  # the port that its offer names
        log_path = network.home / "logs" / f"{name}.log"
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.network.crashing_provider"),
                *(str(network.home), name, chosen.model, chosen.output_price, str(port), failpoint),
                cwd=ROOT,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        child = ChildProcess(name, f"http://127.0.0.1:{port}", process, log_path)
        network.processes[name] = child
        await until(lambda: is_healthy(child), 60, f"{name} admits requests")
        return child

    async def restart_provider(self, name: str) -> None:
        """The real command again, after whatever ended the one before."""
        await self.end(name)
        await self.network.start_provider(self.get_plan(name))

    async def restart_gateway(self, *options: str) -> None:
        await self.end("gateway")
        await self.network.start_gateway(*options)

    async def end(self, name: str) -> None:
        """Kill -9, if it still runs."""
        if name in self.network.processes:
            await self.network.kill_process(name)


@contextlib.asynccontextmanager
async def open_network(
    home: Path,
    anvil_cache: Path,
    plans: Sequence[ProviderPlan],
    *,
    has_recorder: bool = False,
    gateway_options: Sequence[str] = (),
) -> AsyncIterator[Market]:
    """Start chain, contracts, providers and gateway, and fund the user with every provider."""
    network = LocalNetwork(home, plans)
    network.node = LocalNode(
        home / "chain",
        block_time_s=BLOCK_TIME_S,
        confirmations=CONFIRMATIONS,
        cache_folder=anvil_cache,
    )
    async with network:
        if has_recorder:
            await network.start_recorder()
        await network.start_providers()
        await network.give("user", PURSE)
        funds = {network.get_key(plan.name).address: SUB_ACCOUNT for plan in plans}
        async with open_user(network) as hanse:
            await hanse.account.open(sum(funds.values()), funds)
        api_key = await get_api_key(network)
        await network.start_gateway(*gateway_options)
        async with AsyncOpenAI(
            base_url=network.gateway_url, api_key=api_key, max_retries=0, timeout=60
        ) as client:
            yield Market(network, api_key, client)


async def stream_words(
    client: AsyncOpenAI, model: str, prompt: str, words: list[str], max_tokens: int = TOKENS
) -> str:
    """Stream one answer word by word into `words`; says how it ended.

    "ended": whole. "cut": after its head. "cut at its end": after the frame that says why it ended,
    which a broker sends only once the receipt is stored. "refused": with an HTTP error. "gone":
    nobody answered.
    """
    try:
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            stream=True,
        )
    except APIConnectionError:
        return "gone"
    except APIError:
        return "refused"
    reason = None
    try:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                words += chunk.choices[0].delta.content.split()
            if chunk.choices and chunk.choices[0].finish_reason:
                reason = chunk.choices[0].finish_reason
    except Exception:  # whatever the SDK makes of a connection that is reset
        return "cut at its end" if reason else "cut"
    return "ended" if reason else "cut"


async def buy_again(market: Market, model: str, limit_s: float = 120) -> list[str]:
    """One small answer, as soon as the provider is asked again; a refused try costs nothing."""
    words: list[str] = []

    async def is_served() -> bool:
        words.clear()
        return await stream_words(market.client, model, "once more", words, 2) == "ended"

    await until(is_served, limit_s, f"{model} serves again")
    assert sorted(words) == ["more", "once"]
    return words


async def is_healthy(child: ChildProcess) -> bool:
    assert child.process.returncode is None, f"{child.name} ended; see {child.log_path}"
    with contextlib.suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"{child.url}/health") as answer:
            return answer.status == 200
    return False
