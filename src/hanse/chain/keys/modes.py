"""Folders and files that only their owner may open."""

import contextlib
import os
import stat
from pathlib import Path

from hanse.protocol.errors import RequestError


def make_private(folder: Path) -> None:
    """Make a folder and those above it that are missing, all with mode 0700.

    `mkdir(parents=True)` gives its mode to the last one only: whoever may write to one above could
    put another folder in its place.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True, mode=0o700)


def verify_mode(path: Path, allowed: int) -> None:
    """Refuse a file or folder that is open to others.

    Raises:
        RequestError: `keystore_permissions`; the message says the chmod.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~allowed:
        raise RequestError(
            "keystore_permissions",
            f"{path} has mode {mode:04o}, allowed is at most {allowed:04o}: run"
            f" chmod {allowed:o} {path}",
        )


def sync_folder(folder: Path) -> None:
    """Make its entries durable, where the file system can sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
