"""A provider that cheats by its model, from the command to the verdict: bought, audited, found."""

from pathlib import Path

import pytest

from tests.cli.auditing.bought_answer import bind, buy_from, write_calibration
from tests.cli.local_market import open_market
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
    request_id = buy_from(
        market, run, provider, copy, "--cheat", "other-copy", "--cheat-with", str(other)
    )
    calibration = write_calibration(tmp_path / "calibration.json", copy)
    file = tmp_path / "evidence.json"
    ran = run(
        *("audit", "run", request_id, "--threads", "1", "--model", str(copy)),
        *("--calibration", str(calibration), "-o", str(file), "--json"),
    )
    assert ran.exit_code == 8, ran.stderr
    assert ran.error["code"] == "audit_failed"
    assert provider in ran.stderr
    again = run("audit", "replay", str(file), "--model", str(copy), "--json")
    assert again.exit_code == 0, again.stderr
    assert again.document["verdict"] == "cheat"
    assert again.document["replay"]["agrees"] is True, "whoever reruns it finds the same"
