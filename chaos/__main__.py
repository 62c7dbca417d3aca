"""`make chaos SEED=n STEPS=n`: one seed, or with --seeds many, and one JSON line for each.

Progress and what was found go to standard error. The exit status is 1 if any run found anything.
"""

import argparse
import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable

from chaos.bugs import Bug
from chaos.faults import FAULTS
from chaos.run import TRACES, RunResult, run_seed

FRESH_SEED_MAX = 1_000_000


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="the seed; a fresh one, printed, if left out")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1, help="so many, from the first one on")
    parser.add_argument("--bug", choices=[bug.value for bug in Bug], default=Bug.NONE.value)
    names = [fault.__name__ for _, fault in FAULTS]
    parser.add_argument("--only", choices=names, default="", help="one fault, and no other")
    parser.add_argument("--until-found", action="store_true", help="stop at the first violation")
    parser.add_argument("--hashes", action="store_true", help="print each run's trace hash")
    args = parser.parse_args()
    first = secrets.randbelow(FRESH_SEED_MAX) if args.seed is None else args.seed
    found = False
    totals: Counter[str] = Counter()
    sites: set[str] = set()
    for seed in range(first, first + args.seeds):
        started = time.monotonic()
        result = run_seed(
            seed,
            args.steps,
            Bug(args.bug),
            _show_progress(seed, args.steps),
            is_enough=args.until_found,
            only=args.only,
        )
        _report(result, time.monotonic() - started)
        if args.hashes:
            print(result.trace_hash, file=sys.stderr)
        totals.update(result.tallies)
        totals.update({f"fault {name}": count for name, count in result.faults.items()})
        sites |= result.crash_sites
        found |= not result.is_clean
        print(result.line, flush=True)
        if found and args.until_found:
            break
    totals["distinct crash sites"] = len(sites)
    if args.seeds > 1:
        print(json.dumps(dict(sorted(totals.items()))), file=sys.stderr)
    return int(found)


def _show_progress(seed: int, steps: int) -> Callable[[int], None]:
    def show(step: int) -> None:
        if steps >= 1_000 and step % 500 == 0:
            print(f"seed {seed}: step {step} of {steps}", file=sys.stderr, flush=True)

    return show


def _report(result: RunResult, took_s: float) -> None:
    tallies = ", ".join(f"{count} {name}" for name, count in sorted(result.tallies.items()))
    print(f"seed {result.seed}: {took_s:.1f} s; {tallies}", file=sys.stderr)
    for violation in result.violations[:20]:
        print(f"seed {result.seed}: VIOLATION {violation}", file=sys.stderr)
    if not result.is_clean:
        print(f"seed {result.seed}: trace in {TRACES}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # the order of a set of strings depends on it, and a run on that order
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "chaos", *sys.argv[1:]])  # noqa: S606
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without finalising: dead processes must not wake up to clean up
