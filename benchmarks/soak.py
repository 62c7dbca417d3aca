"""A soak: the whole network at 80 % of its capacity, while providers are killed and come back.

    make soak MINUTES=30          # progress on standard error, one JSON line on standard output

A real chain, contracts, gateway and three providers of one model as processes of their own; the
engine is a fake (`echo`) whose tokens come at a set pace. First the capacity is measured: as many
streams as 32 applications get when each asks again at once. Then requests come evenly at 80 % of
that rate. Every `KILL_EVERY_S` one provider is killed (-9), the busiest or any, and started again.

At the end the books of both sides are read by plain SQL, apart from the code that keeps them, and
compared receipt by receipt, and every unit is found on the chain (`tests/network/books.py`). The
exit code is 1 if a charge is lost or doubled; from ten minutes on also if memory rises by more than
`RSS_SLOPE_MB_PER_H_MAX` or the 99th percentile drifts by more than `DRIFT_PERCENT_MAX`.
"""

import argparse
import asyncio
import itertools
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from hanse.cli.local_network import ProviderPlan
from tests.network.books import read_provider, read_units, wait_agreed
from tests.network.market import Market, open_network

ROOT = Path(__file__).parents[1]
MODEL = "echo-soak"
TOKENS = 16
PROVIDERS = ("bremen", "danzig", "riga")
APPLICATIONS = 32
SHARE = 0.8
KILL_EVERY_S = 15.0
DOWN_S = 2.0
DRIFT_PERCENT_MAX = 10.0
RSS_SLOPE_MB_PER_H_MAX = 20.0
BARS_FROM_MINUTES = 10.0
"""Shorter runs report drift and slope, and are not held to them: a few kills decide a p99."""


def plan(name: str) -> ProviderPlan:
    """A provider so cheap that its sub-account lasts for a day of it."""
    settings = {"token_delay_s": "0.02", "answer_tokens": str(TOKENS)}
    return ProviderPlan(name, "0.1", "0.2", "echo", MODEL, settings, ("--settle-every", "0"))


@dataclass
class Result:
    """One answer. Times are seconds since the run's start, or of the answer."""

    begun_s: float
    first_token_s: float
    total_s: float
    tokens: int
    outcome: str


@dataclass
class Soak:
    """One run.

    Attributes:
        results: every answer of the load.
        delivered: tokens that came, the warming up and the measuring included.
        refused: what was said to applications that got no answer, and how often.
        providers: of the latest answers.
        broken: answers that at least one provider did not end.
        rss: seconds since the start, and the gateway's resident memory in MB.
        kills: providers that were killed.
    """

    market: Market
    session: aiohttp.ClientSession
    started: float = field(default_factory=time.monotonic)
    results: list[Result] = field(default_factory=list)
    rss: list[tuple[float, float]] = field(default_factory=list)
    kills: int = 0
    delivered: int = 0
    broken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    providers: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return time.monotonic() - self.started

    async def ask(self) -> Result:
        """One streamed answer."""
        number = next(self.numbers)
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"request {number} of a long soak"}],
            "max_tokens": TOKENS,
            "stream": True,
        }
        headers = {"authorization": f"Bearer {self.market.api_key}"}
        url = f"{self.market.network.gateway_url}/chat/completions"
        begun, first, tokens, outcome = self.now_s(), 0.0, 0, "cut"
        try:
            async with self.session.post(url, json=body, headers=headers) as answer:
                self.providers.append(answer.headers.get("hanse-provider", ""))
                async for line in answer.content:
                    if line.startswith(b'data: {"error"'):
                        outcome = json.loads(line[6:])["error"]["code"]
                    elif line.startswith(b"data: {") and b'"content"' in line:
                        first = first or self.now_s()
                        tokens += 1
                    elif line.startswith(b": hanse-continued"):
                        outcome = "continued"
                    elif line.startswith(b"data: [DONE]"):
                        outcome = "whole" if outcome == "cut" else outcome
                    elif answer.status != 200:
                        outcome = str(answer.status)
                        self.refused[line.decode()[:400]] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = type(error).__name__
        self.delivered += tokens
        self.broken += outcome != "whole"
        return Result(begun, (first or self.now_s()) - begun, self.now_s() - begun, tokens, outcome)

    async def measure_capacity(self, seconds: float) -> float:
        """Answers a second when every application asks again at once."""
        ends, count = self.now_s() + seconds, 0

        async def ask_on() -> None:
            nonlocal count
            while self.now_s() < ends:
                await self.ask()
                count += 1

        begun = self.now_s()
        await asyncio.gather(*(ask_on() for _ in range(APPLICATIONS)))
        return count / (self.now_s() - begun)

    async def load(self, rate: float, seconds: float) -> None:
        """Requests at an even rate, whether or not those before have ended."""
        begun = self.now_s()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due = begun + number / rate
                if due > begun + seconds:
                    return
                await asyncio.sleep(max(0.0, due - self.now_s()))
                group.create_task(self.ask_once())

    async def ask_once(self) -> None:
        """One answer, kept."""
        self.results.append(await self.ask())

    async def kill_providers(self, lot: Random) -> None:
        """One after the other, for ever; each is back before the next goes."""
        while True:
            await asyncio.sleep(KILL_EVERY_S)
            name = self.find_busiest() if lot.random() < 0.5 else lot.choice(PROVIDERS)
            await self.market.end(name)
            self.kills += 1
            await asyncio.sleep(DOWN_S)
            await self.market.restart_provider(name)

    def find_busiest(self) -> str:
        """The provider of most of the latest answers."""
        addresses = {self.market.get_address(name): name for name in PROVIDERS}
        [(address, _)] = Counter(self.providers).most_common(1)
        return addresses.get(address, PROVIDERS[0])

    async def watch_memory(self) -> None:
        """The gateway's resident memory, once a second."""
        while True:
            self.rss.append((self.now_s(), self.read_rss_mb()))
            await asyncio.sleep(1.0)

    def read_rss_mb(self) -> float:
        """Resident memory of the gateway's process."""
        pid = self.market.network.processes["gateway"].process.pid
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def run(minutes: float, seed: int) -> dict[str, Any]:
    """The whole of it; raises AssertionError if the books do not agree."""
    plans = [plan(name) for name in PROVIDERS]  # of one price: all of them are asked
    cache = Path(os.environ.get("HANSE_HOME") or ROOT / ".hanse")
    with tempfile.TemporaryDirectory() as folder:
        say("starting a chain, three providers with a fake engine (echo), and a gateway ...")
        async with open_network(Path(folder), cache, plans) as market:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                return await soak(Soak(market, session), minutes, seed)


async def soak(it: Soak, minutes: float, seed: int) -> dict[str, Any]:
    """Measure, load, compare."""
    await it.measure_capacity(3.0)  # warm
    capacity = await it.measure_capacity(10.0)
    rate = SHARE * capacity
    say(f"capacity {capacity:.0f} answers/s; {rate:.0f}/s for {minutes:g} min, with kills")
    behind = [
        asyncio.create_task(it.kill_providers(Random(seed))),
        asyncio.create_task(it.watch_memory()),
        asyncio.create_task(tell(it)),
    ]
    begun_s = it.now_s()
    await it.load(rate, minutes * 60)
    for task in behind:
        task.cancel()
    ended = await asyncio.gather(*behind, return_exceptions=True)
    for outcome in ended:
        if not isinstance(outcome, asyncio.CancelledError):
            raise AssertionError(f"a part of the soak broke off: {outcome!r}")
    for said, count in it.refused.most_common(5):
        say(f"refused {count} times: {said}")
    say("comparing the books of both sides, receipt by receipt ...")
    for name in PROVIDERS:
        if name not in it.market.network.processes:
            await it.market.restart_provider(name)
    sides = [await wait_agreed(it.market, name, limit_s=120) for name in PROVIDERS]
    await read_units(it.market)
    paid = sum(receipt.usage.output_tokens for side in sides for receipt in side.receipts)
    most = it.delivered + it.broken * TOKENS  # a broken one may have had a whole one on its way
    assert paid <= most, f"{paid} tokens were paid, at most {most} can have been delivered"
    return {
        "minutes": minutes,
        "seed": seed,
        "capacity_per_s": round(capacity, 1),
        "rate_per_s": round(rate, 1),
        "kills": it.kills,
        **summarise(it, begun_s, minutes),
        "receipts": sum(len(side.receipts) for side in sides),
        "tokens_delivered_in_all": it.delivered,
        "tokens_paid_in_all": paid,
        "fees_base_units": sum(read_provider(it.market, name).fees for name in PROVIDERS),
        "books_agree": True,
    }


def summarise(it: Soak, begun_s: float, minutes: float) -> dict[str, Any]:
    """Answers, times and memory. The first tenth of the time warms up and is left out."""
    length_s = minutes * 60
    early = [r for r in it.results if 0.1 <= (r.begun_s - begun_s) / length_s < 0.4]
    late = [r for r in it.results if (r.begun_s - begun_s) / length_s >= 0.7]
    first, last = get_p99_ms(early), get_p99_ms(late)
    rss = [(at, mb) for at, mb in it.rss if (at - begun_s) / length_s >= 0.1]
    slope = statistics.linear_regression(*zip(*rss, strict=True)).slope * 3600
    outcomes = Counter(result.outcome for result in it.results)
    return {
        "answers": len(it.results),
        "outcomes": dict(sorted(outcomes.items())),
        "first_token_ms_p50": round(
            1000 * statistics.median(result.first_token_s for result in it.results), 1
        ),
        "total_ms_p50": round(1000 * statistics.median(r.total_s for r in it.results), 1),
        "total_ms_p99_early": first,
        "total_ms_p99_late": last,
        "p99_drift_percent": round(100 * (last - first) / first, 1),
        "rss_mb_begin": round(rss[0][1], 1),
        "rss_mb_end": round(rss[-1][1], 1),
        "rss_slope_mb_per_h": round(slope, 1),
    }


def get_p99_ms(results: list[Result]) -> float:
    """The 99th percentile of the time to the last byte."""
    times = sorted(result.total_s for result in results)
    return round(1000 * times[int(len(times) * 0.99)], 1)


async def tell(it: Soak) -> None:
    """A line every half minute."""
    while True:
        await asyncio.sleep(30)
        outcomes = dict(Counter(result.outcome for result in it.results))
        say(f"{len(it.results)} answers, {it.kills} kills, {it.rss[-1][1]:.0f} MB, {outcomes}")


def say(text: str) -> None:
    """Progress, for people."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def find_failures(line: dict[str, Any]) -> list[str]:
    """Which bars a run misses."""
    failures = []
    bad = set(line["outcomes"]) - {"whole", "continued"}
    if line["minutes"] >= BARS_FROM_MINUTES:
        if line["p99_drift_percent"] > DRIFT_PERCENT_MAX:
            failures.append(f"p99 drifted by {line['p99_drift_percent']} %")
        if line["rss_slope_mb_per_h"] > RSS_SLOPE_MB_PER_H_MAX:
            failures.append(f"memory rises by {line['rss_slope_mb_per_h']} MB an hour")
    if bad:
        say(f"applications saw {', '.join(sorted(bad))}")
    return failures


def main() -> int:
    """Run, and say what holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("hanse").setLevel(logging.ERROR)
    try:
        line = asyncio.run(run(given.minutes, given.seed))
    except AssertionError as error:
        logging.exception("a charge was lost or doubled, or a part broke off")
        print(json.dumps({"books_agree": False, "reason": str(error)}))
        return 1
    failures = find_failures(line)
    say("every bar holds" if not failures else "; ".join(failures))
    print(json.dumps(line))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
