"""Keystore version 3: 32 secret bytes under a password, as geth, ethers and eth-account write them.

    wrapped = encrypt_secret(secret, password, Scrypt.STANDARD)    # a dict for JSON
    secret = decrypt_secret(wrapped, password, path)

A key is derived from the password (scrypt, or PBKDF2 in files of other tools); its first half
encrypts (AES-128-CTR), its second half authenticates what was encrypted (keccak). It is written
here, since importing eth_keyfile takes 0.6 s of every command: it computes pairings of another
curve for version 4. Tests exchange files with eth_account, both ways.

Source: the Web3 Secret Storage definition, version 3; scrypt parameters as geth's standard and
    light presets.
"""

import hashlib
import hmac
import secrets
import uuid
from enum import IntEnum
from pathlib import Path
from typing import Any

from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import keccak

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
_IV_BYTES = 16
_SCRYPT_R = 8
_SCRYPT_P = 1


class Scrypt(IntEnum):
    """How hard a password is to guess: scrypt's N (memory is 1 kB times N)."""

    STANDARD = 1 << 18
    """About 1 s and 256 MB a guess: for keys that hold money."""

    LIGHT = 1 << 12
    """About 10 ms a guess: for tests and local development chains only."""


def encrypt_secret(secret: bytes, password: str, scrypt: Scrypt) -> dict[str, Any]:
    """The secret under a password, with a random salt and start of the key stream."""
    assert len(secret) == SECRET_BYTES
    salt, iv = secrets.token_bytes(16), secrets.token_bytes(_IV_BYTES)
    derived = _scrypt(password, salt, int(scrypt), _SCRYPT_R, _SCRYPT_P)
    ciphertext = _apply_stream(secret, derived, iv)
    return {
        "crypto": {
            "cipher": _CIPHER,
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": ciphertext.hex(),
            "kdf": "scrypt",
            "kdfparams": {
                "dklen": _DERIVED_BYTES,
                "n": int(scrypt),
                "r": _SCRYPT_R,
                "p": _SCRYPT_P,
                "salt": salt.hex(),
            },
            "mac": _get_mac(derived, ciphertext).hex(),
        },
        "id": str(uuid.uuid4()),
        "version": _VERSION,
    }


def decrypt_secret(wrapped: Any, password: str, path: Path) -> bytes:
    """The secret of a keystore's JSON; `path` is named where it does not open.

    Raises:
        RequestError: `keystore_locked` for a wrong password, or what is no version 3 keystore.
    """
    try:
        crypto, version = _lower(wrapped)["crypto"], _lower(wrapped)["version"]
        ciphertext, mac = _from_hex(crypto["ciphertext"]), _from_hex(crypto["mac"])
        iv = _from_hex(crypto["cipherparams"]["iv"]).rjust(_IV_BYTES, b"\0")  # some cut its zeros
        if (version, crypto["cipher"]) != (_VERSION, _CIPHER):
            raise ValueError("another version or cipher")
        if len(ciphertext) != SECRET_BYTES or len(iv) != _IV_BYTES:
            raise ValueError("another length")
        derived = _derive(password, crypto["kdf"], crypto["kdfparams"], path)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise RequestError("keystore_locked", f"{path} is not a version 3 keystore") from None
    if not hmac.compare_digest(_get_mac(derived, ciphertext), mac):
        raise RequestError("keystore_locked", f"the password does not open {path}")
    return _apply_stream(ciphertext, derived, iv)


def _derive(password: str, function: str, parameters: dict[str, Any], path: Path) -> bytes:
    """The key that a file's own parameters make of a password; ValueError if they are none."""
    salt = _from_hex(parameters["salt"])
    if parameters["dklen"] != _DERIVED_BYTES:
        raise ValueError("another length")
    if function == "scrypt":
        n, r, p = (int(parameters[name]) for name in ("n", "r", "p"))
        _verify_work(n, r, p)
        if n >= 1 << 16 * r:  # RFC 7914, section 2; pyethereum wrote such files until 2017
            raise RequestError(
                "keystore_locked",
                f"{path} has n={n} with r={r}, which RFC 7914 forbids: write it anew with geth",
            )
        return _scrypt(password, salt, n, r, p)
    if (function, parameters["prf"]) != ("pbkdf2", "hmac-sha256"):
        raise ValueError("another function")
    rounds = int(parameters["c"])
    if not 0 < rounds <= PBKDF2_ROUNDS_MAX:
        raise ValueError("too much work")
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds, _DERIVED_BYTES)


def _verify_work(n: int, r: int, p: int) -> None:
    if min(n, r, p) < 1 or 128 * n * r > SCRYPT_MEMORY_BYTES_MAX or p > SCRYPT_PARALLEL_MAX:
        raise ValueError("too much work")


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    room_bytes = 128 * r * (n + p + 4) + 65_536  # with what scrypt needs beside it
    return hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, maxmem=room_bytes, dklen=_DERIVED_BYTES
    )


def _apply_stream(data: bytes, derived: bytes, iv: bytes) -> bytes:
    """AES-128-CTR, which is its own inverse."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # here: 0.05 s

    stream = Cipher(algorithms.AES(derived[:16]), modes.CTR(iv)).encryptor()
    return stream.update(data) + stream.finalize()


def _get_mac(derived: bytes, ciphertext: bytes) -> bytes:
    return keccak(derived[16:32] + ciphertext)


def _from_hex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _lower(value: Any) -> Any:
    """Old geth wrote `Crypto`."""
    if not isinstance(value, dict):
        return value
    return {str(name).lower(): _lower(inner) for name, inner in value.items()}
