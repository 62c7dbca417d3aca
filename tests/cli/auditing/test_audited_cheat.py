"""A provider that cheats by its model, from the command to the verdict: bought, audited, found."""

import signal
from pathlib import Path

import pytest

from tests.cli.auditing.test_audit_end_to_end import MODEL, ask, bind, write_calibration
from tests.cli.local_market import open_market, wait_until
from tests.engines.tiny_copy import make_copy


@pytest.fixture
def market(anvil, tmp_path_factory):
    with open_market(tmp_path_factory.mktemp("market"), anvil) as opened:
        yield opened


@pytest.fixture
def home(market):
    return market.home


@pytest.mark.slow
def test_another_copy_behind_an_honest_offer_is_found_by_an_audit(
    market, run, tmp_path: Path
) -> None:
    provider = market.add_key("provider", units=200)
    market.add_key("provider-receipt")
    market.add_key("user", units=50)
    first = make_copy(tmp_path / "copy.gguf")
    copy = bind(first, provider, first)
    other = make_copy(tmp_path / "other.gguf", seed=2)
    market.start(
        *("provider", "start", "--engine", "llama", "--model", MODEL, "--port", "0"),
        *("--engine-setting", f"model_path={copy}", "--engine-setting", "context_tokens=512"),
        *("--output-price", "2000", "--register", "--settle-every", "0", "--threads", "1"),
        *("--cheat", "other-copy", "--cheat-with", str(other)),
    )
    assert run("account", "open", "--deposit", "20", f"{provider}=15", "--json").exit_code == 0
    key = run("gateway", "keys", "create", "test", "--json").document["api_key"]
    gateway, document = market.start(
        "gateway", "start", "--port", "0", "--traces", str(market.home / "traces")
    )
    ask(document["base_url"], key)
    wait_until(
        lambda: (
            [one["state"] for one in run("traces", "list", "--json").document["traces"]]
            == ["stored"]
        ),
        "a trace",
    )
    gateway.send_signal(signal.SIGTERM)
    gateway.wait(30)
    (note,) = run("traces", "list", "--json").document["traces"]
    calibration = write_calibration(tmp_path / "calibration.json", copy)
    file = tmp_path / "evidence.json"
    ran = run(
        *("audit", "run", note["request_id"], "--threads", "1", "--model", str(copy)),
        *("--calibration", str(calibration), "-o", str(file), "--json"),
    )
    assert ran.exit_code == 8, ran.stderr
    assert ran.error["code"] == "audit_failed"
    assert provider in ran.stderr
    again = run("audit", "replay", str(file), "--model", str(copy), "--json")
    assert again.exit_code == 0, again.stderr
    assert again.document["verdict"] == "cheat"
    assert again.document["replay"]["agrees"] is True, "whoever reruns it finds the same"
