"""What holds for every process that an engine starts, on both sides of the pipe.

A child gets none of our own variables; it ends with its parent, also with one that is killed, and
not before it; it cannot take more memory than it was given.

    environment = make_environment(os.environ)               # in the parent
    follow_parent(config.parent_pid)                       # in the child, before anything else
    bound_memory(config.memory_max_mib)
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping

OWN_VARIABLES = "HANSE_"
"""Of these none is passed on: among them is the password of our keys, and native code that reads
what strangers send has no use for it.
"""

_PR_SET_PDEATHSIG = 1


def make_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child, made of this process's.

    Idle threads of OpenMP spin by default; on busy cores that costs nine tenths of the speed.
    """
    kept = {k: v for k, v in own.items() if not k.startswith(OWN_VARIABLES)}
    return kept | {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}


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
