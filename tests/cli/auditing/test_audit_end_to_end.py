"""`hanse audit` on a real chain: an answer of a copy is bought, audited, and its evidence rerun."""

import json

import pytest

from hanse.protocol.commitments.copies import COPY_SUFFIX
from tests.cli.auditing.bought_answer import add_parties, bind, buy_from, write_calibration
from tests.engines.tiny_copy import make_copy


@pytest.mark.slow
def test_a_bought_answer_is_audited_and_a_swap_is_evidence(market, run, tmp_path):
    provider = add_parties(market)
    first = make_copy(tmp_path / "copy.gguf")
    copy = bind(first, provider, first)
    other = bind(make_copy(tmp_path / "other.gguf", seed=2), provider, first)
    request_id = buy_from(market, run, provider, copy)
    arguments = ("audit", "run", request_id, "--threads", "1", "--calibration",
                 str(write_calibration(tmp_path / "calibration.json", copy)))  # fmt: skip

    honest = tmp_path / "honest.json"
    ran = run(*arguments, "--model", str(copy), "-o", str(honest), "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.document["verdict"] == "honest", ran.document
    assert {one["statistic"] for one in ran.document["findings"]} == {
        "fingerprint/4", "fingerprint/16"
    }  # fmt: skip
    again = run("audit", "replay", str(honest), "--model", str(copy), "--json")
    assert again.exit_code == 0, again.stderr
    assert again.document["replay"]["agrees"] is True
    assert again.document["replay"]["distance_ppm"] == 0

    # to an auditor with the promised weights, the answer of other ones looks like this
    cheat = tmp_path / "cheat.json"
    other_file = json.loads((other.with_name(other.name + COPY_SUFFIX)).read_text())
    assert other_file["provider"] == provider
    ran = run(*arguments, "--model", str(other), "-o", str(cheat), "--json")
    assert ran.exit_code == 8
    assert json.loads(ran.stderr)["error"]["code"] == "audit_failed"
    again = run("audit", "replay", str(cheat), "--model", str(copy), "--json")
    assert again.exit_code == 8, "the rerun with the true copy says honest"
    (summed,) = run("audit", "report", str(honest), "--json").document["providers"]
    assert (summed["provider"], summed["honest"]) == (provider, 1)
