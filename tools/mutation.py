"""Mutation testing of the code that counts money: does a test notice when a line of it changes?

    make mutation                      all groups
    make mutation PARTS=rules          one of them
    make mutation PARTS="rules --again"   only what nobody noticed last time, and what changed since

mutmut changes one thing at a time (an operator, a number, a text, an argument) and runs the tests
that reach it. A change that no test notices survived: either a test is missing, or the change makes
no difference, and then `tools/mutation_explained.json` says why. Ends with one JSON line a group on
standard output, and fails if a survivor is not explained.

Everything happens in a copy under build/, so that the checkout stays as it is.

Source: mutmut 3 (mutmut.readthedocs.io). What came of it: docs/mutation.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "mutation"
EXPLAINED = ROOT / "tools" / "mutation_explained.json"
COPIED = ("src", "tests", "benchmarks", "tools", "docs", "examples", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Group:
    """Modules that are changed, and the tests that should notice.

    The tests are quick ones, each a second at most: every change is tried against all that reach
    it. `options` are pytest's.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()


ONE_STORE = ("-k", "not postgresql")
"""The two stores run the same tests, and the code that is changed here knows neither."""

GROUPS = {
    "rules": Group(
        (
            "protocol/books.py",
            "protocol/units.py",
            "protocol/pricing.py",
            "protocol/merkle.py",
            "protocol/hashing.py",
            "protocol/verify.py",
        ),
        ("tests/protocol",),
    ),
    "ledger": Group(
        ("protocol/ledger/*.py",),
        (
            "tests/protocol/test_ledger_steps.py",
            "tests/protocol/test_ledger_refusals.py",
            "tests/protocol/test_ledger_invariants.py",
            "tests/protocol/test_dispute_invariants.py",
        ),
    ),
    "admission": Group(
        (
            "settlement/books/receipt_book.py",
            "settlement/books/receipt_closing.py",
            "settlement/books/receipt_totals.py",
            "settlement/books/book_guard.py",
        ),
        (
            "tests/settlement/test_receipt_book.py",
            "tests/settlement/test_receipt_book_details.py",
            "tests/settlement/test_book_guard.py",
        ),
        ONE_STORE,
    ),
    "settlement": Group(
        ("settlement/netting/*.py",),
        (
            "tests/settlement/test_plan.py",
            "tests/settlement/test_plan_details.py",
            "tests/settlement/test_payable.py",
            "tests/settlement/test_settling_alone.py",
        ),
    ),
    "records": Group(
        (
            "protocol/records/matching.py",
            "protocol/records/messages.py",
            "protocol/records/proofs.py",
            "protocol/records/verify.py",
        ),
        ("tests/protocol/test_record_details.py", "tests/protocol/test_records.py"),
    ),
    "recording": Group(
        ("settlement/records/answers.py", "settlement/records/watch.py"),
        (
            "tests/settlement/test_records_answers.py",
            "tests/settlement/test_records_watch.py",
            "tests/settlement/test_records_watch_details.py",
        ),
    ),
    "disputes": Group(
        ("settlement/disputes/findings.py", "settlement/disputes/evidence.py"),
        (
            "tests/settlement/test_dispute_details.py",
            "tests/settlement/test_dispute_findings.py",
        ),
    ),
}

ALIVE = ("survived", "no tests")
"""What mutmut calls a change that no test noticed; the second: no test even runs that line."""

UNMUTATED_TESTS = ("tests/protocol/test_errors.py",)
"""They read the source text, which mutmut rewrites."""


def main() -> int:
    """Run the groups that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help=", ".join(GROUPS))
    parser.add_argument("--workers", type=int, default=2, help="mutants tried at once")
    parser.add_argument("--again", action="store_true", help="only survivors, and what changed")
    arguments = parser.parse_args()
    explained = json.loads(EXPLAINED.read_text())
    unexplained = 0
    for name in arguments.groups or GROUPS:
        unexplained += run_group(name, arguments.workers, explained, arguments.again)
    return 1 if unexplained else 0


def run_group(name: str, workers: int, explained: dict[str, str], again: bool) -> int:
    """Mutate one group; returns how many survivors nobody explained."""
    folder = WORK / name
    if not again:
        shutil.rmtree(folder, ignore_errors=True)
    copy_tree(folder, GROUPS[name])
    run = ("run", "--max-children", str(workers))
    run_mutmut(folder, *run, show=True)
    if again and (alive := list_alive(read_states(folder))):
        run_mutmut(folder, *run, *alive, show=True)
    states = read_states(folder)
    counts = {state: list(states.values()).count(state) for state in sorted({*states.values()})}
    survivors = list_alive(states)
    unexplained = 0
    for mutant in survivors:
        change = describe(folder, mutant)
        if change in explained:
            continue
        unexplained += 1
        print(f"survived, and nobody says why: {change}", file=sys.stderr)
    result = {"group": name, "mutants": len(states), **counts, "unexplained": unexplained}
    print(json.dumps(result), flush=True)
    return unexplained


def copy_tree(folder: Path, group: Group) -> None:
    """A fresh copy of what the tests need, with mutmut's settings for this group."""
    folder.mkdir(parents=True, exist_ok=True)
    leave = shutil.ignore_patterns("__pycache__")
    for part in COPIED:
        source = ROOT / part
        if source.is_dir():
            shutil.rmtree(folder / part, ignore_errors=True)
            shutil.copytree(source, folder / part, ignore=leave)
        elif source.exists():
            shutil.copy2(source, folder / part)
    settings = {
        "source_paths": ["src/hanse"],
        "only_mutate": [f"src/hanse/{module}" for module in group.modules],
        "also_copy": [part for part in COPIED if part not in ("src", "pyproject.toml")],
        "pytest_add_cli_args_test_selection": list(group.tests),
        "pytest_add_cli_args": [
            *(f"--ignore={path}" for path in UNMUTATED_TESTS),
            "--hypothesis-profile=mutation",
            *group.options,
        ],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    with (folder / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def run_mutmut(folder: Path, *arguments: str, show: bool = False) -> str:
    """Run mutmut in the copy; its own output goes to standard error if it is shown."""
    environment = {**os.environ, "HANSE_HOME": str(ROOT / ".hanse")}
    done = subprocess.run(
        (sys.executable, "-m", "mutmut", *arguments),
        cwd=folder,
        env=environment,
        stdout=sys.stderr if show else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"mutmut {arguments[0]} failed; look at its words above, and in {folder}")
    return done.stdout or ""


def read_states(folder: Path) -> dict[str, str]:
    """Each mutant's name and what became of it."""
    states = {}
    for line in run_mutmut(folder, "results", "--all", "true").splitlines():
        mutant, _, state = line.strip().rpartition(": ")
        if mutant:
            states[mutant] = state
    return states


def list_alive(states: dict[str, str]) -> list[str]:
    """The mutants that no test noticed."""
    return [mutant for mutant, state in states.items() if state in ALIVE]


def describe(folder: Path, mutant: str) -> str:
    """The change in one line: function, what stood there, what stood there instead."""
    function = mutant.partition("__mutmut_")[0].removeprefix("hanse.")
    before, after = [], []
    for line in run_mutmut(folder, "show", mutant).splitlines():
        if line.startswith("-") and not line.startswith("---"):
            before.append(line[1:].strip())
        elif line.startswith("+") and not line.startswith("+++"):
            after.append(line[1:].strip())
    return f"{function}: {' '.join(before)} => {' '.join(after)}"


if __name__ == "__main__":
    sys.exit(main())
