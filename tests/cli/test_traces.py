"""`hanse traces`, end to end on a real chain: gateway and provider keep traces, both sides read."""

import asyncio
import json
import signal
import urllib.request
from pathlib import Path

import pytest

from hanse.chain.keys import Scrypt
from hanse.cli.session import Session
from hanse.cli.tracing.encryption import keep_traces_of_user, open_encryption_key
from hanse.protocol.errors import RequestError
from hanse.settlement.traces.encryption_key import (
    create_encryption_key,
    find_public_key,
    unlock_encryption_key,
)
from hanse.settlement.traces.sealing import get_public_key
from hanse.store import open_sqlite
from tests.cli.local_market import PASSWORD, wait_until
from tests.settlement.trace_parts import read_all

MODEL = "echo-1"
PROMPT = "cobalt lantern orchard"


@pytest.mark.slow
def test_from_a_request_to_a_forgotten_trace(market, run, tmp_path):
    provider = market.add_key("provider", units=200)
    market.add_key("provider-receipt")
    market.add_key("user", units=50)
    ours, theirs = market.home / "user-traces", tmp_path / "provider-traces"
    broker, _ = market.start(
        *("provider", "start", "--engine", "echo", "--model", MODEL, "--port", "0"),
        *("--output-price", "2000", "--register", "--settle-every", "0"),
        *("--traces", str(theirs)),
    )
    assert run("account", "open", "--deposit", "20", f"{provider}=15", "--json").exit_code == 0
    key = run("gateway", "keys", "create", "test", "--json").document["api_key"]
    gateway, document = market.start("gateway", "start", "--port", "0", "--traces", str(ours))
    ask(document["base_url"], key)
    both = ((), ("--provider", "provider"))
    for side in both:
        wait_until(lambda side=side: list_states(run, side) == ["stored"], "a trace")
    for process in (gateway, broker):
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    for side in both:
        (note,) = run("traces", "list", *side, "--json").document["traces"]
        assert note["trace_hash"] in run("traces", "list", *side).stdout
        for name in (note["request_id"], note["trace_hash"]):
            checked = run("traces", "check", name, *side, "--json")
            assert checked.exit_code == 0, checked.stderr
            assert checked.document["receipt_key_known"] is True
        shown = run("traces", "decrypt", note["request_id"], *side, "--json").document
        assert PROMPT in shown["body"]
        assert json.loads(shown["response"])["choices"]
        assert PROMPT in run("traces", "decrypt", note["request_id"], *side).stdout
        fetched = tmp_path / f"{note['trace_hash']}.bin"
        done = run("traces", "fetch", note["trace_hash"], *side, "--output", str(fetched), "--json")
        assert done.document["sealed_to"] == ["provider", "user"]
        assert PROMPT.encode() not in fetched.read_bytes()
        again = run("traces", "fetch", note["trace_hash"], *side, "--output", str(fetched))
        assert again.exit_code == 2

    (note,) = run("traces", "list", "--provider", "provider", "--json").document["traces"]
    exported = tmp_path / "trace.json"
    exported.write_text(
        run("traces", "export", note["trace_hash"], "--provider", "provider").stdout
    )
    shown = run("traces", "decrypt", "--file", str(exported), "--json")
    assert PROMPT in shown.document["body"], "the user opens what the provider exported"
    wrong = run("traces", "decrypt", "--file", str(exported), HANSE_PASSWORD="wrong")
    assert wrong.exit_code == 3

    assert run("traces", "forget", note["trace_hash"], "--provider", "provider").exit_code == 0
    assert list_states(run, ("--provider", "provider")) == ["forgotten"]
    assert read_all(theirs) == b""
    gone = run("traces", "decrypt", note["trace_hash"], "--provider", "provider")
    assert gone.exit_code == 5
    assert "is forgotten: " in gone.stderr
    assert run("traces", "check", "--file", str(exported), "--json").exit_code == 0
    forgotten = run("traces", "forget", "--before", "2100-01-01")
    assert forgotten.exit_code == 2
    assert list_states(run, ()) == ["stored"]
    assert PROMPT.encode() not in read_all(market.home)


def ask(base_url: str, key: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 9}
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def list_states(run, side: tuple[str, ...]) -> list[str]:
    found = run("traces", "list", *side, "--json")
    assert found.exit_code == 0, found.stderr
    return [trace["state"] for trace in found.document["traces"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ("decrypt",),
        ("check",),
        ("forget",),
        ("forget", "0x" + "12" * 32, "--before", "2020-01-01"),
        ("forget", "--before", "yesterday"),
        ("decrypt", "../../etc/passwd"),
        ("fetch", "0x12"),
    ],
)
def test_what_makes_no_sense_is_refused(market, run, arguments):
    assert run("traces", *arguments).exit_code == 2


def test_a_trace_that_is_not_there_is_not_found(market, run):
    asyncio.run(make_books(market.home / "user.db"))
    if not (market.home / "keys" / "user.json").exists():
        market.add_key("user")
    assert run("traces", "fetch", "0x" + "12" * 32).exit_code == 5
    assert run("traces", "list", "--provider", "nobody").exit_code == 5


async def make_books(path: Path) -> None:
    await (await open_sqlite(path)).close()


def test_an_encryption_key_opens_with_its_password_only(tmp_path):
    path = tmp_path / "keys" / "user.x25519"
    public = create_encryption_key(path, PASSWORD, scrypt=Scrypt.LIGHT)
    assert find_public_key(path) == public
    assert get_public_key(unlock_encryption_key(path, PASSWORD)) == public
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(RequestError) as caught:
        unlock_encryption_key(path, "wrong")
    assert caught.value.code == "keystore_locked"
    with pytest.raises(RequestError):
        create_encryption_key(path, PASSWORD, scrypt=Scrypt.LIGHT)
    assert find_public_key(tmp_path / "none.x25519") is None


def test_an_encryption_key_that_somebody_changed_or_opened_is_refused(tmp_path):
    path = tmp_path / "keys" / "user.x25519"
    create_encryption_key(path, PASSWORD, scrypt=Scrypt.LIGHT)
    changed = json.loads(path.read_text()) | {"public_key": "0x" + "ab" * 32}
    path.write_text(json.dumps(changed))
    with pytest.raises(RequestError, match="somebody changed it"):
        unlock_encryption_key(path, PASSWORD)
    for text in (
        "{}",
        "[]",
        "null",
        "x",
        '{"public_key": 1}',
        '{"public_key": "0x' + "ab" * 32 + '"}',
    ):
        path.write_text(text)
        with pytest.raises(RequestError) as caught:
            unlock_encryption_key(path, PASSWORD)
        assert caught.value.code == "keystore_locked"
    path.chmod(0o644)
    with pytest.raises(RequestError) as caught:
        find_public_key(path)
    assert caught.value.code == "keystore_permissions"


def test_a_key_is_made_once_and_never_with_a_mistyped_password(market, monkeypatch):
    if not (market.home / "keys" / "other.json").exists():
        market.add_key("other")
    session = Session(market.home)
    monkeypatch.setenv("HANSE_PASSWORD", "mistyped")
    with pytest.raises(RequestError):
        open_encryption_key(session, "other", "other", use_keyring=False)
    assert not (market.home / "keys" / "other.x25519").exists()
    monkeypatch.setenv("HANSE_PASSWORD", PASSWORD)
    made = open_encryption_key(session, "other", "other", use_keyring=False)
    monkeypatch.delenv("HANSE_PASSWORD")
    assert open_encryption_key(session, "other", "other", use_keyring=False) == made


def test_no_key_is_made_for_traces_that_cannot_be_kept(tmp_path):
    """Else whoever lacks the library is told to keep a copy of a key that seals nothing."""
    options = {"traces": "ftp://nowhere", "key": "user", "signer": None, "keyring": False}
    with pytest.raises(RequestError) as refused:
        keep_traces_of_user(Session(home=tmp_path), options, None)
    assert refused.value.code == "configuration_invalid"
    assert list(tmp_path.rglob("*.x25519")) == []
