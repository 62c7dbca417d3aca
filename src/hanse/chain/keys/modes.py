"""Folders and files that only their owner may open."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
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


def write_new_file(path: Path, make_data: Callable[[], bytes]) -> None:
    """Write a new file (mode 0600) that is there whole or not at all, also after a power cut.

    Its folder has to be there. What dies on the way leaves at most a hidden draft beside it.
    `make_data` is called once a file can be written there.

    Raises:
        FileExistsError: it is there, and stays as it is.
        OSError: it cannot be written.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(make_data())
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, refuses to replace what is there
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make its entries durable, where the file system can sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
