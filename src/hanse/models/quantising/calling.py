"""Runs one job of `worker` in a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from hanse.models.quantising.worker import Job
from hanse.models.tensors import Progress
from hanse.protocol.errors import RequestError

LOOK_S = 0.25
"""How often `watch` is asked while nothing comes from the process."""

OPENMP = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "300"}
"""Threads that wait sleep soon: on busy cores they would else take the time of those that work. An
operator's own values win, `active` too, which a count of turns would overrule."""

NO_BACKTRACE = {"GGML_NO_BACKTRACE": "1"}
"""A process that ends itself does not call a debugger first."""

OWN_VARIABLES = ("HANSE_",)
"""Passwords among them: a process that reads a stranger's file gets none. `engines.child_process`
has the same rules, of OpenMP too: models and engines do not import one another, and no folder below
both is about processes."""


class _Line(msgspec.Struct):
    text: str = ""
    share: float = 0.0
    refused: str | None = None
    result: dict[str, Any] | None = None


def run_job(
    job: Job, progress: Progress | None = None, watch: Callable[[], None] | None = None
) -> dict[str, Any]:
    """The job's result.

    Args:
        job: what to do.
        progress: told what the process tells.
        watch: called while it works, for work that says nothing of itself.

    Raises:
        RequestError: `unprocessable`, llama.cpp could not do it; the message says what it said, or
            how its process ended.
    """
    process = subprocess.Popen(
        (sys.executable, "-m", "hanse.models.quantising.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=make_environment(os.environ),
    )
    try:
        return _follow(process, msgspec.json.encode(job), progress, watch)
    finally:
        # whoever presses Ctrl-C wants the work to stop, not to go on unseen
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def make_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process, made of this one's."""
    kept = {k: v for k, v in own.items() if not k.startswith(OWN_VARIABLES)}
    is_active = kept.get("OMP_WAIT_POLICY", "").lower() == "active"
    return NO_BACKTRACE | ({} if is_active else OPENMP) | kept


def _follow(
    process: "subprocess.Popen[bytes]",
    job: bytes,
    progress: Progress | None,
    watch: Callable[[], None] | None,
) -> dict[str, Any]:
    import selectors

    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(job)
        process.stdin.close()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(LOOK_S):
                if watch:
                    watch()
                continue
            raw = process.stdout.readline()
            if not raw:
                break
            line = msgspec.json.decode(raw, type=_Line)
            if line.refused is not None:
                raise RequestError("unprocessable", f"llama.cpp refused: {line.refused}")
            if line.result is not None:
                return line.result
            if progress:
                progress(line.text, line.share)
    raise RequestError(
        "unprocessable",
        f"llama.cpp's process ended without a result (exit code {process.wait()}); memory may have "
        "run out, or it cannot read this model.",
    )
