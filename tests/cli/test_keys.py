"""`hanse keys`: files nobody else can read, passwords from everywhere but the arguments."""

import json
import os
import stat
import subprocess
import sys

import pytest
from click.testing import CliRunner
from eth_account import Account

from hanse.cli.session import LOCAL_PASSWORD, Session
from hanse.protocol.errors import RequestError
from tests.cli.conftest import PASSWORD


def test_a_new_key_is_an_encrypted_file_of_the_owner_alone(run, home):
    ran = run("keys", "create", "user", "--light", "--json")

    assert ran.exit_code == 0, ran.stderr
    file = home / "keys" / "user.json"
    assert ran.document["path"] == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    secret = Account.decrypt(json.loads(file.read_text()), PASSWORD)
    assert Account.from_key(secret).address.lower() == ran.document["address"]


def test_keys_are_listed_without_a_password(run):
    created = {
        name: run("keys", "create", name, "--light", "--json").document["address"]
        for name in ("user", "provider")
    }

    ran = run("keys", "list", "--json", HANSE_PASSWORD="")
    assert ran.document == {
        "keys": [
            {"name": "provider", "address": created["provider"]},
            {"name": "user", "address": created["user"]},
        ]
    }
    assert created["user"] in run("keys", "list").stdout
    assert run("keys", "show-address", "user").stdout == created["user"] + "\n"


def test_a_key_is_never_replaced(run, home):
    run("keys", "create", "user", "--light")
    before = (home / "keys" / "user.json").read_bytes()

    ran = run("keys", "create", "user", "--light")
    assert ran.exit_code == 2
    assert "exists" in ran.stderr
    assert (home / "keys" / "user.json").read_bytes() == before


@pytest.mark.parametrize("name", ["../user", "a/b", "", ".hidden", "x" * 65, "-"])
def test_a_name_cannot_leave_the_folder(run, home, name):
    ran = run("keys", "create", "--light", "--", name)

    assert ran.exit_code == 2
    assert not list(home.glob("**/*.json"))


def test_a_password_is_needed_and_every_source_is_named(run):
    ran = run("keys", "create", "user", HANSE_PASSWORD="")

    assert ran.exit_code == 3
    assert "HANSE_PASSWORD_FILE" in ran.stderr


def test_a_password_file_works_if_others_cannot_read_it(run, tmp_path):
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o644)
    environment = {"HANSE_PASSWORD": "", "HANSE_PASSWORD_FILE": str(file)}

    refused = run("keys", "create", "user", "--light", "--json", **environment)
    assert refused.exit_code == 3
    assert refused.error["code"] == "keystore_permissions"

    file.chmod(0o600)
    assert run("keys", "create", "user", "--light", **environment).exit_code == 0


def test_an_unknown_key_says_how_to_make_it(run):
    ran = run("keys", "show-address", "nobody")

    assert ran.exit_code == 5
    assert "hanse keys create nobody" in ran.stderr


def test_an_unknown_key_says_which_there_are(run):
    run("keys", "create", "lubeck", "--light")
    run("keys", "create", "hamburg", "--light")
    assert "there are: hamburg, lubeck" in run("keys", "show-address", "provider").stderr


def test_a_local_network_says_where_its_password_is(run, home):
    run("keys", "create", "user", "--light")
    session = Session(home=home)
    wrong = {"HANSE_PASSWORD": "wrong"}
    with CliRunner().isolation(env=wrong), pytest.raises(RequestError) as plain:
        session.unlock_key("user")
    assert "HANSE_PASSWORD_FILE=" not in plain.value.message

    (home / LOCAL_PASSWORD).write_text(PASSWORD)
    with CliRunner().isolation(env=wrong), pytest.raises(RequestError) as local:
        session.unlock_key("user")
    assert local.value.code == "keystore_locked"
    assert f"HANSE_PASSWORD_FILE={home / LOCAL_PASSWORD}" in local.value.message


def test_no_password_is_ever_shown(run):
    for arguments in (("keys", "create", "user", "--light"), ("keys", "list")):
        ran = run(*arguments)
        assert PASSWORD not in ran.stdout + ran.stderr


def test_a_keyring_that_is_missing_is_named_before_a_key_is_made(home, tmp_path):
    """A process of its own, which finds this module where keyring would be."""
    (tmp_path / "keyring.py").write_text("raise ImportError('not installed')")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HANSE_")}
    arguments = ("keys", "create", "user", "--light", "--keyring", "--json", "--home", str(home))
    ran = subprocess.run(
        [sys.executable, "-m", "hanse.cli", *arguments],
        env={**kept, "PYTHONPATH": str(tmp_path), "HANSE_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2, ran.stderr
    assert "hanse[keyring]" in json.loads(ran.stderr)["error"]["message"]
    assert not (home / "keys").exists()
