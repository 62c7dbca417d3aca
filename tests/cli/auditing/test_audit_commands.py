"""`hanse audit`: what the commands print, write and refuse; audits themselves are tested below."""

from pathlib import Path

import pytest

from hanse.auditor.purchases import show_breach
from hanse.cli.modelling.copies.master_keys import make_master
from hanse.protocol.commitments.copies import encode_copy_description
from hanse.protocol.messages import Usage
from hanse.protocol.signatures import ZERO_HASH
from hanse.verification.audits.calibration import Calibration, encode_calibration
from tests.auditor.made_purchases import make_model
from tests.verification.audits.bought_answers import OFFER, SERVED_NOISE, calibrate, sell
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import (
    AUDITOR,
    USER,
    Signer,
    make_evidence,
    make_receipt_document,
)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate()


@pytest.fixture
def folder(calibration: Calibration, tmp_path: Path) -> Path:
    """Evidence about five honest answers, two by another model, and a file that holds nothing."""
    for number in range(1, 8):
        model = ToyModel(noise=SERVED_NOISE) if number < 6 else ToyModel(weights=2)
        data = make_evidence(model, calibration, number=number)
        (tmp_path / f"{number}.json").write_bytes(data)
    (tmp_path / "broken.json").write_bytes(b"{}")
    return tmp_path


def test_evidence_is_checked_without_the_model(run, folder):
    ran = run("audit", "replay", str(folder / "7.json"), "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.document["verdict"] == "cheat"
    assert ran.document["detected"] == ["fingerprint", "sampling"]
    assert ran.document["replay"] is None
    shown = run("audit", "replay", str(folder / "7.json")).stdout
    assert "not those of this copy's full run" in shown
    assert "ABOVE" in shown


def test_evidence_that_does_not_hold_is_refused(run, folder):
    ran = run("audit", "replay", str(folder / "broken.json"), "--json")
    assert (ran.exit_code, ran.error["code"]) == (8, "evidence_invalid")
    assert run("audit", "replay", str(folder / "none.json")).exit_code == 5


def test_a_report_counts_by_provider_and_names_what_does_not_count(run, folder):
    (folder / "again.json").write_bytes((folder / "7.json").read_bytes())
    ran = run("audit", "report", str(folder), "--json")
    (provider,) = ran.document["providers"]
    assert provider["provider"] == OFFER.provider
    counts = (provider["audits"], provider["honest"], provider["cheat"])
    assert counts == (7, 5, 2)  # the same file again is no audit more
    assert provider["detected_by_sampling"] == 2
    assert provider["sampling_by_chance"] == pytest.approx(1 - 0.97**7 - 7 * 0.03 * 0.97**6)
    assert provider["cheat_rate_at_most"] == pytest.approx(0.658739)  # Clopper-Pearson, 2 of 7
    assert [Path(one["file"]).name for one in ran.document["refused"]] == ["broken.json"]
    shown = run("audit", "report", str(folder))
    assert "does not count" in shown.stderr
    empty = folder / "empty"
    empty.mkdir()
    assert run("audit", "report", str(empty)).exit_code == 5


def test_a_file_that_cannot_be_read_ends_no_report(run, folder):
    (folder / "folder.json").mkdir()
    (folder / "gone.json").symlink_to(folder / "nowhere")  # as one that went after it was listed
    ran = run("audit", "report", str(folder), "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.document["providers"][0]["audits"] == 7
    refused = {Path(one["file"]).name: one["reason"] for one in ran.document["refused"]}
    assert set(refused) == {"broken.json", "folder.json", "gone.json"}
    assert "cannot read" in refused["gone.json"]
    named = run("audit", "report", str(folder / "7.json"), str(folder / "none.json"), "--json")
    assert [one["file"] for one in named.document["refused"]] == [str(folder / "none.json")]
    nothing = run("audit", "report", str(folder / "none.json"), "--json")
    assert (nothing.exit_code, nothing.error["code"]) == (5, "not_found")
    assert "none.json" in nothing.error["message"]


def test_a_calibration_that_would_carry_nothing_is_refused_before_it_is_measured(run, tmp_path):
    target = tmp_path / "calibration.json"
    arguments = ("audit", "calibrate", "--model", "none.gguf", "-o", str(target))
    ran = run(*arguments, "--answers", "300", "--quantile", "0.9999", "--json")
    assert ran.exit_code == 2
    assert "--answers 29956" in ran.error["message"]
    ran = run(*arguments, "--load", "many", "--json")
    assert "THREADSxCONCURRENT" in ran.error["message"]
    ran = run(*arguments, "--json")
    assert "none.gguf" in ran.error["message"]
    assert not target.exists()


def test_a_purchase_that_left_no_trace_cannot_be_audited(run, calibration, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_bytes(encode_calibration(calibration))
    ran = run(
        *("audit", "run", ZERO_HASH, "--model", "x.gguf", "--calibration", str(path), "--json")
    )
    assert (ran.exit_code, ran.error["code"]) == (5, "not_found")
    path.write_bytes(b"{}")
    ran = run(
        *("audit", "run", ZERO_HASH, "--model", "x.gguf", "--calibration", str(path), "--json")
    )
    assert ran.error["code"] == "calibration_invalid"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("calibrate", "-o", "{folder}/c.json"), id="an audit"),
        pytest.param(("replay", "{folder}/7.json"), id="evidence"),
    ],
)
def test_a_copy_is_rerun_by_its_key_with_that_key_only(run, folder, tmp_path, command):
    model = make_model(tmp_path / "copy.gguf", OFFER.provider)
    assert model.copy is not None
    described = tmp_path / "copy.gguf.copy.json"
    described.write_bytes(encode_copy_description(model.copy))
    master = tmp_path / "master.key"
    make_master(master)
    arguments = ("audit", *(part.format(folder=folder) for part in command), "--model", "packaged")
    keyed = ("--copy", str(described), "--master", str(master))
    assert "belong together" in run(*arguments, *keyed[:2]).stderr
    assert "--runtime torch" in run(*arguments, *keyed).stderr
    refused = run(*arguments, *keyed, "--runtime", "torch")
    assert refused.exit_code == 2
    assert "made with another master key" in refused.stderr


def make_broken(number: int, signer: Signer) -> bytes:
    sold = sell(ToyModel(), 40, number, usage=Usage(13, 0, 60))
    data = show_breach(make_receipt_document(sold), signer, sold.entries)
    assert data is not None
    return data


def test_broken_promises_are_checked_and_counted_each_once(run, folder):
    (folder / "broken-1.json").write_bytes(make_broken(1, AUDITOR))
    (folder / "broken-1-again.json").write_bytes(make_broken(1, USER))
    (folder / "broken-2.json").write_bytes(make_broken(2, AUDITOR))
    shown = run("audit", "replay", str(folder / "broken-1.json"), "--json")
    assert (shown.exit_code, shown.document["verdict"]) == (0, "overbilled")
    assert "60 output tokens" in shown.document["reason"]
    (provider,) = run("audit", "report", str(folder), "--json").document["providers"]
    assert (provider["audits"], provider["overbilled"], provider["uncommitted"]) == (7, 2, 0)
    for number in range(1, 8):
        (folder / f"{number}.json").unlink()
    (provider,) = run("audit", "report", str(folder), "--json").document["providers"]
    assert (provider["audits"], provider["overbilled"]) == (0, 2)
    assert provider["cheat_rate_at_most"] == 1.0, "nothing was drawn, so nothing is bounded"
