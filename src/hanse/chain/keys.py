"""Secret keys: encrypted files, strict permissions, and a `Key` that never shows itself.

    create_keystore(folder / "user.json", password)            # a new key, written once, mode 0600
    key = unlock_keystore(folder / "user.json", find_password())
    key.address, key.sign_digest(digest)

Files are keystore version 3 (the format of geth, ethers and eth-account), so that a key can move to
other tools. A folder or file that others may read is refused: the message says the chmod. Passwords
come from the environment, the desktop's keyring or a prompt, never from arguments, where `ps` and
shell histories would show them.

Source: the Web3 Secret Storage definition, version 3; scrypt parameters as geth's standard and
    light presets.
"""

import contextlib
import getpass
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

from coincurve import PrivateKey

from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import (
    CURVE_ORDER,
    Address,
    Signature,
    get_address,
    sign_digest,
)

PASSWORD_VARIABLE = "HANSE_PASSWORD"  # noqa: S105 (the name of a variable, not a password)
PASSWORD_FILE_VARIABLE = "HANSE_PASSWORD_FILE"  # noqa: S105
KEYRING_SERVICE = "hanse"

PASSWORD_CHARS_MAX = 1_024
"""A longer password file is the wrong file."""

KEYSTORE_BYTES_MAX = 16_384
"""A keystore file has about 500 bytes; more is the wrong file."""


class Scrypt(IntEnum):
    """How hard a password is to guess: scrypt's N (memory is 1 kB times N)."""

    STANDARD = 1 << 18
    """About 1 s and 256 MB a guess: for keys that hold money."""

    LIGHT = 1 << 12
    """About 10 ms a guess: for tests and local development chains only."""


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
        from eth_keyfile.keyfile import create_keyfile_json  # here, since importing it takes 0.4 s

        raw = create_keyfile_json(
            self._secret.secret, password.encode(), kdf="scrypt", iterations=int(scrypt)
        )
        return json.dumps(raw)

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
    _make_private(path.parent)
    _verify_mode(path.parent, 0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(make_text())
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, refuses to replace a key that is already there
    except FileExistsError:
        raise RequestError("usage", f"{path} exists; a key file is never replaced") from None
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def unlock_keystore(path: Path, password: str) -> Key:
    """Decrypt a key file.

    Raises:
        RequestError: `not_found` without the file; `keystore_permissions` if file or folder are
            open to others; `keystore_locked` for a wrong password or a file that is no keystore.
    """
    raw = read_private_json(path)
    from eth_keyfile.keyfile import decode_keyfile_json  # here, since importing it takes 0.4 s

    try:
        return Key(bytes(decode_keyfile_json(raw, password.encode())))
    except (KeyError, NotImplementedError, TypeError, AttributeError):
        raise RequestError("keystore_locked", f"{path} is not a version 3 keystore") from None
    except ValueError:
        raise RequestError("keystore_locked", f"the password does not open {path}") from None


def read_private_json(path: Path) -> Any:
    """The JSON of a key file whose modes are in order; raises as `unlock_keystore` does."""
    if not path.is_file():
        raise RequestError("not_found", f"there is no key file {path}; create it first")
    _verify_mode(path.parent, 0o700)
    _verify_mode(path, 0o600)
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


def get_password(
    account: str,
    *,
    environment: Mapping[str, str] | None = None,
    use_keyring: bool = False,
    address: Address = "",
    prompt: Callable[[str], str] = getpass.getpass,
    is_interactive: bool | None = None,
) -> str:
    """The password for `account`, from the environment, the keyring or a prompt.

    HANSE_PASSWORD comes first, then the file that HANSE_PASSWORD_FILE names.

    Args:
        account: the key's name, for people.
        environment: instead of this process's.
        use_keyring: ask the keyring, too.
        address: the key's, under which the keyring keeps it: a name may be in two homes.
        prompt: asks a person.
        is_interactive: whether there is one.

    Raises:
        RequestError: `keystore_locked` if none of them has one; the message names them all.
    """
    environment = os.environ if environment is None else environment
    if password := environment.get(PASSWORD_VARIABLE):
        return password
    if file := environment.get(PASSWORD_FILE_VARIABLE):
        return _read_password_file(Path(file))
    if use_keyring and (password := _find_in_keyring(address)):
        return password
    if is_interactive is None:
        is_interactive = sys.stdin.isatty()
    if is_interactive and (password := prompt(f"Password for {account}: ")):
        return password
    raise RequestError(
        "keystore_locked",
        f"no password for {account}: set {PASSWORD_VARIABLE} or {PASSWORD_FILE_VARIABLE}, store it"
        " in the keyring, or run at a terminal to be asked",
    )


def verify_keyring() -> None:
    """Find out whether there is a keyring before anything depends on it.

    Raises:
        RequestError: `configuration_invalid` if it is not installed, `keystore_locked` if it
            refuses, or this machine has none.
    """
    _find_in_keyring("")


def store_in_keyring(address: Address, password: str) -> None:
    """Keep a key's password in the desktop's secret store, for `get_password(use_keyring=True)`."""
    with _keyring_errors():
        _keyring().set_password(KEYRING_SERVICE, address, password)


def _find_in_keyring(address: Address) -> str | None:
    with _keyring_errors():
        found = _keyring().get_password(KEYRING_SERVICE, address)
    return None if found is None else str(found)


@contextlib.contextmanager
def _keyring_errors() -> Iterator[None]:
    """A keyring that is locked, or none at all, is nothing that we did wrong."""
    errors = _keyring().errors
    try:
        yield
    except errors.KeyringError as error:
        raise RequestError(
            "keystore_locked",
            f"the keyring refused: {type(error).__name__}; unlock it, or leave --keyring out and"
            f" set {PASSWORD_VARIABLE} or {PASSWORD_FILE_VARIABLE}",
        ) from None


def _keyring() -> Any:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise RequestError(
            "configuration_invalid",
            "the keyring is asked for but not installed: pip install 'hanse[keyring]'",
        ) from None
    return keyring


def _read_password_file(path: Path) -> str:
    try:
        _verify_mode(path, 0o600)
        text = path.read_text("utf-8")
    except OSError as error:
        raise RequestError(
            "keystore_locked", f"{PASSWORD_FILE_VARIABLE} names {path}: {error.strerror}"
        ) from None
    password = text.rstrip("\r\n")
    if not 0 < len(password) <= PASSWORD_CHARS_MAX:
        raise RequestError(
            "keystore_locked", f"{path} must hold 1 .. {PASSWORD_CHARS_MAX} characters"
        )
    return password


def _make_private(folder: Path) -> None:
    """Make a folder and those above it that are missing, all with mode 0700.

    `mkdir(parents=True)` gives its mode to the last one only: whoever may write to one above could
    put another folder in its place.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True, mode=0o700)


def _verify_mode(path: Path, allowed: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~allowed:
        raise RequestError(
            "keystore_permissions",
            f"{path} has mode {mode:04o}, allowed is at most {allowed:04o}: run"
            f" chmod {allowed:o} {path}",
        )


def _sync_folder(folder: Path) -> None:
    # The directory entry must be durable too; not every file system can sync a folder.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
