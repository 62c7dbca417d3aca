"""`hanse gateway keys`: shown once, listed without their text, revoked for good."""

import stat

import pytest


@pytest.fixture
def created(run):
    ran = run("gateway", "keys", "create", "notebook", "--json")
    assert ran.exit_code == 0, ran.stderr
    return ran.document


def test_a_key_is_shown_once_and_never_stored(run, home, created):
    assert created["api_key"].startswith("hgw_")
    assert created["name"] == "notebook"

    listed = run("gateway", "keys", "list", "--json")
    assert [key["id"] for key in listed.document["keys"]] == [created["id"]]
    assert created["api_key"] not in listed.stdout
    for file in home.iterdir():
        assert created["api_key"].encode() not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0


def test_a_revoked_key_says_since_when(run, created):
    ran = run("gateway", "keys", "revoke", created["id"], "--json")
    assert ran.document["revoked_at"] >= created["created_at"]

    assert "revoked" in run("gateway", "keys", "list").stdout
    again = run("gateway", "keys", "revoke", created["id"], "--json")
    assert again.document["revoked_at"] == ran.document["revoked_at"]


def test_an_unknown_key_is_not_found(run):
    ran = run("gateway", "keys", "revoke", "ffffffffffff", "--json")

    assert ran.exit_code == 5
    assert ran.error["code"] == "not_found"


@pytest.mark.parametrize("name", ["", "x" * 65, "a\x1b[0m"])
def test_a_name_must_be_printable(run, name):
    assert run("gateway", "keys", "create", "--", name).exit_code == 2
