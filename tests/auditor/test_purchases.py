"""One purchase audited: what becomes evidence, what is refused, what leaves no file."""

import dataclasses
import hashlib
from pathlib import Path

import msgspec
import pytest

from hanse.auditor.purchases import audit_purchase, find_overbilled, show_breach
from hanse.protocol.errors import RequestError
from hanse.protocol.manifests import get_manifest_root
from hanse.protocol.signatures import ZERO_HASH
from hanse.sdk.receipt_file import verify_receipt_document
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.judging import Verdict
from hanse.verification.evidence.files import verify_evidence
from tests.auditor.made_purchases import make_model, make_purchase
from tests.verification.audits.bought_answers import MANIFEST, OFFER, SERVED_NOISE, calibrate
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import AUDITOR


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate()


@pytest.mark.parametrize(("weights", "verdict"), [(1, Verdict.HONEST), (2, Verdict.CHEAT)])
def test_a_purchase_becomes_evidence(
    calibration: Calibration, tmp_path: Path, weights: int, verdict: Verdict
) -> None:
    purchase = make_purchase(ToyModel(weights=weights, noise=SERVED_NOISE))
    model = make_model(tmp_path / "copy.gguf", OFFER.provider)
    found, data = audit_purchase(
        purchase, model, calibration, AUDITOR, tmp_path / "cache", withhold=False
    )
    assert found.judgement.verdict is verdict
    evidence = verify_evidence(data, verify_receipt_document)
    assert evidence.statement.judgement == found.judgement
    assert evidence.statement.model.epoch == 3
    _, bare = audit_purchase(
        purchase, model, calibration, AUDITOR, tmp_path / "cache", withhold=True
    )
    assert verify_evidence(bare, verify_receipt_document).content is None


@pytest.mark.parametrize(
    ("provider", "root", "said"),
    [("0x" + "99" * 20, MANIFEST, "audit it with"), (OFFER.provider, ZERO_HASH, "offered was")],
)
def test_another_provider_s_copy_audits_nothing(
    calibration: Calibration, tmp_path: Path, provider: str, root: str, said: str
) -> None:
    model = make_model(tmp_path / "copy.gguf", provider, root)
    purchase = make_purchase(ToyModel())
    with pytest.raises(RequestError, match=said):
        audit_purchase(purchase, model, calibration, AUDITOR, tmp_path / "cache", withhold=False)


def test_evidence_by_plain_weights_and_key_takes_the_very_base(tmp_path: Path) -> None:
    path, cache = tmp_path / "base.gguf", tmp_path / "cache"
    of_another = make_model(path, OFFER.provider)
    with pytest.raises(RequestError, match="the copy was made of"):
        dataclasses.replace(of_another, is_keyed=True).describe(MANIFEST, cache)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    root = get_manifest_root([(path.name, digest)])
    keyed = dataclasses.replace(make_model(path, OFFER.provider, root), is_keyed=True)
    assert keyed.describe(root, cache).manifest_root == root


def test_a_copy_s_file_is_held_to_its_description(tmp_path: Path) -> None:
    """Copies of one base by two keys have one size: if they are swapped only a hash tells."""
    model = make_model(tmp_path / "copy.gguf", OFFER.provider)
    (tmp_path / "copy.gguf").write_bytes(b"WEIGHTS")
    with pytest.raises(RequestError, match="its description is of"):
        model.describe(MANIFEST, tmp_path / "cache")


def test_an_answer_that_keeps_its_promise_leaves_no_file() -> None:
    purchase = make_purchase(ToyModel(noise=SERVED_NOISE))
    assert find_overbilled(purchase, AUDITOR) is None
    assert show_breach(purchase.document, AUDITOR) is None


@pytest.mark.parametrize(
    ("copy", "calibrated", "said"),
    [
        ("Q4_0", "Q8_0", "this copy is of type Q4_0, offered was Q8_0"),
        ("Q8_0", "Q4_0", "this calibration is of answers by Q4_0, offered was Q8_0"),
        ("F16", "Q8_0", ""),  # calibrated against what serves
        ("Q8_0", "unknown", ""),
    ],
)
def test_no_verdict_is_signed_by_a_copy_or_thresholds_of_another_type(
    calibration: Calibration, tmp_path: Path, copy: str, calibrated: str, said: str
) -> None:
    """By a copy of 4 bits every honest answer of 8 is a cheat's, and the file would say so."""
    model = make_model(tmp_path / "copy.gguf", OFFER.provider)
    assert model.copy is not None
    model = dataclasses.replace(model, copy=msgspec.structs.replace(model.copy, quantisation=copy))
    conditions = msgspec.structs.replace(calibration.conditions, quantisation=calibrated)
    judged_by = msgspec.structs.replace(calibration, conditions=conditions)
    purchase = make_purchase(ToyModel(noise=SERVED_NOISE))

    def audit() -> Verdict:
        found, _ = audit_purchase(
            purchase, model, judged_by, AUDITOR, tmp_path / "cache", withhold=False
        )
        return found.judgement.verdict

    if said:
        with pytest.raises(RequestError, match=said):
            audit()
    else:
        assert audit() is Verdict.HONEST
