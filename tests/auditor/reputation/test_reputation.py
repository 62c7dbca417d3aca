"""Evidence files become reputations: only those that hold, weighed by the stakes on the chain."""

import asyncio
import os
import secrets

import msgspec
import pytest

from hanse.auditor.reputation.evidence_folder import EvidenceFolder, Told
from hanse.auditor.reputation.fetching import fetch_reputations, report_own_audits
from hanse.chain import Asset, Registry, Rpc, create_key
from hanse.market import HealthBook
from hanse.market.health import BARRED_S
from hanse.market.reputation import Reputation, Word
from hanse.market.reputation import testimony as words
from hanse.market.reputation.computing import NEW_PPM, PPM, PRIOR_PPM
from hanse.market.reputation.observation import Observation, sign_observation
from hanse.protocol.commitments.tree import OPENING_RETAINED_S
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Usage
from hanse.sdk.receipt_file import verify_receipt_document
from hanse.verification.audits.judging import Verdict
from hanse.verification.evidence.breaches import make_breach
from tests.cli.local_market import LOOK_S, UNIT, Market, make_outbox, open_market
from tests.verification.audits.bought_answers import OFFER, SERVED_NOISE, calibrate, sell
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import (
    AUDITOR,
    BROKER,
    DOMAIN,
    make_evidence,
    make_receipt_document,
)

STAKE = 100 * UNIT
STRANGER, OTHER = "0x" + "5" * 40, "0x" + "6" * 40


def doubt(statement):
    """The auditor saw draws that do not fit, which is no ground for a penalty."""
    judgement = statement.judgement
    reasons = ("sampling_differs", *judgement.reasons)
    changed = msgspec.structs.replace(judgement, verdict=Verdict.INCONCLUSIVE, reasons=reasons)
    return msgspec.structs.replace(statement, judgement=changed)


def test_a_folder_of_evidence_is_read_once_and_only_what_holds_counts(tmp_path):
    calibration = calibrate()
    cheat = make_evidence(ToyModel(weights=2), calibration)
    files = {
        "cheat": cheat,
        "honest": make_evidence(ToyModel(noise=SERVED_NOISE), calibration),
        "without-content": make_evidence(ToyModel(weights=2), calibration, with_content=False),
        "doubted": make_evidence(
            ToyModel(noise=SERVED_NOISE), calibration, with_content=False, change=doubt, number=2
        ),
        "forged": cheat.replace(b'"hanse test"', b'"other test"'),
        "empty": b"",
    }
    for name, data in files.items():
        (tmp_path / f"{name}.json").write_bytes(data)
    folder = EvidenceFolder(tmp_path, DOMAIN)
    told = folder.read()
    assert sorted(folder.refused) == ["empty.json", "forged.json"]
    assert sorted(one.testimony.word for one in told) == [
        Word.AUDIT_DOUBTED,
        Word.AUDIT_FAILED,  # beside it the same one without its content says nothing more
        Word.AUDIT_PASSED,
    ]
    assert {one.testimony.provider for one in told} == {OFFER.provider}
    assert {one.testimony.witness for one in told} == {AUDITOR.address}
    assert {one.receipt_key for one in told} == {BROKER.address}
    (tmp_path / "cheat.json").unlink()
    left = sorted(one.testimony.word for one in folder.read())
    assert left == [Word.AUDIT_DOUBTED, Word.AUDIT_DOUBTED, Word.AUDIT_PASSED]  # cannot be rerun
    elsewhere = EvidenceFolder(tmp_path, Domain(1, DOMAIN.escrow))
    assert elsewhere.read() == []
    assert "another market" in elsewhere.refused["honest.json"]
    with pytest.raises(RequestError, match="no folder"):
        EvidenceFolder(tmp_path / "none", DOMAIN).read()


def test_of_too_many_files_the_newest_are_read_and_that_is_said(tmp_path):
    """A folder that is full is no reason to stop: today's cheat is barred all the same."""
    for number in range(8):
        (tmp_path / f"{number}.json").touch()
        os.utime(tmp_path / f"{number}.json", (number, number))
    cheat = tmp_path / "z.json"
    cheat.write_bytes(make_evidence(ToyModel(weights=2), calibrate()))
    folder = EvidenceFolder(tmp_path, DOMAIN, files_max=6)
    (told,) = folder.read()
    assert told.testimony.word is Word.AUDIT_FAILED
    assert "9 files, of which the newest 6" in folder.refused[str(tmp_path)]
    assert sorted(folder.refused)[1:] == [f"{number}.json" for number in range(3, 8)]
    for number in range(3):
        (tmp_path / f"{number}.json").unlink()
    assert folder.read() == [told]
    assert str(tmp_path) not in folder.refused
    assert len(folder.refused) == 5
    cheat.unlink()
    assert folder.read() == []


def test_a_broken_promise_counts_as_a_failed_audit_and_fades_from_its_time(tmp_path):
    late_s = 1_800_000_000 + OPENING_RETAINED_S
    shown = (("one", AUDITOR, late_s + 9), ("two", AUDITOR, late_s + 99), ("three", BROKER, late_s))
    for name, signer, at_s in shown:
        sold = sell(ToyModel(), 20, usage=Usage(13, 0, 21))
        document = make_receipt_document(sold)
        receipt = verify_receipt_document(msgspec.json.encode(document))
        data = make_breach(document, receipt, signer, at_s, sold.entries)
        (tmp_path / f"{name}.json").write_bytes(data)
    told = EvidenceFolder(tmp_path, DOMAIN).read()
    assert len(told) == 2, "one word of a witness on an answer"
    assert {one.testimony.word for one in told} == {Word.AUDIT_FAILED}
    assert {one.testimony.witness for one in told} == {AUDITOR.address, BROKER.address}
    assert {one.testimony.at_s for one in told} == {late_s}, "nobody keeps it fresh"
    assert {one.receipt_key for one in told} == {BROKER.address}
    elsewhere = EvidenceFolder(tmp_path, Domain(1, DOMAIN.escrow))
    assert elsewhere.read() == []
    assert "another market" in elsewhere.refused["one.json"]


def date(at_s):
    return lambda statement: msgspec.structs.replace(statement, audited_at=at_s)


def test_one_auditor_has_one_word_on_one_answer_and_cannot_keep_it_fresh(tmp_path):
    calibration, finished_at = calibrate(), 1_800_000_000
    for at_s in (finished_at + 5, finished_at + 9, finished_at + 400 * 86_400):
        data = make_evidence(ToyModel(weights=2), calibration, change=date(at_s))
        (tmp_path / f"{at_s}.json").write_bytes(data)
    (told,) = EvidenceFolder(tmp_path, DOMAIN).read()
    assert told.testimony.at_s == finished_at + 5
    (tmp_path / f"{finished_at + 5}.json").unlink()
    (tmp_path / f"{finished_at + 9}.json").unlink()
    (told,) = EvidenceFolder(tmp_path, DOMAIN).read()
    assert told.testimony.at_s == finished_at + OPENING_RETAINED_S


def test_an_observation_is_signed_and_told(tmp_path):
    witness = AUDITOR
    seen = Observation(OFFER.provider, witness.address, Word.FIRST_TOKEN, 350, "0x" + "7" * 64, 5)
    raw = sign_observation(seen, DOMAIN, witness)
    (tmp_path / "seen.json").write_bytes(raw)
    changes = {
        "slower.json": raw.replace(b":350", b":9350"),
        "other-word.json": raw.replace(b'first_token"', b'request_failed"', 1),
        "other-witness.json": raw.replace(witness.address.encode(), BROKER.address.encode()),
        "audit.json": raw.replace(b'"first_token"', b'"audit_failed"', 1),
        "other-market.json": raw.replace(b":31337", b":1"),
        "field.json": raw.replace(b'{"format"', b'{"x":1,"format"'),
    }
    for name, data in changes.items():
        assert data != raw
        (tmp_path / name).write_bytes(data)
    folder = EvidenceFolder(tmp_path, DOMAIN)
    (told,) = folder.read()
    assert sorted(folder.refused) == sorted(changes)
    said = told.testimony
    assert (said.provider, said.witness, said.word, said.first_token_ms) == (
        OFFER.provider, witness.address, Word.FIRST_TOKEN, 350,
    )  # fmt: skip
    assert told.receipt_key is None


def test_own_audits_count_once_as_own_experience():
    """A user has no stake, so nobody else weighs its audits; it does itself."""
    health, reported = HealthBook(lambda: 0.0), set()
    names = ((OFFER.provider, AUDITOR.address), (STRANGER, AUDITOR.address), (OTHER, STRANGER))
    told = [
        Told(words.Testimony(f"0x{n:064x}", provider, witness, Word.AUDIT_FAILED, 5), "")
        for n, (provider, witness) in enumerate(names)
    ]
    passed = words.Testimony(f"0x{9:064x}", STRANGER, AUDITOR.address, Word.AUDIT_PASSED, 9)
    usual = health.get_risk(OTHER)
    for _ in range(2):
        report_own_audits(health, [Told(passed, ""), *told], {AUDITOR.address}, reported)
    assert health.get_risk(OTHER) == usual  # nobody of ours said so
    assert usual < health.get_risk(STRANGER) < health.get_risk(OFFER.provider)
    assert health.get(OFFER.provider).audit_share == pytest.approx(0.3)  # once
    caught = health.get(STRANGER)
    assert caught.is_down(now=6.0), "who was caught is not asked, whatever others say"
    assert f"0x{1:064x}" in caught.barred_reason
    assert not caught.is_down(now=5.0 + BARRED_S)
    assert not health.get(OTHER).is_down(now=6.0)


@pytest.mark.slow
def test_stakes_keys_and_ages_are_the_chains(anvil, tmp_path):
    provider, auditor, receipt_key, other_key = (create_key() for _ in range(4))
    poor = "0x" + "77" * 20

    def tell(word: Word, witness: str, number: int, at_s: int, key: str) -> Told:
        said = words.Testimony(f"0x{number:064x}", provider.address, witness, word, at_s)
        return Told(said, key)

    async def register(market: Market, owner, key) -> None:
        async with Rpc.connect(anvil) as rpc:
            await rpc.request("anvil_setBalance", owner.address, hex(10**20))
            deployment = market.network.deployment
            registry = Registry(rpc, deployment.registry)
            asset = Asset(rpc, deployment.asset)
            mint = asset.mint(owner.address, STAKE)
            await make_outbox(rpc, market.minter).submit("mint-" + secrets.token_hex(4), mint)
            outbox = make_outbox(rpc, owner)
            calls = (
                asset.approve(registry.address, STAKE),
                registry.register(STAKE, key.address, owner.address),
            )
            for call in calls:
                await outbox.submit(secrets.token_hex(8), call, poll_interval_s=LOOK_S)

    async def fetch(market: Market, told: list[Told]) -> Reputation:
        async with Rpc.connect(anvil) as rpc:
            found = await fetch_reputations(
                rpc, market.network.deployment, told, [provider.address]
            )
        return found[provider.address]

    async def read_now() -> int:
        async with Rpc.connect(anvil) as rpc:
            return (await rpc.fetch_head()).timestamp_s

    with open_market(tmp_path, anvil) as market:
        asyncio.run(register(market, provider, receipt_key))
        asyncio.run(register(market, auditor, other_key))
        at_s = asyncio.run(read_now()) - 60
        failed = tell(Word.AUDIT_FAILED, auditor.address, 1, at_s, receipt_key.address)
        unknown_key = tell(Word.AUDIT_FAILED, auditor.address, 2, at_s, poor)
        no_stake = tell(Word.AUDIT_FAILED, poor, 3, at_s, receipt_key.address)
        told = [failed, unknown_key, no_stake]
        found = asyncio.run(fetch(market, told))
        again = asyncio.run(fetch(market, told[::-1]))
    assert [part.testimony for part in found.parts] == [failed.testimony]
    assert found.parts[0].weight == pytest.approx(STAKE, rel=0.001)
    assert found.newness_ppm == pytest.approx(PPM, rel=0.001)  # registered just now
    assert found.risk_ppm == pytest.approx((PRIOR_PPM + NEW_PPM + PPM) / 2, rel=0.001)
    assert found.unheard == 1
    assert [part.testimony for part in again.parts] == [failed.testimony]
