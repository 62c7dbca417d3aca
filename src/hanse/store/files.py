"""Files that somebody named, read within bounds.

What a file says is not looked at here: `hanse.protocol.wire.files` does that, purely.
"""

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
