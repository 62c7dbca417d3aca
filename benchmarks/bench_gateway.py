"""What gateways cost: Hanse plain and paid beside LiteLLM, Portkey and vllm-router.

    make bench-gateway           make bench-gateway PEERS=0      one JSON object a line on standard
    output

Same machine, same run, the same instant mock engine (a fake) behind all. `hanse-plain` routes to it
unpaid: API key, checks of the body, queue, failover, relay. `hanse-paid` is the whole market:
gateway and broker processes with voucher, receipt and both durable books. All gateways run at once
and are loaded one after the other in short rounds, so that what else disturbs the machine disturbs
all alike; processor time is the median of the rounds. Answers have ANSWER_TOKENS tokens, those of
a short answer in a chat; TOKENS=16 for shorter ones, PACE=10 for an engine that takes 10 ms a
token instead of an instant one. `added_ms` is over the bare engine: to the
first data frame of a stream, to the end of a whole answer. The load generator runs beside them.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bench_path import (
    ANSWER_TOKENS,
    ROOT,
    bound_by_pace,
    run_hanse,
    run_mock,
    warm_up,
)
from benchmarks.load import LoadResult, get_rss_mb, run_load
from benchmarks.peers import Target, run_litellm, run_portkey, run_vllm_router, wait_http
from hanse.cli.local_network import find_free_port

MODES = ("stream", "whole")
CONCURRENCIES = (1, 16, 64)
ROUNDS = 5

BARS = (
    ("hanse-plain", "litellm", 1 / 20),
    ("hanse-plain", "portkey", 1 / 2),
    ("hanse-paid", "litellm", 1 / 10),
)
"""Whose processor time a request is at most which part of whose; else the benchmark fails."""

Open = Callable[[str], AbstractAsyncContextManager[Target]]


@dataclass
class Case:
    """One gateway under one load, over all rounds."""

    gateway: str
    mode: str
    concurrency: int
    results: list[LoadResult] = field(default_factory=list)
    rss_mb: float = 0.0

    @property
    def cpu_us(self) -> float:
        """Processor time a request."""
        return median(result.cpu_us_per_request for result in self.results)

    def get_quantile_ms(self, q: float) -> float:
        """Of all requests of all rounds."""
        times = sorted(ms for result in self.results for ms in result.first_token_ms)
        return times[min(len(times) - 1, int(q * len(times)))]

    def to_row(self, bare: "Case") -> dict[str, Any]:
        """One line of output."""
        requests = sum(result.requests for result in self.results)
        wall_s = sum(result.wall_s for result in self.results)
        return {
            "gateway": self.gateway,
            "mode": self.mode,
            "concurrency": self.concurrency,
            "cpu_us_per_request": round(self.cpu_us),
            "requests_per_s": round(requests / wall_s, 1),
            "added_ms_p50": round(self.get_quantile_ms(0.5) - bare.get_quantile_ms(0.5), 2),
            "added_ms_p99": round(self.get_quantile_ms(0.99) - bare.get_quantile_ms(0.99), 2),
            "rss_mb": round(self.rss_mb, 1),
        }


async def measure(
    requests: int, peer_requests: int, with_peers: bool, tokens: int, pace_ms: float
) -> list[dict[str, Any]]:
    """Run every case; rows as they are printed."""
    opens: dict[str, Open] = {"hanse-plain": run_plain, "hanse-paid": run_hanse}
    if with_peers:
        opens |= {"litellm": run_litellm, "portkey": run_portkey, "vllm-router": run_vllm_router}
    async with contextlib.AsyncExitStack() as stack:
        mock_url, mock_pid = stack.enter_context(run_mock(pace_ms))
        targets = {"bare": Target(mock_url, {}, [mock_pid])}
        for name, open_gateway in opens.items():
            targets[name] = await stack.enter_async_context(open_gateway(mock_url))
            await warm_up(targets[name], pace_ms)
        rows = []
        for mode in MODES:
            for concurrency in CONCURRENCIES:
                counts = dict.fromkeys(targets, requests) | {"litellm": peer_requests}
                cases = await run_cases(targets, counts, mode, concurrency, tokens, pace_ms)
                rows += [case.to_row(cases["bare"]) for case in cases.values()]
    return [row for row in rows if row["gateway"] != "bare"]


async def run_cases(
    targets: dict[str, Target],
    counts: dict[str, int],
    mode: str,
    concurrency: int,
    tokens: int,
    pace_ms: float,
) -> dict[str, Case]:
    """One load on every gateway, in rounds."""
    cases = {name: Case(name, mode, concurrency) for name in targets}
    for _ in range(ROUNDS):
        for name, target in targets.items():
            most = max(concurrency, counts[name] // ROUNDS)
            result = await run_load(
                target,
                requests=bound_by_pace(most, concurrency, pace_ms),
                concurrency=concurrency,
                whole=mode == "whole",
                tokens=tokens,
            )
            cases[name].results.append(result)
            cases[name].rss_mb = get_rss_mb(target.pids)
    shown = "  ".join(f"{name} {case.cpu_us:.0f}" for name, case in cases.items())
    print(f"  {mode} at {concurrency}, us: {shown}", file=sys.stderr)
    return cases


@contextlib.asynccontextmanager
async def run_plain(mock_url: str) -> AsyncIterator[Target]:
    """Hanse's gateway in front of the mock, without a market."""
    port = find_free_port()
    hanse = [sys.executable, "-m", "hanse.cli"]
    with tempfile.TemporaryDirectory(prefix="hanse-bench-") as folder:
        made = await asyncio.to_thread(
            subprocess.run,
            [*hanse, "gateway", "keys", "create", "bench", "--json", "--home", folder],
            capture_output=True,
            check=True,
        )
        key = json.loads(made.stdout)["api_key"]
        log_path = Path(folder) / "log"
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(*hanse, "gateway", "start", "--upstream", mock_url, "--home", folder),
                *("--port", str(port)),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        try:
            await wait_http(f"http://127.0.0.1:{port}/health", log_path)
            headers = {"Authorization": f"Bearer {key}"}
            yield Target(f"http://127.0.0.1:{port}/v1", headers, [process.pid])
        finally:
            process.terminate()
            await process.wait()


def find_missed(rows: list[dict[str, Any]]) -> list[str]:
    """Every bar that a case missed, in words."""
    costs = {(r["gateway"], r["mode"], r["concurrency"]): r["cpu_us_per_request"] for r in rows}
    missed = []
    for ours, theirs, bar in BARS:
        for mode in MODES:
            for concurrency in CONCURRENCIES:
                peer = costs.get((theirs, mode, concurrency))
                ratio = costs[ours, mode, concurrency] / peer if peer else 0.0
                if ratio > bar:
                    where = f"{mode} at {concurrency}"
                    missed.append(f"{where}: {ours} {ratio:.3f} of {theirs}, bar {bar:.3f}")
    return missed


def show(rows: list[dict[str, Any]]) -> None:
    """A table for people on standard error, one JSON object a line on standard output."""
    table = Table(title="processor time a request, us; time added, ms; resident memory, MB")
    for name in rows[0]:
        table.add_column(name.removesuffix("_per_request"), justify="right")
    for row in sorted(rows, key=lambda r: (r["mode"], r["concurrency"], r["gateway"])):
        table.add_row(*map(str, row.values()))
    for row in rows:
        print(json.dumps(row), flush=True)
    Console(stderr=True, width=120).print(table)


def main() -> int:
    """Run it; 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=1, help="0 leaves the peers out")
    parser.add_argument("--requests", type=int, default=600, help="for each case, in all rounds")
    parser.add_argument("--peer-requests", type=int, default=200, help="for each of LiteLLM's")
    parser.add_argument("--tokens", type=int, default=ANSWER_TOKENS["paid"], help="of an answer")
    parser.add_argument("--pace-ms", type=float, default=0.0, help="of the engine, a token")
    options = parser.parse_args()
    counts = (options.requests, options.peer_requests, bool(options.peers))
    rows = asyncio.run(measure(*counts, options.tokens, options.pace_ms))
    show(rows)
    if options.pace_ms:
        return 0  # the bars are of an instant engine
    missed = find_missed(rows)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
