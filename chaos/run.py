"""One seed from its beginning to its verdict.

result = run_seed(17, steps=300)
result.line          # the line on standard output
result.is_clean
"""

import gc
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.bugs import Bug
from chaos.driver import Driver
from chaos.market.components import ErrorLog
from chaos.verdict.books import read_entries
from chaos.verdict.checks import verify_run
from chaos.world import World

TRACES = Path(".chaos")
"""Where the trace of a run that failed is left, below the working directory; not committed."""

DRAIN_S_SHORT = 400.0
"""Of a run that needs no second violation: a clean one is quiet after five minutes."""

_kept: list[object] = []
"""Worlds of earlier runs: letting go of one would finalise the frames of its dead processes."""


@dataclass(frozen=True)
class RunResult:
    """What one run found.

    Attributes:
        line: the summary, one JSON object.
        trace_hash: equal for equal runs.
        violations: in words; none in a clean run.
        tallies: how much was done.
        crash_sites: distinct places in Hanse's code where a task stood when its process died.
    """

    seed: int
    steps: int
    line: str
    trace_hash: str
    violations: tuple[str, ...]
    tallies: dict[str, int]
    faults: dict[str, int]
    crash_sites: frozenset[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.violations


def run_seed(
    seed: int,
    steps: int,
    bug: Bug = Bug.NONE,
    on_step: Callable[[int], None] = lambda step: None,
    *,
    is_enough: bool = False,
    only: str = "",
) -> RunResult:
    """Run one seed; a run that fails leaves its trace below `TRACES`.

    Args:
        seed: of everything.
        steps: of the driver.
        bug: what is broken on purpose.
        on_step: told each step's number.
        only: name of the one fault that there is; empty for all.
        is_enough: whether one violation ends the run, before all is healed and checked.
    """
    fast = Path("/dev/shm")  # noqa: S108 (databases in memory: the runs would wait for the disk)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=fast if fast.is_dir() else None))
    world = World(seed, folder, bug)
    log = logging.getLogger("hanse")
    handler = ErrorLog(world, _is_expected)
    log.addHandler(handler)
    was, log.propagate = log.propagate, False
    lost = twice = 0
    try:
        driver = Driver(world, only)
        _kept.append(driver)
        driver.set_up()
        for step in range(0 if world.violations else steps):
            driver.step()
            on_step(step)
            if is_enough and world.violations:
                break
        if not (is_enough and world.violations):
            driver.heal()
            driver.drain(*([DRAIN_S_SHORT] if is_enough else []))
            lost, twice = verify_run(world, driver.brokers, driver.users, driver.recorder)
        if world.violations:
            _note_transactions(driver)
    finally:
        log.removeHandler(handler)
        log.propagate = was
        shutil.rmtree(folder, ignore_errors=True)
        gc.freeze()  # the next run need not look at what this one leaves
    others = len(world.violations) - bool(lost) - min(twice, 5)
    summary = {
        "seed": seed,
        "steps": steps,
        "units_lost": lost,
        "disagreements": max(0, others),
        "served_twice": twice,
        "faults": dict(sorted(world.counts.items())),
    }
    for user in driver.users:
        world.tallies[f"{user.name} answered"] = user.outcomes["answered"]
    world.tallies["application answered"] = driver.application.outcomes["status 200"]
    if world.violations:
        world.write_trace(TRACES / f"seed-{seed}-steps-{steps}.txt")
    return RunResult(
        seed,
        steps,
        json.dumps(summary),
        world.get_trace_hash(),
        tuple(world.violations),
        dict(world.tallies),
        dict(world.counts),
        frozenset(world.crash_sites),
    )


def _is_expected(text: str) -> bool:
    """A broker that gave no sign for too long ends, as it must, and is started again."""
    return "the lease of broker-" in text and "has ended: it gave no sign" in text


def _note_transactions(driver: Driver) -> None:
    """For whoever reads the trace of a run that failed."""
    for component in driver.components:
        for entry in read_entries(component):
            driver.world.note(
                f"{component.name} {entry.key[:40]} ({entry.call.label}): {entry.state}, block "
                f"{entry.block_number}, nonce {entry.nonce}, {entry.reason}"
            )
