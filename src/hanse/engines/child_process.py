"""What holds for every process that an engine starts, on both sides of the pipe.

A child gets none of our own variables; it ends with its parent, also with one that is killed, and
not before it; it cannot take more memory than it was given.

    child = await start_child("hanse.engines.llama.server", log_path)        # in the parent
    await load_within(talk_until_ready(child), ready_timeout_s)
    follow_parent(config.parent_pid)                       # in the child, before anything else
    bound_memory(config.memory_max_mib)

Children import this too and have no loop, so asyncio is imported by what starts them only.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, TypeVar

from hanse.protocol.errors import TransientError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

T = TypeVar("T")

OWN_VARIABLES = "HANSE_"
"""Of these none is passed on: among them is the password of our keys, and native code that reads
what strangers send has no use for it.
"""

OPENMP = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "300"}
"""How threads of OpenMP wait for one another, hundreds of times a token: for some 15 us awake, then
asleep. GNU's default, milliseconds awake, takes nine tenths of the speed where others want the
cores; asleep at once takes up to two thirds of it where nobody does. An operator's own values
win, `active` too, which a count of turns would overrule. Figures: docs/measurements.md, "How
threads wait".
"""

_PR_SET_PDEATHSIG = 1


def make_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child, made of this process's, and of `OPENMP`."""
    kept = {k: v for k, v in own.items() if not k.startswith(OWN_VARIABLES)}
    return kept | _get_missing(kept)


def set_openmp() -> None:
    """For a library that runs in this process: as `OPENMP`, if it is called before its import."""
    os.environ.update(_get_missing(os.environ))


def _get_missing(own: Mapping[str, str]) -> dict[str, str]:
    """Of `OPENMP` what an operator has left to us."""
    if own.get("OMP_WAIT_POLICY", "").lower() == "active":
        return {}
    return {name: value for name, value in OPENMP.items() if name not in own}


async def start_child(module: str, log_path: str = "") -> "Process":
    """Start `python -m MODULE` with pipes for its input and its output.

    Args:
        module: of ours; run by this interpreter.
        log_path: file for what its libraries write; dropped if empty.
    """
    import asyncio

    log = open(log_path, "ab") if log_path else None  # noqa: ASYNC230, SIM115
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log or asyncio.subprocess.DEVNULL,
            env=make_environment(os.environ),
        )
    finally:
        if log is not None:
            log.close()


async def load_within(loading: Awaitable[T], ready_timeout_s: float) -> T:
    """What `loading` comes to, in its time.

    Raises:
        TransientError: `engine_unavailable`, it took longer.
    """
    import asyncio

    try:
        async with asyncio.timeout(ready_timeout_s):
            return await loading
    except TimeoutError as error:
        raise TransientError(
            "engine_unavailable",
            f"The model did not load within {ready_timeout_s:g} s; "
            "raise ready_timeout_s or take a smaller one.",
        ) from error


def follow_parent(parent_pid: int) -> None:
    """End with the parent and not before it.

    Ctrl-C reaches every process of a terminal, but a parent that drains still needs its children.
    When the parent ends, on Linux the kernel kills this process, whatever it is doing then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def bound_memory(mib: int) -> None:
    """A runaway request ends this process, not the machine; Linux only."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = mib * 2**20
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
