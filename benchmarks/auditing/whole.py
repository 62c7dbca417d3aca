"""All lanes as processes, a progress bar, and the report: `make bench-audit QUICK=0`.

Some 3,700 seconds of processor time on the machine that docs/measurements.md names, so an hour of
two quiet cores and many of busy ones. It may be stopped at any time and started again: audited
answers are lines of files in the folder. `REPORT=1` prints what is there and measures nothing.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.audit_cheats import find_files, make_files
from benchmarks.auditing.lane import get_path
from benchmarks.auditing.plan import LANES, count_answers, make_plan
from benchmarks.auditing.plot import draw_plot
from benchmarks.auditing.records import Record, read_records
from benchmarks.auditing.report import make_report, make_rows

LOOK_S = 10.0
BAR = 30
NICENESS = 19


def measure_whole(folder: Path) -> None:
    """Run what is missing of the plan.

    Raises:
        SystemExit: a lane failed; its own message stands above.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not all(path.exists() for path in find_files(folder).values()):
        print("making copies", file=sys.stderr)
        make_files(folder)
    before, began = _count_done(folder), time.monotonic()
    lanes = [_start(lane, folder) for lane in LANES]
    try:
        while any(lane.poll() is None for lane in lanes):
            time.sleep(LOOK_S)
            _show_progress(before, _count_done(folder), time.monotonic() - began)
    except KeyboardInterrupt:
        raise SystemExit("stopped; run it again to go on, REPORT=1 prints what is there") from None
    finally:
        for lane in lanes:
            lane.terminate()
        codes = [lane.wait() for lane in lanes]
        print(file=sys.stderr)
    if any(codes):
        raise SystemExit(f"the lanes ended with {codes}; run it again to go on")


def print_report(folder: Path, plot: Path | None = None) -> None:
    """The lines of what was audited; a plot of it as SVG."""
    for line in make_report(folder):
        print(json.dumps(line), flush=True)
    if plot is not None:
        plot.write_text(draw_plot(*make_rows(folder)))


def _start(lane: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.auditing.lane", lane, str(folder)]
    return subprocess.Popen(command, preexec_fn=lambda: os.nice(NICENESS))


def _count_done(folder: Path) -> int:
    return len({_get_key(one) for one in read_records(get_path(folder, lane) for lane in LANES)})


def _get_key(record: Record) -> tuple[str, int, int]:
    return record.job, record.question, record.sampler


def _show_progress(before: int, done: int, passed_s: float) -> None:
    whole = count_answers([job for lane in LANES for job in make_plan(lane)])
    rate = (done - before) / passed_s
    left = f"{(whole - done) / rate / 60:.0f} min left" if rate else "starting"
    filled = BAR * done // whole
    bar = "#" * filled + "-" * (BAR - filled)
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"[{bar}] {done:,} of {whole:,} answers, {left}   ", end=end, file=sys.stderr, flush=True)
