"""Keystore version 3: 32 secret bytes under a password, as geth, ethers and eth-account write them.

    wrapped = encrypt_secret(secret, password, Scrypt.STANDARD)    # a dict for JSON
    secret = decrypt_secret(wrapped, password, path)

eth_keyfile derives, encrypts and authenticates; here stands what it leaves open: what may be in a
file, and how much work a foreign file may ask for. It is imported where it is used, since that
takes 0.6 s (it brings the pairings of another curve, for version 4).

Source: the Web3 Secret Storage definition, version 3; scrypt parameters as geth's standard and
    light presets.
"""

from enum import IntEnum
from pathlib import Path
from typing import Any

from hanse.protocol.errors import RequestError

SECRET_BYTES = 32

SCRYPT_MEMORY_BYTES_MAX = 1 << 30
"""A foreign file may ask for four times geth's standard, and no more: opening it takes as much."""

SCRYPT_PARALLEL_MAX = 16
"""Each is a whole round of work; geth and ethers write 1, some light presets 6."""

PBKDF2_ROUNDS_MAX = 10_000_000
"""Some 5 s; other tools write 10,000 to 1,000,000."""

_VERSION = 3
_CIPHER = "aes-128-ctr"
_DERIVED_BYTES = 32
_IV_BYTES_MAX = 16


class Scrypt(IntEnum):
    """How hard a password is to guess: scrypt's N (memory is 1 kB times N)."""

    STANDARD = 1 << 18
    """About 1 s and 256 MB a guess: for keys that hold money."""

    LIGHT = 1 << 12
    """About 10 ms a guess: for tests and local development chains only."""


def encrypt_secret(secret: bytes, password: str, scrypt: Scrypt) -> dict[str, Any]:
    """The secret under a password, with a random salt and start of the key stream."""
    from eth_keyfile.keyfile import create_keyfile_json

    assert len(secret) == SECRET_BYTES
    wrapped: dict[str, Any] = create_keyfile_json(
        secret, password.encode(), kdf="scrypt", iterations=int(scrypt)
    )
    del wrapped["address"]  # of a secp256k1 key, which the secret need not be
    return wrapped


def decrypt_secret(wrapped: Any, password: str, path: Path) -> bytes:
    """The secret of a keystore's JSON; `path` is named where it does not open.

    Raises:
        RequestError: `keystore_locked` for a wrong password, or what is no version 3 keystore.
    """
    try:
        normal = _lower(wrapped)
        _verify_file(normal, path)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise RequestError("keystore_locked", f"{path} is not a version 3 keystore") from None
    from eth_keyfile.keyfile import decode_keyfile_json

    try:
        return bytes(decode_keyfile_json(normal, password.encode()))
    except ValueError:
        raise RequestError("keystore_locked", f"the password does not open {path}") from None


def _verify_file(wrapped: dict[str, Any], path: Path) -> None:
    """Raise ValueError, or what a missing field raises, for a file that is no such keystore."""
    crypto = wrapped["crypto"]
    if (wrapped["version"], crypto["cipher"]) != (_VERSION, _CIPHER):
        raise ValueError("another version or cipher")
    iv, mac = _from_hex(crypto["cipherparams"]["iv"]), _from_hex(crypto["mac"])
    if len(_from_hex(crypto["ciphertext"])) != SECRET_BYTES or len(mac) != _DERIVED_BYTES:
        raise ValueError("another length")
    if not 0 < len(iv) <= _IV_BYTES_MAX:  # some tools cut its zeros
        raise ValueError("another length")
    _verify_work(crypto["kdf"], crypto["kdfparams"], path)


def _verify_work(function: str, parameters: dict[str, Any], path: Path) -> None:
    """Refuse what would take more memory or time than any tool writes."""
    _from_hex(parameters["salt"])
    if parameters["dklen"] != _DERIVED_BYTES:
        raise ValueError("another length")
    if function == "scrypt":
        n, r, p = (int(parameters[name]) for name in ("n", "r", "p"))
        if min(n, r, p) < 1 or 128 * n * r > SCRYPT_MEMORY_BYTES_MAX or p > SCRYPT_PARALLEL_MAX:
            raise ValueError("too much work")
        if n & (n - 1) or n < 2:
            raise ValueError("no power of two")
        if n >= 1 << 16 * r:  # RFC 7914, section 2; pyethereum wrote such files until 2017
            raise RequestError(
                "keystore_locked",
                f"{path} has n={n} with r={r}, which RFC 7914 forbids: write it anew with geth",
            )
        return
    if (function, parameters["prf"]) != ("pbkdf2", "hmac-sha256"):
        raise ValueError("another function")
    if not 0 < int(parameters["c"]) <= PBKDF2_ROUNDS_MAX:
        raise ValueError("too much work")


def _from_hex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _lower(value: Any) -> Any:
    """Old geth wrote `Crypto`."""
    if not isinstance(value, dict):
        return value
    return {str(name).lower(): _lower(inner) for name, inner in value.items()}
