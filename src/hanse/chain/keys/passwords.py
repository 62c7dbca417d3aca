"""Where a key's password comes from: the environment, a file, the desktop's keyring, or a prompt.

Never from arguments, where `ps` and shell histories would show it.
"""

import contextlib
import getpass
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hanse.chain.keys.modes import verify_mode
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Address

PASSWORD_VARIABLE = "HANSE_PASSWORD"  # noqa: S105 (the name of a variable, not a password)
PASSWORD_FILE_VARIABLE = "HANSE_PASSWORD_FILE"  # noqa: S105
KEYRING_SERVICE = "hanse"

PASSWORD_CHARS_MAX = 1_024
"""A longer password file is the wrong file."""


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
        verify_mode(path, 0o600)
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
