"""One secret key in memory: it signs, and never shows itself."""

import json
import secrets
from typing import NoReturn

from coincurve import PrivateKey

from hanse.chain.keys.keystore import Scrypt, encrypt_secret
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import (
    CURVE_ORDER,
    Address,
    Signature,
    get_address,
    sign_digest,
)


class Key:
    """One secp256k1 key. Its repr holds the address only; it cannot be pickled or copied."""

    __slots__ = ("_address", "_secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < CURVE_ORDER:
            raise RequestError(
                "usage", "a secret key is 32 bytes, above 0 and below the curve's order"
            )
        self._secret = PrivateKey(secret)
        self._address = get_address(self._secret.public_key)

    @property
    def address(self) -> Address:
        """The address that signatures recover to, lower case."""
        return self._address

    def sign_digest(self, digest: bytes) -> Signature:
        """Sign exactly these 32 bytes, without any prefix; 65 bytes as hex, low s, v 27 or 28."""
        return sign_digest(self._secret, digest)

    def to_keystore(self, password: str, scrypt: Scrypt = Scrypt.STANDARD) -> str:
        """This key encrypted, as keystore version 3 JSON."""
        wrapped = encrypt_secret(self._secret.secret, password, scrypt)
        return json.dumps({"address": self._address.removeprefix("0x"), **wrapped})

    def __repr__(self) -> str:
        return f"Key({self._address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Key is not pickled or copied: its secret would leave this process")


def create_key() -> Key:
    """A new random key from the system's entropy."""
    while True:
        candidate = secrets.token_bytes(32)
        if 0 < int.from_bytes(candidate, "big") < CURVE_ORDER:
            return Key(candidate)
