"""What one invocation of a command works with: the home folder, its keys, its network.

    HOME/network.json        which chain, which contracts (written by `hanse up`, or by hand)
    HOME/keys/NAME.json      encrypted keystores, mode 0600 in a folder of mode 0700
    HOME/*.db                books: user.db, provider.db, gateway.db

The home folder is `--home`, else HANSE_HOME, else ./.hanse. With `--database`, else HANSE_DATABASE,
the books are in PostgreSQL instead, each in a schema with the file's name.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.cli.output import Output
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.chain.keys import Key

HOME_VARIABLE = "HANSE_HOME"
HOME_DEFAULT = ".hanse"

KEY_DEFAULT = "user"
"""Whom commands act for unless told otherwise, so that advice need not name it."""

DATABASE_VARIABLE = "HANSE_DATABASE"
"""Where a URL with a password belongs: everyone on a machine sees the arguments of processes."""

LOCAL_PASSWORD = "password"  # noqa: S105 - a file's name, not a password
"""File in the home folder with the password of a local network's keys; `hanse up` writes it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _get_default_home() -> Path:
    return Path(os.environ.get(HOME_VARIABLE) or HOME_DEFAULT)


def _get_database() -> str:
    return os.environ.get(DATABASE_VARIABLE, "")


@dataclass
class Session:
    """One invocation.

    Attributes:
        home: the home folder; it need not exist yet.
        output: where the result goes.
        database: URL of the store for all books of this home, each in a schema of its own; empty
            for files in the home folder. It may hold a password.
        key: name of the key that the command acts for, where it has such an option.
        signer: who signs its vouchers, if that was said.
    """

    home: Path = field(default_factory=_get_default_home)
    output: Output = field(default_factory=Output)
    database: str = field(default_factory=_get_database, repr=False)
    key: str = KEY_DEFAULT
    signer: str | None = None

    @property
    def keys_folder(self) -> Path:
        """Where the keystores are."""
        return self.home / "keys"

    def get_key_path(self, name: str) -> Path:
        """The keystore file of a name.

        Raises:
            RequestError: `usage` if the name could not be one file's.
        """
        if not _NAME.fullmatch(name):
            raise RequestError(
                "usage",
                f"{name[:80]!r} is not a key's name: "
                "use letters, digits, '.', '_' and '-', at most 64",
            )
        return self.keys_folder / f"{name}.json"

    def get_database_path(self, name: str) -> str:
        """Where one side's books are; the home folder is made, open to its owner only."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.get_store(name) or str(self.home / f"{name}.db")

    def get_store(self, name: str) -> str:
        """The books of this name in the database that was chosen; "" for a file of their own."""
        from hanse.store.opening import with_schema

        return with_schema(self.database, name) if self.database else ""

    def get_provider_folder(self, name: str) -> Path:
        """Where a provider's books are; not made here.

        Raises:
            RequestError: `usage` if the name could not be one folder's.
        """
        if name in ("keys", "cache", "logs"):
            raise RequestError("usage", f"a provider cannot be named {name!r}: that is a folder")
        return self.get_key_path(name).parent.parent / name

    def unlock_key(self, name: str, *, use_keyring: bool = False) -> "Key":
        """Decrypt one of this home's keys.

        Raises:
            RequestError: `not_found`, `keystore_locked` or `keystore_permissions`.
        """
        from hanse.chain.keys import get_password, unlock_keystore

        path = self._get_existing(name)
        try:
            address = self.get_key_address(name)
            password = get_password(name, use_keyring=use_keyring, address=address)
            return unlock_keystore(path, password)
        except RequestError as error:
            local = self.home / LOCAL_PASSWORD
            if error.code != "keystore_locked" or not local.is_file():
                raise
            raise RequestError(
                error.code,
                f"{error.message}; this local network's is in a file: HANSE_PASSWORD_FILE={local}",
            ) from None

    def get_key_address(self, name: str) -> str:
        """The address of one of this home's keys, without its password."""
        from hanse.chain.keys import read_keystore_address

        path = self._get_existing(name)
        return read_keystore_address(path)

    def list_addresses(self) -> set[str]:
        """The addresses of all keys of this home, without their passwords."""
        return {self.get_key_address(path.stem) for path in self.keys_folder.glob("*.json")}

    def _get_existing(self, name: str) -> Path:
        path = self.get_key_path(name)
        if not path.is_file():
            raise RequestError(
                "not_found",
                f"there is no key {name!r} in {self.keys_folder} "
                f"(there are: {self._list_names()}); make it with: hanse keys create {name}",
            )
        return path

    def _list_names(self) -> str:
        return ", ".join(sorted(path.stem for path in self.keys_folder.glob("*.json"))) or "none"
