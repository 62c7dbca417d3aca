"""What a change did to the paid path: two checkouts beside each other, in alternating batches.

    git worktree add ../before HEAD~1
    make bench-compare BEFORE=../before                   one JSON object a line on standard output

A machine that others use is 20 % slower now and faster a minute later, so two runs say little. Here
both networks run at once behind one instant mock engine (a fake), batches of requests alternate
between them, and what is reported is the median of the ratios of neighbouring batches. The
environment is this checkout's for both; each side runs the code of its own.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.bench_path import CONCURRENCIES, ROOT, run_mock
from benchmarks.load import run_load
from benchmarks.peers import Target

BATCH = {1: 25, 16: 64, 64: 128}
"""Requests of one batch: long enough for the scheduler's count, short enough to be neighbours."""

WARM_UP = 300


@contextlib.asynccontextmanager
async def run_side(checkout: Path, mock_url: str) -> AsyncIterator[Target]:
    """A network of that checkout's code."""
    script = ROOT / "benchmarks" / "compare_side.py"
    places = os.pathsep.join((str(checkout / "src"), str(checkout)))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        mock_url,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": places},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 180)
        if not line:
            raise RuntimeError(f"the network of {checkout} did not start; it says why above")
        yield Target(**json.loads(line))
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 60)


async def compare(before: Path, after: Path, pairs: int, *, whole: bool) -> None:
    """Print a line for each concurrency."""
    with run_mock() as (mock_url, _pid):
        async with run_side(before, mock_url) as old, run_side(after, mock_url) as new:
            for target in (old, new):
                await run_load(target, requests=WARM_UP, concurrency=16, whole=whole)
            for concurrency in CONCURRENCIES:
                costs: dict[str, list[float]] = {"before": [], "after": []}
                for turn in range(pairs):
                    sides = [("before", old), ("after", new)]
                    for name, target in sides[:: 1 if turn % 2 else -1]:
                        found = await run_load(
                            target,
                            requests=BATCH[concurrency],
                            concurrency=concurrency,
                            whole=whole,
                        )
                        costs[name].append(found.cpu_us_per_request)
                ratios = [b / a for a, b in zip(costs["before"], costs["after"], strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                row = {
                    "case": "whole" if whole else "stream",
                    "concurrency": concurrency,
                    "pairs": pairs,
                    "before_cpu_us_per_request": round(statistics.median(costs["before"])),
                    "after_cpu_us_per_request": round(statistics.median(costs["after"])),
                    "ratio": round(middle, 3),
                    "ratio_quartiles": [round(low, 3), round(high, 3)],
                }
                print(json.dumps(row), flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="a checkout of the code before the change")
    parser.add_argument("--after", type=Path, default=ROOT, help="of the code after it")
    parser.add_argument("--pairs", type=int, default=14, help="pairs of batches, at least 2")
    parser.add_argument("--whole", action="store_true", help="whole answers instead of streams")
    options = parser.parse_args()
    before, after = options.before.resolve(), options.after.resolve()
    for checkout in (before, after):
        if not (checkout / "src" / "hanse").is_dir():
            parser.error(f"{checkout} is no checkout of Hanse: it has no src/hanse")
    asyncio.run(compare(before, after, max(2, options.pairs), whole=options.whole))


if __name__ == "__main__":
    main()
