"""`hanse audit`: what the commands print, write and refuse; audits themselves are tested below."""

import dataclasses
import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from coincurve import PrivateKey

from hanse.cli.auditing.auditors import OpenedModel
from hanse.cli.auditing.openings import OPENING_PATH, fetch_opening
from hanse.cli.auditing.prompts import KINDS, SAMPLERS, make_request
from hanse.cli.auditing.running import (
    Purchase,
    audit_purchase,
    find_overbilled,
    show_breach,
)
from hanse.cli.modelling.copies.master_keys import make_master
from hanse.protocol.commitments.copies import CopyDescription, encode_copy_description
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.manifests import get_manifest_root
from hanse.protocol.messages import Offer, SignedOffer, SignedVoucher, Usage, Voucher
from hanse.protocol.signatures import ZERO_HASH, to_hex
from hanse.sdk.receipt_file import verify_receipt_document
from hanse.sdk.transport.asgi import AsgiTransport
from hanse.settlement.books.voucher_records import StoredVoucher, VoucherState
from hanse.verification.audits.calibration import Calibration, encode_calibration
from hanse.verification.audits.judging import Verdict
from hanse.verification.evidence.files import verify_evidence
from tests.verification.audits.bought_answers import (
    MANIFEST,
    OFFER,
    PATH,
    SERVED_NOISE,
    calibrate,
    make_auditor,
    sell,
)
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import (
    AUDITOR,
    DOMAIN,
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


def make_purchase(model: ToyModel) -> Purchase:
    sold = sell(model, 40)
    document = make_receipt_document(sold)
    return Purchase(sold.bought, sold.opening, document, DOMAIN)


def make_model(path: Path, provider: str, root: str = MANIFEST) -> OpenedModel:
    path.write_bytes(b"weights")
    copy = CopyDescription(
        1, root, provider, 3, "0x" + "88" * 32, "llama", "llama", "output_bias", "Q8_0", "test", 32,
        32, 64, tuple(range(64, 80)), tuple(range(64, 80)), 30.0, 4 / 127, "0x" + "77" * 32, 7,
    )  # fmt: skip
    return OpenedModel(make_auditor(), path, copy)


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


def make_voucher(offer: Offer, signer: Signer) -> StoredVoucher:
    request = sell(ToyModel(), 8).bought.request
    voucher = Voucher(USER.address, offer.provider, 5, 1, to_hex(request.struct_hash()))
    signed = SignedVoucher(voucher, request, signer.address, "0x")
    return StoredVoucher(
        signed, PATH, SignedOffer(offer, "0x"), offer.provider, bytes(32), 10, 8,
        VoucherState.RECEIPTED, None, 0, True, 1,
    )  # fmt: skip


def make_broker(status: int, body: bytes, asked: list[str]):  # type: ignore[no-untyped-def]
    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        asked.append(scope["path"])
        assert any(name == b"authorization" for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


async def test_an_opening_comes_from_the_first_endpoint_that_answers() -> None:
    asked: list[str] = []
    endpoints = ("http://gone.example", "http://broker.example/")
    offer = msgspec.structs.replace(OFFER, endpoints=endpoints)
    transport = AsgiTransport({"http://broker.example": make_broker(200, b"opening", asked)})
    voucher = make_voucher(offer, USER)
    assert await fetch_opening(transport, DOMAIN, voucher, USER) == b"opening"
    assert asked == [OPENING_PATH + voucher.signed.request.request_id]


async def test_a_broker_without_the_opening_says_so_and_a_wrong_key_is_named() -> None:
    refusal = json.dumps({"error": {"code": "not_found", "message": "not kept"}}).encode()
    broker = make_broker(404, refusal, [])
    voucher = make_voucher(OFFER, USER)
    with pytest.raises(RequestError) as refused:
        await fetch_opening(AsgiTransport({"http://broker.example": broker}), DOMAIN, voucher, USER)
    assert refused.value.code == "not_found"
    with pytest.raises(TransientError):
        await fetch_opening(AsgiTransport({}), DOMAIN, voucher, USER)
    other = Signer(PrivateKey(bytes([9]) * 32))
    with pytest.raises(RequestError, match="--signer"):
        await fetch_opening(AsgiTransport({}), DOMAIN, voucher, other)


def test_questions_differ_and_take_every_kind_with_every_sampler() -> None:
    made = [make_request(number, 10) for number in range(400)]
    assert len({json.dumps(body["messages"]) for _, body in made}) == 400
    pairs = {(kind, body.get("temperature")) for kind, body in made}
    assert len(pairs) == len(KINDS) * len(SAMPLERS)


def test_every_fourth_question_can_be_long() -> None:
    lengths = [len(make_request(number, 10, 300)[1]["messages"][-1]["content"].split())
               for number in range(40)]  # fmt: skip
    assert all(length > 150 for length in lengths[3::4])
    assert all(length < 30 for number, length in enumerate(lengths) if number % 4 != 3)


def test_evidence_by_plain_weights_and_key_takes_the_very_base(tmp_path: Path) -> None:
    path, cache = tmp_path / "base.gguf", tmp_path / "cache"
    of_another = make_model(path, OFFER.provider)
    with pytest.raises(RequestError, match="the copy was made of"):
        dataclasses.replace(of_another, is_keyed=True).describe(MANIFEST, cache)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    root = get_manifest_root([(path.name, digest)])
    keyed = dataclasses.replace(make_model(path, OFFER.provider, root), is_keyed=True)
    assert keyed.describe(root, cache).manifest_root == root


def test_a_copy_is_audited_by_its_key_with_that_key_only(run, tmp_path):
    model = make_model(tmp_path / "copy.gguf", OFFER.provider)
    assert model.copy is not None
    described = tmp_path / "copy.gguf.copy.json"
    described.write_bytes(encode_copy_description(model.copy))
    master = tmp_path / "master.key"
    make_master(master)
    arguments = ("audit", "calibrate", "--model", "packaged", "-o", str(tmp_path / "c.json"))
    keyed = ("--copy", str(described), "--master", str(master))
    assert "belong together" in run(*arguments, *keyed[:2]).stderr
    assert "--runtime torch" in run(*arguments, *keyed).stderr
    refused = run(*arguments, *keyed, "--runtime", "torch")
    assert refused.exit_code == 2
    assert "made with another master key" in refused.stderr


def test_evidence_is_rerun_by_a_copy_s_key_with_that_key_only(run, folder, tmp_path):
    model = make_model(tmp_path / "copy.gguf", OFFER.provider)
    assert model.copy is not None
    described = tmp_path / "copy.gguf.copy.json"
    described.write_bytes(encode_copy_description(model.copy))
    master = tmp_path / "master.key"
    make_master(master)
    arguments = ("audit", "replay", str(folder / "7.json"), "--model", "packaged")
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


def test_an_answer_that_keeps_its_promise_leaves_no_file() -> None:
    purchase = make_purchase(ToyModel(noise=SERVED_NOISE))
    assert find_overbilled(purchase, AUDITOR) is None
    assert show_breach(purchase.document, AUDITOR) is None
