"""One side of `make bench-compare`: the paid path of the checkout that it runs in.

Started by `benchmarks.bench_compare` as a script, with another checkout's folders first on the
path, so that `run_hanse` and all under it are that checkout's. Prints where it serves as one line
of JSON, and ends with its standard input.
"""

import asyncio
import json
import sys

from benchmarks.bench_path import run_hanse


async def main() -> None:
    """Serve until nobody holds the other end of the pipe."""
    async with run_hanse(sys.argv[1]) as target:
        place = {"url": target.url, "headers": target.headers, "pids": target.pids}
        print(json.dumps(place), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
