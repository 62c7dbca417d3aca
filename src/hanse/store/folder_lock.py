"""One process to a folder of state.

    with hold_folder(data_dir, "broker"):
        ...
    is_held(data_dir, "broker")

The lock ends with the process, however it ends, so a crash leaves nothing to clean up.

Source: flock(2).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hanse.protocol.errors import RequestError


@contextlib.contextmanager
def hold_folder(folder: Path, what: str) -> Iterator[None]:
    """Hold `<what>.lock` in a folder that exists.

    Raises:
        RequestError: `configuration_invalid` if another process holds it.
    """
    descriptor = os.open(folder / f"{what}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if not _try_lock(descriptor):
            raise RequestError(
                "configuration_invalid",
                f"another {what} runs with {folder}: stop it, or give this one a folder of its own",
            )
        yield
    finally:
        os.close(descriptor)


def is_held(folder: Path, what: str) -> bool:
    """Whether another process holds `<what>.lock` now."""
    try:
        descriptor = os.open(folder / f"{what}.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
