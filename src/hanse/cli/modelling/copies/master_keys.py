"""Master keys of copies: a file with 64 hex digits that only its owner can read."""

import os
import secrets
from pathlib import Path

from hanse.protocol.errors import RequestError

MASTER_BYTES = 32
"""As `hanse.models.copies.keys` takes it."""


def read_master(path: Path) -> bytes:
    """The master key in a file.

    Raises:
        RequestError: `not_found`, there is none; `keystore_permissions`, others can read it;
            `configuration_invalid`, it is no key. No message holds what the file holds.
    """
    from hanse.chain.keys.modes import verify_mode

    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            "not_found", f"The master key {path} cannot be read; --new-master makes one."
        ) from error
    verify_mode(path, 0o600)
    try:
        master = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        master = b""
    if len(master) != MASTER_BYTES:
        raise RequestError(
            "configuration_invalid", f"{path} does not hold {2 * MASTER_BYTES} hex digits."
        )
    return master


def make_master(path: Path) -> bytes:
    """Write a new master key; refuse to touch a file that is there.

    Raises:
        RequestError: `usage`, the file is there, or cannot be written.
    """
    master = secrets.token_bytes(MASTER_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise RequestError(
            "usage", f"The master key {path} cannot be made: {error.strerror}."
        ) from error
    with open(descriptor, "w") as file:
        file.write(master.hex() + "\n")
    return master
