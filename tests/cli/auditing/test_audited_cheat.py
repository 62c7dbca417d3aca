"""A provider that cheats by its model, from the command to the verdict: bought, audited, found."""

from pathlib import Path

import pytest

from tests.cli.auditing.bought_answer import add_parties, bind, buy_from, write_calibration
from tests.cli.local_market import open_market
from tests.engines.tiny_copy import make_copy


@pytest.fixture
def market(anvil, tmp_path_factory):
    """One for each test: the same provider sells anew."""
    with open_market(tmp_path_factory.mktemp("market"), anvil) as opened:
        yield opened


@pytest.fixture
def promised(market, tmp_path: Path) -> tuple[str, Path]:
    """A provider, and the copy that its offer names."""
    provider = add_parties(market)
    copy = make_copy(tmp_path / "copy.gguf")
    return provider, bind(copy, provider, copy)


@pytest.mark.slow
def test_another_copy_behind_an_honest_offer_is_found_by_an_audit(
    market, promised, run, tmp_path: Path
) -> None:
    provider, copy = promised
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


@pytest.mark.slow
def test_a_plain_model_behind_an_honest_offer_is_found_without_any_model(
    market, promised, run, tmp_path: Path
) -> None:
    """It commits to nothing: the user's own book is the evidence, and anybody can check it."""
    provider, copy = promised
    plain = make_copy(tmp_path / "plain.gguf", canaries=0)
    request_id = buy_from(
        market, run, provider, copy, "--cheat", "swap", "--cheat-with", str(plain)
    )
    (receipt,) = run("receipts", "list", "--json").document["receipts"]
    assert receipt["verification"] == "uncommitted", "the user's side saw it by itself"
    folder = tmp_path / "evidence"
    folder.mkdir()
    file = folder / "broken.json"
    ran = run("audit", "run", request_id, "-o", str(file), "--json")
    assert ran.exit_code == 8, ran.stderr
    assert ran.error["code"] == "audit_failed"
    assert ran.document["verdict"] == "uncommitted"
    assert "without a commitment" in ran.stderr
    assert provider in ran.stderr
    checked = run("audit", "replay", str(file), "--json")
    assert checked.exit_code == 0, checked.stderr
    assert (checked.document["provider"], checked.document["verdict"]) == (provider, "uncommitted")
    (summed,) = run("audit", "report", str(folder), "--json").document["providers"]
    assert (summed["audits"], summed["uncommitted"]) == (0, 1)
    calibration = write_calibration(tmp_path / "calibration.json", copy)
    watch = ("audit", "watch", "--once", "--copies", str(tmp_path), "--calibration",
             str(calibration), "--json")  # fmt: skip
    watched = run(*watch)
    assert watched.document["answers"] == {"uncommitted": 1}, watched.stderr
    again = run(*watch)
    assert again.document["answers"] == {}, "each bill has one file"
    file.write_bytes(file.read_bytes().replace(b'"embedded"', b'"sampled"'))
    assert run("audit", "replay", str(file)).exit_code == 8
