"""Cheats against rungs, on the packaged model: `make bench-audit` (QUICK=0 for the whole).

What follows is the quick one, of minutes; the whole is `benchmarks.auditing.whole`: 10,000 held-out
honest answers of two runtimes, thousands of lines that may be stopped and gone on with.

Copies are made, honest answers served and audited for thresholds, more of them (other questions)
for false positives, then each cheat's. On standard output a JSON line for each cheat, rung and
number of tokens:

    cheat, rung       V0 signatures, V2 sampling, V3 fingerprint, both: what an audit runs
    tokens            of one provider's answers, one after the other, as far as they go
    detected          share of such groups in which the rung found something; `groups` of them
    penalised         share with the verdict cheat, which takes more than twice a threshold
    honest_answers    held-out ones, `false_positives` of them above a threshold of this rung, and
                      `penalties` with the verdict cheat; `rate_at_most` bounds it at 95 %

and one with the cost at the end, where `bytes_per_token` is what a broker keeps. At one token the
threshold is that of single positions, which audits do not use: it is there to compare. No rung sees
at fewer tokens than it is declared for.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.audit_cheats import BY_FILE, ROOT, find_files, make_files, serve, serve_cheat
from benchmarks.audit_cost import measure_cost
from benchmarks.auditing.groups import make_groups
from benchmarks.auditing.plan import CHEATS
from benchmarks.auditing.signed import show_signed
from benchmarks.auditing.whole import measure_whole, print_report
from hanse.auditor.calibrating.noise import Load, Rescored, Sample, calibrate, rescore, take
from hanse.auditor.calibrating.prompts import make_request
from hanse.auditor.opened_model import OpenedModel, open_model
from hanse.protocol.commitments.fingerprints import ABSENT, get_error
from hanse.verification.audits.bounds import find_upper_bound, get_rate_bound
from hanse.verification.audits.calibration import MARGIN_PPM, Calibration
from hanse.verification.audits.judging import PENALTY_FACTOR
from hanse.verification.audits.measuring import Measured
from hanse.verification.audits.statistics import (
    FINGERPRINT,
    get_fingerprint_statistics,
    get_sampling_statistics,
)

RUNGS = ("V2", "V3", "V2+V3")
POINTS = (1, 4, 16, 64, 300, 1_000)
CONFIDENCE = 0.95
LOADS = (Load(1, 1), Load(2, 4))


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    calibration: int
    held_out: int
    cheating: int
    tokens: int
    quantile: float


QUICK = Size(calibration=240, held_out=80, cheating=12, tokens=40, quantile=0.95)
WHOLE_FOLDER = Path(".cache/bench-audit")


@dataclass(frozen=True)
class Judge:
    """Thresholds, and that of one position alone."""

    calibration: Calibration
    single_ppm: int

    def is_above(self, rung: str, found: Rescored, count: int) -> bool:
        """Whether this rung finds something in the first `count` tokens of an answer."""
        statistics: dict[str, int] = {}
        entries, measured = found.entries[:count], cut(found.measured, count)
        if "V3" in rung:
            served = [entry.fingerprint for entry in entries]
            statistics |= get_fingerprint_statistics(served, measured.fingerprints)
            if count == 1 and served[0] != ABSENT:
                error = get_error(served[0], measured.fingerprints[0])
                return round(error * 1e6) > self.single_ppm
        if "V2" in rung:
            statistics |= get_sampling_statistics(measured.misses, found.chain)
        limits = {one.statistic: one.limit_ppm for one in self.calibration.thresholds}
        return any(value > limits.get(name, value) for name, value in statistics.items())

    def is_cheat(self, found: Rescored, count: int) -> bool:
        """Whether the first tokens' fingerprints are so far off that the verdict is cheat."""
        served = [entry.fingerprint for entry in found.entries[:count]]
        values = get_fingerprint_statistics(served, found.measured.fingerprints[:count])
        limits = {one.statistic: one.limit_ppm for one in self.calibration.thresholds}
        return any(
            value > PENALTY_FACTOR * limits.get(name, value) for name, value in values.items()
        )


def cut(measured: Measured, count: int) -> Measured:
    """The first positions' numbers."""
    return Measured(
        measured.runtime,
        measured.fingerprints[:count],
        measured.misses[:count],
        measured.odds[:count],
    )


def _count(answer: Rescored) -> int:
    return len(answer.entries)


def get_detection(
    judge: Judge, rung: str, answers: Sequence[Rescored], tokens: int
) -> tuple[float, int]:
    """Share of groups of so many tokens in which something is found, and how many groups."""
    found = []
    for group in make_groups(answers, tokens, _count):
        found.append(any(judge.is_above(rung, one, count) for one, count in group))
    return (sum(found) / len(found) if found else 0.0), len(found)


def get_penalised(judge: Judge, answers: Sequence[Rescored], tokens: int) -> float:
    """Share of groups of so many tokens in which an answer has the verdict cheat."""
    found = [
        any(judge.is_cheat(one, count) for one, count in group)
        for group in make_groups(answers, tokens, _count)
    ]
    return sum(found) / len(found) if found else 0.0


async def gather(
    model: OpenedModel,
    numbers: Sequence[int],
    size: Size,
    answer: Callable[[list[Any], Load], Any],
    sample: Sample,
) -> list[Rescored]:
    """Serve and rescore questions, half of them under each load."""
    found = []
    for at, load in enumerate(LOADS):
        questions = [make_request(number, size.tokens) for number in numbers[at :: len(LOADS)]]
        for served in await answer(questions, load):
            one = rescore(served, model)
            take(sample, served, one)
            if isinstance(one, Rescored):
                found.append(one)
        sample.labels |= {f"threads={load.threads}", f"concurrent={load.concurrent}"}
    return found


def get_single_limit(answers: Sequence[Rescored], quantile: float) -> int:
    """The threshold of one position: the worst of each answer, bounded like the others."""
    worst = [
        max(
            round(get_error(entry.fingerprint, own) * 1e6)
            for entry, own in zip(one.entries, one.measured.fingerprints, strict=True)
            if entry.fingerprint != ABSENT
        )
        for one in answers
    ]
    bound = find_upper_bound(worst, quantile, CONFIDENCE)
    assert bound is not None
    return bound * MARGIN_PPM // 1_000_000


async def run(size: Size, runtime: str, folder: Path) -> None:
    tell("making copies")
    files = make_files(folder)
    with open_model(files["own"], runtime, threads=1, context_tokens=1_024) as model:

        def honestly(questions: list[Any], load: Load) -> Any:
            return serve(files["own"], questions, load, folder)

        tell(f"{size.calibration} honest answers for thresholds")
        sample = Sample()
        first = await gather(model, range(size.calibration), size, honestly, sample)
        made = calibrate(sample, model, ROOT, "Q8_0", size.quantile, CONFIDENCE)
        judge = Judge(made, get_single_limit(first, size.quantile))
        tell(f"{size.held_out} held-out honest answers; left out so far: {sample.misfits}")
        rest = range(size.calibration, size.calibration + size.held_out)
        held_out = await gather(model, rest, size, honestly, sample)
        wrong = {rung: count_wrong(judge, rung, held_out) for rung in RUNGS}
        wrong["penalties"] = sum(judge.is_cheat(one, len(one.entries)) for one in held_out)
        for name, file in BY_FILE.items():
            tell(f"cheat {name}")

            def cheat(questions: list[Any], load: Load, name: str = name, file: str = file) -> Any:
                return serve_cheat(name, files[file], questions, load, folder, model)

            found = await gather(model, get_numbers(size.cheating), size, cheat, Sample())
            show(name, judge, found, held_out, wrong)
        for line in show_signed([one.entries for one in held_out]):
            print(json.dumps(line), flush=True)
        tell("cost")
        cost = await measure_cost(files["own"], model, folder)
        print(json.dumps(cost | describe(judge, sample, runtime)), flush=True)


async def print_cost(folder: Path) -> None:
    """The last line of the whole; the quick one has it with its thresholds."""
    own = find_files(folder)["own"]
    with open_model(own, "llama", threads=1, context_tokens=1_024) as model:
        print(json.dumps(await measure_cost(own, model, folder)), flush=True)


def get_numbers(count: int) -> list[int]:
    """Questions of a cheat: those with a system message, which one of the cheats drops."""
    numbers = [number for number in range(3 * count + 21) if has_system(number)]
    return numbers[:count]


def has_system(number: int) -> bool:
    return any(one["role"] == "system" for one in make_request(number, 1)[1]["messages"])


def count_wrong(judge: Judge, rung: str, answers: Sequence[Rescored]) -> int:
    return sum(judge.is_above(rung, one, len(one.entries)) for one in answers)


def show(
    name: str,
    judge: Judge,
    found: Sequence[Rescored],
    held_out: Sequence[Rescored],
    wrong: dict[str, int],
) -> None:
    for rung in RUNGS:
        false = wrong[rung]
        for tokens in POINTS:
            detected, groups = get_detection(judge, rung, found, tokens)
            penalised = get_penalised(judge, found, tokens)
            if groups:
                line = {
                    "cheat": name, "rung": rung, "tokens": tokens, "detected": round(detected, 4),
                    "honest_answers": len(held_out), "false_positives": false,
                    "groups": groups, "penalised": round(penalised, 4) if "V3" in rung else 0.0,
                    "penalties": wrong["penalties"],
                    "rate_at_most": round(get_rate_bound(false, len(held_out), CONFIDENCE), 5),
                }  # fmt: skip
                print(json.dumps(line), flush=True)


def describe(judge: Judge, sample: Sample, runtime: str) -> dict[str, Any]:
    limits = {one.statistic: one.limit_ppm / 1e6 for one in judge.calibration.thresholds}
    worst = {
        one.statistic: one.largest_ppm[0] / 1e6
        for one in judge.calibration.thresholds
        if one.statistic in FINGERPRINT
    }
    return {
        "auditor": runtime,
        "limits": limits | {"one position": judge.single_ppm / 1e6},
        "worst_honest": worst,
        "quantile": judge.calibration.quantile_ppm / 1e6,
        "left_out": sample.misfits,
        "honest_tokens": sample.tokens,
    }


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", type=int, default=1, help="0: the whole, which takes hours")
    parser.add_argument("--runtime", choices=("llama", "torch"), default="llama")
    parser.add_argument("--folder", type=Path, default=WHOLE_FOLDER, help="of the whole")
    parser.add_argument(
        "--cheats",
        type=read_cheats,
        default=(),
        metavar="NAME,NAME",
        help=f"of the whole measure only what is missing of these cheats: {', '.join(CHEATS)}",
    )
    parser.add_argument("--report", type=int, default=0, help="1: only print what was measured")
    parser.add_argument("--plot", type=Path, help="where an SVG of the whole goes")
    arguments = parser.parse_args()
    try:
        measure_all(arguments)
    except KeyboardInterrupt:
        kept = "" if arguments.quick else "; run it again to go on, REPORT=1 prints what is there"
        raise SystemExit(f"stopped{kept}") from None


def measure_all(arguments: argparse.Namespace) -> None:
    if arguments.report:
        print_report(arguments.folder, arguments.plot)
    elif arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(QUICK, arguments.runtime, Path(folder)))
    else:
        measure_whole(arguments.folder, arguments.cheats)
        print_report(arguments.folder, arguments.plot, is_all=False)
        asyncio.run(print_cost(arguments.folder))


def read_cheats(text: str) -> tuple[str, ...]:
    """Names of a list with commas; argparse prints what is raised."""
    names = tuple(name for name in text.split(",") if name)
    if unknown := sorted(set(names) - set(CHEATS)):
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown)}: not measured by answers; those that are: {', '.join(CHEATS)}"
        )
    return names


if __name__ == "__main__":
    main()
