"""How the engine's threads should wait for one another: `make bench-threads`.

Two threads compute a token together and meet hundreds of times for it. Who is there first spins,
then sleeps; `SPINS` is for how many turns (GOMP_SPINCOUNT of GNU's OpenMP, `OPENMP` in
`hanse.engines.child_process`). 300,000 is about what GNU does by default.

The packaged model, plain, one engine process for each count of turns; they take turns, round by
round and in every second round backwards. Three cases:

    idle      nothing else runs
    busy      two processes of pure arithmetic want both cores
    engines   three engines with the same setting answer at once, as `make up` has them

One JSON line for each case, number of users and count of turns: tokens a second (of all engines
together), the median of its rounds' ratios to the first of SPINS, processor time a token.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator

from benchmarks.bench_proving import CACHE, USERS_MAX, ask, read_cpu_s
from hanse.engines.gguf_files import find_packaged_model, prepare_q4_0
from hanse.engines.llama_engine import LlamaEngine, Settings

TOKENS = 48
VARIABLE = "GOMP_SPINCOUNT"
CASES = {"idle": 1, "busy": 1, "engines": 3}
"""Engines of one setting that answer at once."""


@contextlib.asynccontextmanager
async def run_engines(spin: int, count: int, folder: str) -> AsyncIterator[list[LlamaEngine]]:
    """`count` engines whose threads spin so long."""
    settings = Settings(
        cache_dir=folder,
        model_path=str(prepare_q4_0(find_packaged_model(), CACHE)),
        parallel=USERS_MAX,
        context_tokens=1_024,
        threads=2,
        embeddings=False,
    )
    engines = [LlamaEngine(settings) for _ in range(count)]
    own = os.environ.get(VARIABLE)
    try:
        os.environ[VARIABLE] = str(spin)
        for engine in engines:
            await engine.start()
        if own is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = own
        yield engines
    finally:
        for engine in engines:
            await engine.close()


@contextlib.contextmanager
def keep_busy(processes: int) -> Iterator[None]:
    """So many processes that want a core each."""
    loop = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(loop) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


async def measure(engines: list[LlamaEngine], users: int) -> tuple[float, float]:
    """Tokens a second of all, and milliseconds of processor time a token."""
    pids = [engine.pid for engine in engines if engine.pid is not None]
    cpu_s, began_s = sum(map(read_cpu_s, pids)), time.perf_counter()
    answers = await asyncio.gather(
        *(ask(engine, user, TOKENS) for engine in engines for user in range(users))
    )
    wall_s = time.perf_counter() - began_s
    tokens = sum(count for count, _ in answers)
    return tokens / wall_s, 1e3 * (sum(map(read_cpu_s, pids)) - cpu_s) / tokens


async def run_case(case: str, spins: list[int], users: list[int], rounds: int) -> None:
    """All counts of turns in turns, and their lines."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        sides = {
            spin: await stack.enter_async_context(run_engines(spin, CASES[case], folder))
            for spin in spins
        }
        for engines in sides.values():
            await measure(engines, max(users))
        stack.enter_context(keep_busy(2 if case == "busy" else 0))
        for count in users:
            found: dict[int, list[tuple[float, float]]] = {spin: [] for spin in spins}
            for turn in range(rounds):
                for spin in spins if turn % 2 == 0 else reversed(spins):
                    found[spin].append(await measure(sides[spin], count))
            for spin, runs in found.items():
                pairs = zip(runs, found[spins[0]], strict=True)
                line = {
                    "case": case,
                    "users": count,
                    "spin": spin,
                    "tokens_per_s": round(statistics.median(speed for speed, _ in runs), 1),
                    "of_first": round(statistics.median(a[0] / b[0] for a, b in pairs), 3),
                    "cpu_ms_per_token": round(statistics.median(cpu for _, cpu in runs), 2),
                }
                print(json.dumps(line), flush=True)


async def run(arguments: argparse.Namespace) -> None:
    """All cases."""
    spins, users = ([int(one) for one in text.split(",")] for text in (arguments.spins, "8,1"))
    for case in arguments.cases.split(","):
        await run_case(case, spins, users, arguments.rounds)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spins", default="0,300,1000,300000", help="turns before a thread sleeps")
    parser.add_argument("--cases", default=",".join(CASES), help="which of them")
    parser.add_argument("--rounds", type=int, default=6)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
