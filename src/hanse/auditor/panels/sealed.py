"""Sealed votes and answers of this home: without its salt a vote cannot be revealed.

A file for each, HOME/panels/CHALLENGE-KEY-WHAT.json, readable by its owner only, flushed
before the transaction is sent. The answer's says whether a challenge was planted: it stays secret
until the challenge is closed.
"""

import os
import secrets
from pathlib import Path

import msgspec

from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.protocol.signatures import Address, Hash32

FILE_BYTES_MAX = 1_024
"""A sealed vote has 120 bytes."""


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was sealed: verdict or answer, with its salt."""

    verdict: int
    salt: Hash32


def make_sealed(verdict: Verdict) -> Sealed:
    """A new salt for a verdict or an answer."""
    return Sealed(int(verdict), "0x" + secrets.token_hex(32))


def get_path(home: Path, challenge: Hash32, key: Address, what: str) -> Path:
    """Where it is kept; `what` is "answer", "vote-1" or "vote-2"."""
    return home / "panels" / f"{challenge}-{key}-{what}.json"


def save_sealed(path: Path, sealed: Sealed) -> None:
    """Write it, whole and on disk, before anything is sent.

    Raises:
        RequestError: `usage` if something else was sealed under this name before.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise RequestError(
            "usage", f"{path.name} is there already: what it holds may be on the chain"
        ) from None
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(sealed))
        file.flush()
        os.fsync(file.fileno())


def find_sealed(path: Path) -> Sealed | None:
    """What was kept, or None.

    Raises:
        RequestError: `configuration_invalid` if the file is not one of ours.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content[:FILE_BYTES_MAX], type=Sealed)
    except msgspec.DecodeError as error:
        raise RequestError("configuration_invalid", f"{path}: {error}") from None
