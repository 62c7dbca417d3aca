"""Where an audit's evidence lies, and how it is written."""

import os
from pathlib import Path

from hanse.protocol.errors import TransientError
from hanse.protocol.signatures import Hash32


def get_evidence_path(folder: Path, name: Hash32) -> Path:
    """The evidence file of a request."""
    return folder / f"{name}.json"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file (mode 0600) that is there whole or not at all, also after a power cut.

    Raises:
        TransientError: `store_unavailable`.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise TransientError(
            "store_unavailable", f"cannot write {path}: {error.strerror}"
        ) from None
