"""X25519 encryption keys: what traces are sealed to. Public in the offer, private in a file.

    public = create_encryption_key(path, password)       # a new one, written once, mode 0600
    public = find_public_key(path)                        # without the password; None if no file
    private = unlock_encryption_key(path, password)

The file is keystore version 3 (scrypt, AES-128-CTR, a MAC) around the private key's 32 bytes, with
`public_key` in place of the address; it stands beside the other keys as NAME.x25519. Writing traces
takes the public half only, so no server process ever unlocks it: the commands that read traces do.

Whoever deletes the file makes every trace that was sealed to it unreadable, all at once.

Source: the Web3 Secret Storage definition, version 3; RFC 7748.
"""

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hanse.chain.keys import (
    Scrypt,
    decrypt_secret,
    encrypt_secret,
    read_private_json,
    write_private_file,
)
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.signatures import Hash32, parse_hash32
from hanse.settlement.traces.sealing import get_public_key

SUFFIX = ".x25519"


def create_encryption_key(path: Path, password: str, *, scrypt: Scrypt = Scrypt.STANDARD) -> Hash32:
    """Write a new key to a new encrypted file; returns the public half.

    Raises:
        RequestError: `usage` if the file exists; `keystore_permissions` if the folder is open to
            others; `keystore_locked` if the password is empty.
    """
    if not password:
        raise RequestError("keystore_locked", f"the password for {path} is empty; choose one")
    private = X25519PrivateKey.generate()

    def make_text() -> str:
        wrapped = encrypt_secret(private.private_bytes_raw(), password, scrypt)
        return json.dumps({"kind": "x25519", "public_key": get_public_key(private), **wrapped})

    write_private_file(path, make_text)
    return get_public_key(private)


def find_public_key(path: Path) -> Hash32 | None:
    """The public half that a key file claims, without its password; None if there is no file.

    Raises:
        RequestError: `keystore_permissions` or `keystore_locked` if the file is not in order.
    """
    return _get_public_key(path, read_private_json(path)) if path.is_file() else None


def unlock_encryption_key(path: Path, password: str) -> X25519PrivateKey:
    """Decrypt a key file.

    Raises:
        RequestError: `not_found` without the file; `keystore_permissions` if file or folder are
            open to others; `keystore_locked` for a wrong password or a file that is none.
    """
    raw = read_private_json(path)
    claimed = _get_public_key(path, raw)
    private = X25519PrivateKey.from_private_bytes(decrypt_secret(raw, password, path))
    if get_public_key(private) != claimed:
        raise RequestError(
            "keystore_locked",
            f"{path} claims the public key {claimed}, but holds {get_public_key(private)}: "
            "somebody changed it",
        )
    return private


def _get_public_key(path: Path, raw: Any) -> Hash32:
    try:
        return parse_hash32(raw["public_key"], "public_key")
    except (HanseError, KeyError, TypeError):
        raise RequestError("keystore_locked", f"{path} is not an encryption key's file") from None
