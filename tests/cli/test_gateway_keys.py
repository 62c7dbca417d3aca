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


def test_a_key_is_made_with_its_reach_and_limits_and_changed(run):
    made = run(
        *("gateway", "keys", "create", "shop", "--json", "--model", "small", "--may-mint"),
        *("--path", "/v1/models/*", "--origin", "https://shop.example", "--days", "30"),
        *("--limit", "requests/minute=60", "--user-limit", "tokens/day=900"),
        *("--at-limit", "queue", "--queue-s", "5"),
    ).document
    assert made["expires_at"] - made["created_at"] == 30 * 86_400
    assert (made["models"], made["paths"]) == (["small"], ["/v1/models/*"])
    assert (made["origins"], made["may_mint"]) == (["https://shop.example"], True)
    assert made["limits"] == {"requests_per_minute": 60}
    assert made["user_limits"] == {"tokens_per_day": 900}

    changed = run(
        *("gateway", "keys", "change", made["id"], "--json", "--limit", "requests/minute=none"),
        *("--limit", "tokens/minute=7", "--at-limit", "refuse"),
    ).document
    assert changed["limits"] == {"tokens_per_minute": 7}
    assert changed["user_limits"] == made["user_limits"]
    assert changed["models"] == made["models"]
    assert "at_limit" not in changed


def test_a_list_shows_what_end_users_may_take_and_what_happens_then(run):
    made = ("gateway", "keys", "create", "game", "--user-limit", "requests/day=9")
    warned = run(*made, "--at-limit", "degrade", "--ladder", "npc")
    assert "There is no ladder npc" in warned.stderr
    shown = " ".join(run("gateway", "keys", "list").stdout.split())
    assert "each end user 9 requests a day; then degrade by npc" in shown

    run("gateway", "ladders", "set", "npc", "local")
    assert "ladder" not in run(*made, "--at-limit", "degrade", "--ladder", "npc").stderr
    assert "no ladder named" in run(*made, "--at-limit", "degrade").stderr


@pytest.mark.parametrize(
    "limit", ["x", "requests=5", "requests/hour=5", "tokens/day=-1", "tokens/day=1.5", "/=", "a/b="]
)
def test_a_limit_that_is_none_is_refused_by_name(run, limit):
    ran = run("gateway", "keys", "create", "shop", "--json", "--limit", limit)
    assert (ran.exit_code, ran.error["code"]) == (2, "usage")


def test_money_needs_the_network_that_says_its_unit(run):
    ran = run("gateway", "keys", "create", "shop", "--json", "--limit", "money/day=1")
    assert ran.error["code"] == "configuration_invalid"
    assert "network.json" in ran.error["message"]


def test_the_gateways_own_limits_are_set_one_by_one_and_lifted(run):
    set_both = ("--limit", "requests/minute=5", "--limit", "tokens/day=9")
    assert run("gateway", "limits", *set_both, "--json").exit_code == 0
    run("gateway", "limits", "--limit", "tokens/day=none")
    shown = run("gateway", "limits", "--json").document
    assert shown == {"limits": {"requests_per_minute": 5}}


def test_a_ladder_is_set_shown_and_removed(run):
    steps = ("model=small", "local", "canned=The innkeeper nods.")
    shown = run("gateway", "ladders", "set", "npc", *steps, "--json").document
    expected = [{"model": "small"}, {"local": True}, {"canned": "The innkeeper nods."}]
    assert shown == {"ladders": {"npc": expected}}
    assert "innkeeper" in run("gateway", "ladders", "list").stdout
    run("gateway", "ladders", "set", "npc")
    assert run("gateway", "ladders", "list", "--json").document == {"ladders": {}}


@pytest.mark.parametrize("step", ["small", "model=", "local=x", "canned", "model=" + "x" * 129])
def test_a_step_that_is_none_is_refused(run, step):
    ran = run("gateway", "ladders", "set", "npc", step, "--json")
    assert (ran.exit_code, ran.error["code"]) == (2, "usage")
