"""Sealed votes and answers of this home: without its salt a vote cannot be revealed.

A file for each, HOME/panels/CHALLENGE-KEY-WHAT.json, readable by its owner only, whole and flushed
before the transaction is sent. The answer's says whether a challenge was planted: it stays secret
until the challenge is closed.

An empty file counts as none: whoever began it died before anything was sent. Were it what damage
left of a vote that was sent, its salt would be lost all the same, and the contract takes no second.
"""

import secrets
from pathlib import Path

import msgspec

from hanse.chain.keys import write_new_file
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.protocol.signatures import Address, Hash32
from hanse.store.folder_lock import hold_folder

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
    _remove_empty(path)
    try:
        write_new_file(path, lambda: msgspec.json.encode(sealed))
    except FileExistsError:
        raise RequestError(
            "usage", f"{path.name} is there already: what it holds may be on the chain"
        ) from None


def find_sealed(path: Path) -> Sealed | None:
    """What was kept, or None.

    Raises:
        RequestError: `configuration_invalid` if the file is not one of ours.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if not content:
        return None
    try:
        return msgspec.json.decode(content[:FILE_BYTES_MAX], type=Sealed)
    except msgspec.DecodeError as error:
        raise RequestError(
            "configuration_invalid",
            f"{path} holds nothing that was sealed ({error}): put back a copy of it, or remove it"
            " if nothing was sent",
        ) from None


def _remove_empty(path: Path) -> None:
    """Under a lock: between a look and the removal another may have written it whole."""
    if _is_empty(path):
        with hold_folder(path.parent, "sealing"):
            if _is_empty(path):
                path.unlink()


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return False
