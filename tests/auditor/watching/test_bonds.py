"""What is worth a bond: one's own audits and broken promises, of this market, and nothing else."""

from pathlib import Path

from hanse.auditor.watching.challenges import read_cheat
from hanse.protocol.eip712 import Domain
from tests.verification.audits.bought_answers import SERVED_NOISE, calibrate
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import AUDITOR, DOMAIN, STRANGER, make_evidence


def test_a_strangers_word_takes_no_bond_of_ours(tmp_path: Path) -> None:
    """A file that somebody laid into the folder, signed and whole: its numbers may be made up."""
    path = tmp_path / "cheat.json"
    path.write_bytes(make_evidence(ToyModel(weights=2), calibrate()))
    found = read_cheat(path, DOMAIN, {AUDITOR.address})
    assert found is not None
    assert found.content == path.read_bytes()
    assert read_cheat(path, DOMAIN, {STRANGER.address}) is None
    assert read_cheat(path, Domain(1, DOMAIN.escrow), {AUDITOR.address}) is None


def test_nothing_but_a_cheat_with_its_content_is_challenged(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    for data in (
        make_evidence(ToyModel(noise=SERVED_NOISE), calibrate()),
        make_evidence(ToyModel(weights=2), calibrate(), with_content=False),
        b"{}",
    ):
        path.write_bytes(data)
        assert read_cheat(path, DOMAIN, {AUDITOR.address}) is None
