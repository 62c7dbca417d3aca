"""A bounded load on one OpenAI-compatible address on this machine, and the processor time of the
processes behind it.

Streams, like the applications that care about first-token time. The load runs in this process; what
is measured is other processes' user and system time, read from /proc before and after.
"""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class LoadResult:
    """What one run of the load saw.

    Attributes:
        requests: finished, each with a complete stream.
        cpu_us_per_request: user and system time of the named processes, per request.
        first_token_ms: time from sending to the first data frame, one a request, sorted.
        wall_s: of the whole run.
    """

    requests: int
    cpu_us_per_request: float
    first_token_ms: list[float]
    wall_s: float

    def get_quantile_ms(self, q: float) -> float:
        """The q-quantile (0 .. 1) of the first-token times."""
        return self.first_token_ms[
            min(len(self.first_token_ms) - 1, int(q * len(self.first_token_ms)))
        ]


def get_cpu_s(pids: list[int]) -> float:
    """User and system time of these processes and their children that live, in seconds."""
    total = 0
    for pid in _with_children(pids):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


async def run_load(
    url: str, *, api_key: str, model: str, pids: list[int], requests: int, concurrency: int
) -> LoadResult:
    """Send `requests` streamed chat requests, `concurrency` at a time, and count what they cost.

    Raises:
        RuntimeError: an answer was not a complete stream; a benchmark of failures says nothing.
    """
    body = {
        "model": model,
        "stream": True,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Say sixteen words, please, for the benchmark."}],
    }
    headers = {"Authorization": f"Bearer {api_key}"}
    waiting = iter(range(requests))
    times_ms: list[float] = []
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def worker() -> None:
            for _ in waiting:
                times_ms.append(await _request(session, url, body, headers))

        cpu_before_s, started = get_cpu_s(pids), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
        wall_s = time.perf_counter() - started
        cpu_s = get_cpu_s(pids) - cpu_before_s
    return LoadResult(len(times_ms), cpu_s / len(times_ms) * 1e6, sorted(times_ms), wall_s)


async def _request(
    session: aiohttp.ClientSession, url: str, body: dict[str, object], headers: dict[str, str]
) -> float:
    started = time.perf_counter()
    first_ms, tail = 0.0, b""
    async with session.post(f"{url}/chat/completions", json=body, headers=headers) as response:
        if response.status != 200:
            raise RuntimeError(
                f"{url} answered {response.status}: {(await response.read())[:300]!r}"
            )
        async for chunk in response.content.iter_any():
            if not first_ms and b"data:" in chunk:
                first_ms = (time.perf_counter() - started) * 1e3
            tail = (tail + chunk)[-64:]
    if b"data: [DONE]" not in tail:
        raise RuntimeError(f"{url} sent a stream without its end: {tail!r}")
    return first_ms


def _with_children(pids: list[int]) -> list[int]:
    found = list(pids)
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.extend(int(child) for child in (task / "children").read_text().split())
    return found
