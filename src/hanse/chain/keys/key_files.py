"""Key files: written once, whole or not at all, and opened only where others cannot read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hanse.chain.keys.key import Key, create_key
from hanse.chain.keys.keystore import Scrypt, decrypt_secret
from hanse.chain.keys.modes import make_private, verify_mode, write_new_file
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Address

KEYSTORE_BYTES_MAX = 16_384
"""A keystore file has about 500 bytes; more is the wrong file."""


def create_keystore(
    path: Path, password: str, *, key: Key | None = None, scrypt: Scrypt = Scrypt.STANDARD
) -> Key:
    """Write a key (a new one by default) to a new encrypted file and return it.

    The folder is made with mode 0700, the file with 0600; the file appears whole or not at all and
    never replaces another.

    Raises:
        RequestError: `usage` if the file exists; `keystore_permissions` if the folder is open to
            others; `keystore_locked` if the password is empty.
    """
    if not password:
        raise RequestError("keystore_locked", f"the password for {path} is empty; choose one")
    key = key or create_key()
    write_private_file(path, lambda: key.to_keystore(password, scrypt))
    return key


def write_private_file(path: Path, make_text: Callable[[], str]) -> None:
    """Write a new file, mode 0600 in a folder of at most 0700, whole or not at all.

    `make_text` is called once file and folder are known to be in order.

    Raises:
        RequestError: `usage` if the file exists; `keystore_permissions` if the folder is open.
    """
    make_private(path.parent)
    verify_mode(path.parent, 0o700)
    try:
        write_new_file(path, lambda: make_text().encode())
    except FileExistsError:
        raise RequestError("usage", f"{path} exists; a key file is never replaced") from None


def unlock_keystore(path: Path, password: str) -> Key:
    """Decrypt a key file.

    Raises:
        RequestError: `not_found` without the file; `keystore_permissions` if file or folder are
            open to others; `keystore_locked` for a wrong password or a file that is no keystore.
    """
    return Key(decrypt_secret(read_private_json(path), password, path))


def read_private_json(path: Path) -> Any:
    """The JSON of a key file whose modes are in order; raises as `unlock_keystore` does."""
    if not path.is_file():
        raise RequestError("not_found", f"there is no key file {path}; create it first")
    verify_mode(path.parent, 0o700)
    verify_mode(path, 0o600)
    if path.stat().st_size > KEYSTORE_BYTES_MAX:
        raise RequestError("keystore_locked", f"{path} is too large for a keystore file")
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError, RecursionError):
        raise RequestError("keystore_locked", f"{path} is not a keystore file") from None


def read_keystore_address(path: Path) -> Address:
    """The address that a key file claims, without a password; send no money on its word."""
    try:
        return "0x" + str(json.loads(path.read_text("utf-8"))["address"]).lower().removeprefix("0x")
    except (OSError, ValueError, KeyError, TypeError):
        raise RequestError("not_found", f"{path} is not a readable keystore file") from None
