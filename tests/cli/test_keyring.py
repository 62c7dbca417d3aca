"""Passwords in the desktop's keyring: a backend of ours, registered through keyring's own API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from click.testing import CliRunner
from keyring.backend import KeyringBackend
from keyring.backends import fail
from keyring.errors import KeyringLocked, PasswordDeleteError

from hanse.cli.session import Session
from hanse.protocol.errors import RequestError
from tests.cli.conftest import PASSWORD

NO_PASSWORD = {"HANSE_PASSWORD": None, "HANSE_PASSWORD_FILE": None}


class MemoryKeyring(KeyringBackend):
    """A keyring that forgets everything with the test."""

    priority: Any = 1

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("the collection is locked")
        return self.held.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        raise PasswordDeleteError("nothing of ours is ever deleted")


@pytest.fixture
def desktop() -> Iterator[MemoryKeyring]:
    before, ours = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(ours)
    yield ours
    keyring.set_keyring(before)


def unlock(home: Path, name: str = "user") -> str:
    with CliRunner().isolation(env=NO_PASSWORD):
        return Session(home=home).unlock_key(name, use_keyring=True).address


def test_a_key_opens_by_the_password_that_the_keyring_keeps(run, home, desktop):
    made = run("keys", "create", "user", "--light", "--keyring", "--json")
    assert made.exit_code == 0, made.stderr
    address = made.document["address"]
    assert desktop.held == {("hanse", address): PASSWORD}
    assert PASSWORD not in made.stdout + made.stderr
    assert unlock(home) == address
    with CliRunner().isolation(env=NO_PASSWORD), pytest.raises(RequestError) as asked:
        Session(home=home).unlock_key("user")  # only with --keyring
    assert asked.value.code == "keystore_locked"


def test_two_homes_with_a_key_of_one_name_keep_two_passwords(run, home, tmp_path, desktop):
    run("keys", "create", "user", "--light", "--keyring")
    other = tmp_path / "other"
    again = run(
        *("keys", "create", "user", "--light", "--keyring", "--json"),
        HANSE_HOME=str(other),
        HANSE_PASSWORD="another password",
    )
    assert again.exit_code == 0, again.stderr
    assert unlock(home) != unlock(other) == again.document["address"]


def test_a_wrong_password_in_the_keyring_opens_nothing(run, home, desktop):
    address = run("keys", "create", "user", "--light", "--keyring", "--json").document["address"]
    desktop.held["hanse", address] = "mistyped"
    with pytest.raises(RequestError) as refused:
        unlock(home)
    assert refused.value.code == "keystore_locked"
    assert "mistyped" not in refused.value.message


def test_a_locked_keyring_says_so_and_is_no_defect(run, home, desktop):
    run("keys", "create", "user", "--light", "--keyring")
    desktop.is_locked = True
    with pytest.raises(RequestError, match="the keyring refused: KeyringLocked") as refused:
        unlock(home)
    assert refused.value.code == "keystore_locked"


def test_without_a_keyring_on_this_machine_no_key_is_made(run, home, desktop):
    keyring.set_keyring(fail.Keyring())
    ran = run("keys", "create", "user", "--light", "--keyring", "--json")
    assert ran.exit_code == 3, ran.stderr
    assert "the keyring refused: NoKeyringError" in ran.error["message"]
    assert not (home / "keys").exists()
