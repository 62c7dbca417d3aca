"""All lanes as processes, a progress bar, and the report: `make bench-audit QUICK=0`.

Some 3,700 seconds of processor time for 10,000 honest answers on the machine that
docs/measurements.md names, so an hour of two quiet cores and many of busy ones; `CHEATS=kv4,swap`
asks for those cheats' answers alone. It may be stopped at any time and started again: audited
answers are lines of files in the folder. `REPORT=1` prints what is there and measures nothing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.audit_cheats import find_files, make_files
from benchmarks.auditing.lane import get_path
from benchmarks.auditing.plan import CHEATS, CHEATS_LANE, LANES, Job, count_answers, make_plan
from benchmarks.auditing.plot import draw_plot
from benchmarks.auditing.records import Record, read_records
from benchmarks.auditing.report import make_report, make_rows

LOOK_S = 10.0
BAR = 30
REPORT = "report.jsonl"
NICENESS = 19


def measure_whole(folder: Path, cheats: Sequence[str] = ()) -> None:
    """Run what is missing of the plan; with `cheats` nothing but their answers.

    Raises:
        SystemExit: a lane failed; its own message stands above.
        KeyboardInterrupt: it was stopped; the lanes have ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not all(path.exists() for path in find_files(folder).values()):
        print("making copies", file=sys.stderr)
        make_files(folder)
    plans = {CHEATS_LANE: cheats} if cheats else dict.fromkeys(LANES, CHEATS)
    commands = [
        ["benchmarks.auditing.lane", lane, str(folder), "--cheats", ",".join(names)]
        for lane, names in plans.items()
    ]
    wanted = [job for lane, names in plans.items() for job in make_plan(lane, names)]
    before, began = _count_done(folder, wanted), time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also ends the lanes
    _run(commands, lambda: _show_progress(before, wanted, folder, time.monotonic() - began))
    if not cheats:
        print("auditing again, by llama.cpp", file=sys.stderr)
        _run([["benchmarks.auditing.again", str(folder)]], lambda: None)


def _run(commands: Sequence[Sequence[str]], look: Callable[[], None]) -> None:
    """Run modules as processes side by side; whatever happens, none of them is left."""
    lanes = [_start(command) for command in commands]
    try:
        while any(lane.poll() is None for lane in lanes):
            time.sleep(LOOK_S)
            look()
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the bar ends without a line feed
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would leave engines behind
        for lane in lanes:
            lane.terminate()
        codes = [lane.wait() for lane in lanes]
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if any(codes):
        raise SystemExit(f"the lanes ended with {codes}; run it again to go on")


def print_report(folder: Path, plot: Path | None = None, *, is_all: bool = True) -> None:
    """The lines of what was audited; a plot of it as SVG.

    Without `is_all` only those of cheats, which the issue asks for; the others, on honest answers,
    are in the folder's report.jsonl with them.
    """
    with (folder / REPORT).open("w") as file:
        for line in make_report(folder):
            file.write(json.dumps(line) + "\n")
            if is_all or "cheat" in line:
                print(json.dumps(line), flush=True)
    if plot is not None:
        plot.write_text(draw_plot(*make_rows(folder)))


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # A session of its own: a terminal's interrupt is ours to pass on, once a lane can handle it.
    whole = [sys.executable, "-m", *command]
    return subprocess.Popen(whole, preexec_fn=lambda: os.nice(NICENESS), start_new_session=True)


def _count_done(folder: Path, wanted: Sequence[Job]) -> int:
    names = {job.name for job in wanted}
    records = read_records(get_path(folder, lane) for lane in LANES)
    return len({_get_key(one) for one in records if one.job in names})


def _get_key(record: Record) -> tuple[str, int, int]:
    return record.job, record.question, record.sampler


def _show_progress(before: int, wanted: Sequence[Job], folder: Path, passed_s: float) -> None:
    whole, done = count_answers(wanted), _count_done(folder, wanted)
    rate = (done - before) / passed_s
    left = f"{(whole - done) / rate / 60:.0f} min left" if rate else "starting"
    filled = BAR * done // whole
    bar = "#" * filled + "-" * (BAR - filled)
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"[{bar}] {done:,} of {whole:,} answers, {left}   ", end=end, file=sys.stderr, flush=True)
