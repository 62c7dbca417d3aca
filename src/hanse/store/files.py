"""Files: those that somebody named, read within bounds; new ones, written whole or not at all.

What a file says is not looked at here: `hanse.protocol.wire.files` does that, purely.
"""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from hanse.protocol.errors import RequestError


def read_file(path: Path, bytes_max: int) -> bytes:
    """A file's first bytes, one more than `bytes_max` at most, by which it is seen to be too long.

    Raises:
        RequestError: `not_found`, it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(bytes_max + 1)
    except OSError as error:
        raise RequestError("not_found", f"cannot read {path}: {error.strerror}") from None


def write_new_file(path: Path, data: bytes) -> None:
    """Write a new file (mode 0600) that is there whole or not at all, also after a power cut.

    Its folder has to be there. What dies on the way leaves at most a hidden draft beside it.

    Raises:
        FileExistsError: it is there, and stays as it is.
        OSError: it cannot be written.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
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
