"""What paying and checking cost: processor time and first-token time of gateway + broker, beside
LiteLLM's proxy.

    make bench-path            one JSON object a line on standard output
    make bench-path PEERS=0    without LiteLLM
    make bench-path PACE=10    with an engine that takes 10 ms a token

The same instant mock engine (a fake) stands behind both. `cpu_us_per_request` is user and system
time of Hanse's gateway and broker processes together: API key, matching, voucher, admission,
metering, receipt, its checks, and both durable books. `baseline_cpu_us_per_request` is the mock
engine's own, asked directly in the same run; the added first-token times are over that baseline, on
the same machine, with the load generator beside it. LiteLLM runs in an environment of its own, with
one worker, no database and no logging, which is its cheapest form.

Two lengths of an answer, since what a gateway costs grows with it, LiteLLM's more than ours: `paid`
has as many tokens as a short answer in a chat has, `paid-short` a quarter, where what a payment
costs by itself weighs most. The bar is of `paid`; `paid-short` is shown beside it.

All stand at once and, after `WARM_UP` requests each, take turns, a fifth of the load at a time: a
machine whose speed changes within a minute (others on the same host) changes it for each.
`ratio_to_litellm` is of the sums, `ratio_of_rounds` the lowest and the highest of a round.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.load import LoadResult, join_results, run_load
from benchmarks.mock_engine import MODEL
from benchmarks.peers import Target, run_litellm
from hanse.cli.first_round import fund_user, get_api_key
from hanse.cli.local_network import LocalNetwork, ProviderPlan, find_free_port

CONCURRENCIES = (1, 16, 64)
ANSWER_TOKENS = {"paid": 64, "paid-short": 16}
"""By case. Answers to Alpaca's instructions have 58 tokens on average, those of shared chats 338
(Kwon and others, arXiv 2309.06180, section 6.1)."""

ROUNDS = 5
"""Turns of each side."""

WARM_UP = 600
"""Answered one at a time by each side before it is measured: more than
COMMITS_PER_CHECKPOINT, up to which a started server's log grows and each commit writes its inode
too."""

PACED_PER_STREAM = 6
"""Requests of a round for each stream, where an engine has a pace."""

BAR_CASE, RATIO_BAR = "paid", 0.1
"""At most this part of LiteLLM's processor time a request; the benchmark fails above it."""

ROOT = Path(__file__).resolve().parent.parent


async def measure(
    requests: int, peer_requests: int, with_peers: bool, pace_ms: float
) -> list[dict[str, Any]]:
    """Run every case; rows as they are printed."""
    async with contextlib.AsyncExitStack() as stack:
        mock_url, mock_pid = stack.enter_context(run_mock(pace_ms))
        sides = [Side(Target(mock_url, {}, [mock_pid]), requests // ROUNDS, pace_ms)]
        hanse = await stack.enter_async_context(run_hanse(mock_url))
        sides.append(Side(hanse, requests // ROUNDS, pace_ms))
        if with_peers:
            litellm = await stack.enter_async_context(run_litellm(mock_url))
            sides.append(Side(litellm, peer_requests // ROUNDS, pace_ms))
        for side in sides:
            await warm_up(side.target, pace_ms)
        for _ in range(ROUNDS):
            for side in sides:
                await side.run_round()
    bare, paid, *peers = (side.rounds for side in sides)
    return [
        {"pace_ms": pace_ms}
        | get_row(load, bare[load], paid[load], peers[0][load] if peers else None)
        for load in LOADS
    ]


LOADS = [(case, concurrency) for case in ANSWER_TOKENS for concurrency in CONCURRENCIES]


class Side:
    """One of those that take turns, with what each of its rounds cost by concurrency."""

    def __init__(self, target: Target, requests: int, pace_ms: float) -> None:
        self.target = target
        self._requests = requests
        self._pace_ms = pace_ms
        self.rounds: dict[tuple[str, int], list[LoadResult]] = {load: [] for load in LOADS}

    async def run_round(self) -> None:
        """Each load once, after a few requests to get there."""
        for (case, concurrency), results in self.rounds.items():
            ask = functools.partial(
                run_load, self.target, concurrency=concurrency, tokens=ANSWER_TOKENS[case]
            )
            most = max(self._requests, concurrency)
            requests = bound_by_pace(most, concurrency, self._pace_ms)
            await ask(requests=min(requests, max(20, concurrency)))
            result = await ask(requests=requests)
            results.append(result)
            cost = f"{result.cpu_us_per_request:.0f} us"
            print(f"  {self.target.url} {case} at {concurrency}: {cost}", file=sys.stderr)


async def warm_up(target: Target, pace_ms: float) -> None:
    """Let a side answer until nothing is there for the first time; several at once with a pace."""
    await run_load(target, requests=WARM_UP, concurrency=16 if pace_ms else 1)


def bound_by_pace(requests: int, concurrency: int, pace_ms: float) -> int:
    """Requests of one round: where an engine has a pace, no more than a round has time for."""
    return min(requests, PACED_PER_STREAM * concurrency) if pace_ms else requests


def get_row(
    load: tuple[str, int],
    bare_rounds: list[LoadResult],
    paid_rounds: list[LoadResult],
    peer_rounds: list[LoadResult] | None,
) -> dict[str, Any]:
    """One line of output."""
    bare, paid = join_results(bare_rounds), join_results(paid_rounds)
    peer = join_results(peer_rounds) if peer_rounds else None
    ratios = [
        ours.cpu_us_per_request / theirs.cpu_us_per_request
        for ours, theirs in zip(paid_rounds, peer_rounds or (), strict=False)
    ]
    case, concurrency = load
    row: dict[str, Any] = {
        "case": case,
        "answer_tokens": ANSWER_TOKENS[case],
        "concurrency": concurrency,
        "requests": paid.requests,
        "cpu_us_per_request": round(paid.cpu_us_per_request),
        "baseline_cpu_us_per_request": round(bare.cpu_us_per_request),
        "litellm_cpu_us_per_request": round(peer.cpu_us_per_request) if peer else None,
        "ratio_to_litellm": (
            round(paid.cpu_us_per_request / peer.cpu_us_per_request, 4) if peer else None
        ),
        "ratio_of_rounds": [round(f(ratios), 4) for f in (min, max)] if ratios else None,
        "requests_per_s": round(paid.requests / paid.wall_s, 1),
    }
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        added = paid.get_quantile_ms(q) - bare.get_quantile_ms(q)
        row[f"added_first_token_ms_{name}"] = round(added, 2)
        peer_added = peer.get_quantile_ms(q) - bare.get_quantile_ms(q) if peer else None
        row[f"litellm_added_first_token_ms_{name}"] = peer_added and round(peer_added, 2)
    return row


@contextlib.contextmanager
def run_mock(pace_ms: float = 0.0) -> Iterator[tuple[str, int]]:
    """The instant engine in a process of its own, or one with a pace."""
    port = find_free_port()
    command = [sys.executable, "-m", "benchmarks.mock_engine", "--port", str(port)]
    command += ["--pace-ms", str(pace_ms)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        _wait_port(port)
        yield f"http://127.0.0.1:{port}/v1", process.pid
    finally:
        process.terminate()
        process.wait(10)


@contextlib.asynccontextmanager
async def run_hanse(mock_url: str) -> AsyncIterator[Target]:
    """A local network with one provider that resells the mock: its gateway."""
    plan = ProviderPlan(
        "provider",
        "0.15",
        "0.60",
        engine="upstream",
        model=MODEL,
        options=("--upstream-url", mock_url),
    )
    with tempfile.TemporaryDirectory(prefix="hanse-bench-") as folder:
        async with LocalNetwork(Path(folder), [plan]) as network:
            await network.start_providers()
            await fund_user(network)
            api_key = await get_api_key(network)
            await network.start_gateway()
            pids = [child.process.pid for child in network.processes.values()]
            yield Target(network.gateway_url, {"Authorization": f"Bearer {api_key}"}, pids)


def show(rows: list[dict[str, Any]]) -> None:
    """A table for people on standard error, one JSON object a line on standard output."""
    table = Table(title="processor time a streamed request, us; first-token time added, ms")
    names = (
        "tokens",
        "concurrency",
        "Hanse",
        "bare engine",
        "LiteLLM",
        "ratio",
        "p50",
        "p99",
        "requests/s",
    )
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            *(
                str(row[key])
                for key in (
                    "answer_tokens",
                    "concurrency",
                    "cpu_us_per_request",
                    "baseline_cpu_us_per_request",
                    "litellm_cpu_us_per_request",
                    "ratio_to_litellm",
                    "added_first_token_ms_p50",
                    "added_first_token_ms_p99",
                    "requests_per_s",
                )
            )
        )
        print(json.dumps(row), flush=True)
    Console(stderr=True).print(table)


def _wait_port(port: int) -> None:
    import socket

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def main() -> int:
    """Run it; 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=1, help="0 leaves LiteLLM out")
    parser.add_argument("--requests", type=int, default=1_000, help="for each case of ours")
    parser.add_argument("--peer-requests", type=int, default=300, help="for each case of LiteLLM's")
    parser.add_argument("--pace-ms", type=float, default=0.0, help="of the engine, a token")
    options = parser.parse_args()
    peers = bool(options.peers)
    rows = asyncio.run(measure(options.requests, options.peer_requests, peers, options.pace_ms))
    show(rows)
    if options.pace_ms:
        return 0  # the bar is of an instant engine
    above = [r for r in rows if r["ratio_to_litellm"] and r["ratio_to_litellm"] > RATIO_BAR]
    for row in above:
        said = "missed" if row["case"] == BAR_CASE else "above, and not held to the bar"
        where = f"{row['answer_tokens']} tokens, {row['concurrency']} at a time"
        print(
            f"{said}: {row['ratio_to_litellm']} of LiteLLM's ({where}), bar {RATIO_BAR}",
            file=sys.stderr,
        )
    return 1 if any(row["case"] == BAR_CASE for row in above) else 0


if __name__ == "__main__":
    sys.exit(main())
