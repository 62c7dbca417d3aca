"""A bounded load on one OpenAI-compatible address on this machine, and the processor time of the
processes behind it.

Streams, like the applications that care about first-token time, or whole answers. The load runs in
this process; what is measured is other processes' user and system time, read from /proc before and
after.
"""

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.mock_engine import ANSWER_TOKENS, MODEL
from benchmarks.peers import Target


@dataclass(frozen=True)
class LoadResult:
    """What one run of the load saw.

    Attributes:
        requests: finished, each with a complete answer.
        cpu_us_per_request: user and system time of the named processes, per request.
        first_token_ms: time from sending to the first data frame, or to the end of a whole answer;
            one a request, sorted.
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


def join_results(results: list[LoadResult]) -> LoadResult:
    """Several runs of the same load as one."""
    requests = sum(result.requests for result in results)
    cpu_us = sum(result.cpu_us_per_request * result.requests for result in results)
    times_ms = sorted(time_ms for result in results for time_ms in result.first_token_ms)
    return LoadResult(requests, cpu_us / requests, times_ms, sum(r.wall_s for r in results))


def get_cpu_s(pids: list[int]) -> float:
    """User and system time of these processes and their children that live, in seconds.

    By the clock that Linux has for each process, in nanoseconds: threads that have ended are in it,
    which a sum over /proc/PID/task would lose. /proc/PID/stat is the same in steps of 10 ms.
    """
    total_ns = 0
    for pid in _with_children(pids):
        with contextlib.suppress(OSError):  # a child that has just ended
            total_ns += time.clock_gettime_ns(_get_cpu_clock(pid))
    return total_ns / 1e9


def _get_cpu_clock(pid: int) -> int:
    """The number that clock_getcpuclockid(3) gives: the pid's complement, and which clock."""
    return ~pid << 3 | 2


def get_rss_mb(pids: list[int]) -> float:
    """Resident memory of these processes and their children, in MB."""
    pages = sum(
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in _with_children(pids)
    )
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def run_load(
    target: Target,
    *,
    requests: int,
    concurrency: int,
    whole: bool = False,
    tokens: int = ANSWER_TOKENS,
) -> LoadResult:
    """Send `requests` chat requests, `concurrency` at a time, and count what they cost.

    Args:
        target: what is asked.
        requests: in all.
        concurrency: of them at a time.
        whole: in one piece instead of streams.
        tokens: of each answer.

    Raises:
        RuntimeError: an answer was not complete; a benchmark of failures says nothing.
    """
    body = {
        "model": MODEL,
        "stream": not whole,
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": "Say some words, please, for the benchmark."}],
    }
    ask = _fetch_whole if whole else _fetch_stream
    waiting = iter(range(requests))
    times_ms: list[float] = []
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=target.headers
    ) as session:

        async def worker() -> None:
            for _ in waiting:
                started = time.perf_counter()
                async with session.post(f"{target.url}/chat/completions", json=body) as response:
                    if response.status != 200:
                        said = (await response.read())[:300]
                        raise RuntimeError(f"{target.url} answered {response.status}: {said!r}")
                    times_ms.append((await ask(response, tokens) - started) * 1e3)

        cpu_before_s, begun = get_cpu_s(target.pids), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
        wall_s = time.perf_counter() - begun
        cpu_s = get_cpu_s(target.pids) - cpu_before_s
    return LoadResult(len(times_ms), cpu_s / len(times_ms) * 1e6, sorted(times_ms), wall_s)


async def _fetch_stream(response: aiohttp.ClientResponse, tokens: int) -> float:
    first, parts = 0.0, list[bytes]()
    async for chunk in response.content.iter_any():
        if not first and b"data:" in chunk:
            first = time.perf_counter()
        parts.append(chunk)
    body = b"".join(parts)
    if b"data: [DONE]" not in body[-64:]:
        raise RuntimeError(f"{response.url} sent a stream without its end: {body[-64:]!r}")
    _verify_length(response, body, tokens)
    return first


async def _fetch_whole(response: aiohttp.ClientResponse, tokens: int) -> float:
    body = await response.read()
    if b'"w0 ' not in body:
        raise RuntimeError(f"{response.url} sent another answer: {body[:300]!r}")
    _verify_length(response, body, tokens)
    return time.perf_counter()


def _verify_length(response: aiohttp.ClientResponse, body: bytes, tokens: int) -> None:
    """A gateway that drops `max_tokens` would be measured with other answers."""
    if b"w%d " % (tokens - 1) not in body or b"w%d " % tokens in body:
        raise RuntimeError(f"{response.url} sent an answer of another length than {tokens}")


def _with_children(pids: list[int]) -> list[int]:
    found = list(pids)
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.extend(int(child) for child in (task / "children").read_text().split())
    return found
