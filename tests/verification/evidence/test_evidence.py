"""Evidence: a stranger checks all but the rerun from the file, and the rerun with the model."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.messages import Usage
from hanse.protocol.signatures import keccak, to_hex
from hanse.sdk.receipt_file import verify_receipt_document
from hanse.verification.audits.alignment import Alignment
from hanse.verification.audits.answers import Auditor, get_task, judge_answer
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.judging import Verdict
from hanse.verification.audits.measuring import measure
from hanse.verification.evidence.files import (
    FILE_BYTES_MAX,
    PROMPT_TOKENS_MAX,
    encode_evidence,
    get_evidence_hash,
    verify_evidence,
)
from hanse.verification.evidence.replaying import replay
from hanse.verification.evidence.statement import Content, Model, Statement, sign_statement
from tests.verification.audits.bought_answers import (
    MANIFEST,
    OFFER,
    OWN_NOISE,
    SERVED_NOISE,
    audit,
    calibrate,
    sell,
)
from tests.verification.audits.toy_model import ToyModel, ToyReader
from tests.verification.evidence.made_evidence import (
    AUDITED_AT,
    AUDITOR,
    BROKER,
    DOMAIN,
    STRANGER,
    make_evidence,
    make_receipt_document,
)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate()


@pytest.fixture(scope="module")
def cheat(calibration: Calibration) -> bytes:
    return make_evidence(ToyModel(weights=2), calibration)


def test_a_stranger_checks_a_cheat_from_the_file_alone(cheat: bytes) -> None:
    evidence = verify_evidence(cheat, verify_receipt_document)
    assert evidence.statement.judgement.verdict is Verdict.CHEAT
    assert evidence.receipt.receipt_key == BROKER.address
    assert evidence.bought is not None
    assert get_evidence_hash(cheat) == to_hex(keccak(cheat))


def test_a_rerun_comes_to_the_same_verdict(cheat: bytes, calibration: Calibration) -> None:
    auditor = Auditor(ToyModel(noise=OWN_NOISE), ToyReader())
    for data in (cheat, make_evidence(ToyModel(noise=SERVED_NOISE), calibration)):
        evidence = verify_evidence(data, verify_receipt_document)
        found = replay(evidence, auditor)
        assert found.agrees
        assert found.prompt_agrees
        assert found.fit_agrees
        assert found.distance_ppm is not None
        assert found.distance_ppm < 50_000


def test_a_rerun_unmasks_a_lying_auditor(calibration: Calibration) -> None:
    """Numbers of another model, honestly signed and judged: only the rerun can tell."""
    liar = Auditor(ToyModel(weights=3), ToyReader())
    sold = sell(ToyModel(noise=SERVED_NOISE), 40)
    document = make_receipt_document(sold)
    found = audit(sold, calibration, liar)
    assert found.measured is not None
    assert found.judgement.verdict is Verdict.CHEAT
    bought = sold.bought
    content = Content(bought.path, bought.body, bought.response, sold.opening,
                      found.alignment.prompt_tokens)  # fmt: skip
    statement = Statement(
        AUDITOR.address, AUDITED_AT, "hanse test",
        Model(MANIFEST, "0x" + "77" * 32, OFFER.provider, 1, "0x" + "88" * 32, 4 / 127),
        content.get_hash(), found.alignment.count, found.alignment.reasons, found.measured,
        calibration, found.judgement,
    )  # fmt: skip
    signature = sign_statement(statement, bought.receipt, DOMAIN, AUDITOR)
    data = encode_evidence(document, statement, signature, content)
    rerun = replay(
        verify_evidence(data, verify_receipt_document),
        Auditor(ToyModel(noise=OWN_NOISE), ToyReader()),
    )
    assert not rerun.agrees
    assert rerun.judgement.verdict is Verdict.HONEST
    assert (rerun.distance_ppm or 0) > 500_000


def test_a_file_without_content_shows_the_verdict_and_cannot_be_rerun(
    calibration: Calibration,
) -> None:
    data = make_evidence(ToyModel(weights=2), calibration, with_content=False)
    assert b"What is it" not in data
    evidence = verify_evidence(data, verify_receipt_document)
    assert evidence.statement.judgement.verdict is Verdict.CHEAT
    with pytest.raises(RequestError, match="withheld"):
        replay(evidence, Auditor(ToyModel(), ToyReader()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "hanse-evidence-2"),
        ("statement.audited_at", AUDITED_AT + 1),
        ("statement.judgement.verdict", "honest"),
        ("statement.measured.misses.0", 5),
        ("statement.measured.fingerprints.0", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("statement.calibration.thresholds.0.limit_ppm", 1),
        ("statement.model.provider", "0x" + "00" * 20),
        ("statement.auditor", STRANGER.address),
        ("statement.software", "x"),
        ("content.path", "/v1/completions"),
        ("content.body", "e30="),
        ("content.response", "e30="),
        ("content.opening", "e30="),
        ("content.prompt_tokens", [1, 2]),
        ("receipt.receipt.fee", "0"),
        ("receipt.voucher.maximum_fee", "999"),
        ("signature", "0x"),
        ("surprise", 1),
    ],
)
def test_no_part_can_be_changed(cheat: bytes, path: str, value: Any) -> None:
    document = msgspec.json.decode(cheat)
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[int(last) if isinstance(place, list) else last] = value
    with pytest.raises(VerificationError):
        verify_evidence(msgspec.json.encode(document), verify_receipt_document)


def replace_judgement(statement: Statement, **fields: Any) -> Statement:
    judgement = msgspec.structs.replace(statement.judgement, **fields)
    return msgspec.structs.replace(statement, judgement=judgement)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: replace_judgement(s, verdict=Verdict.HONEST), "the auditor says honest"),
        (lambda s: replace_judgement(s, reasons=()), "the numbers give cheat"),
        (lambda s: replace_judgement(s, findings=()), "the numbers give cheat"),
        (lambda s: msgspec.structs.replace(s, known_tokens=1_000), "1000 known"),
        (lambda s: msgspec.structs.replace(s, known_tokens=39), "39 known"),
        (lambda s: msgspec.structs.replace(s, misfits=("text_differs",)), "give inconclusive"),
        (
            lambda s: msgspec.structs.replace(
                s, measured=msgspec.structs.replace(s.measured, fingerprints=(b"x",))
            ),
            "does not hold",
        ),
        (
            lambda s: msgspec.structs.replace(
                s, model=msgspec.structs.replace(s.model, manifest_root="0x" + "00" * 32)
            ),
            "offered was",
        ),
        (
            lambda s: msgspec.structs.replace(
                s, model=msgspec.structs.replace(s.model, provider=STRANGER.address)
            ),
            "bound to",
        ),
    ],
)
def test_a_signed_lie_that_the_file_contradicts_is_refused(
    calibration: Calibration, change: Callable[[Statement], Statement], said: str
) -> None:
    data = make_evidence(ToyModel(weights=2), calibration, change=change)
    with pytest.raises(VerificationError, match=said):
        verify_evidence(data, verify_receipt_document)


def make_lie(
    calibration: Calibration,
    *,
    usage: Usage | None = None,
    response: bytes | None = None,
    prompt: tuple[int, ...] | None = None,
    known: int | None = None,
    misfits: tuple[str, ...] = (),
    provider: str = OFFER.provider,
) -> bytes:
    """An auditor's file whose judgement follows from what it states, but what it states is false.

    Its numbers are of another model, so that without a misfit the provider looks like a cheat.
    """
    sold = sell(ToyModel(noise=SERVED_NOISE), 40, usage=usage, response=response)
    document = make_receipt_document(sold)
    bought, entries = sold.bought, tuple(sold.entries)
    reader = ToyReader()
    tokens = tuple(reader.get_prompt_tokens(bought.path, bought.body)) if prompt is None else prompt
    stated = Alignment(tokens, len(entries) if known is None else known, misfits)
    task = get_task(bought, entries[: stated.count], stated, 4 / 127)
    measured = measure(ToyModel(weights=3), task)
    judgement = judge_answer(bought, entries, stated, measured, calibration)
    content = Content(bought.path, bought.body, bought.response, sold.opening, tokens)
    statement = Statement(
        AUDITOR.address, AUDITED_AT, "hanse test",
        Model(MANIFEST, "0x" + "77" * 32, provider, 1, "0x" + "88" * 32, 4 / 127),
        content.get_hash(), stated.count, misfits, measured, calibration, judgement,
    )  # fmt: skip
    signature = sign_statement(statement, bought.receipt, DOMAIN, AUDITOR)
    return encode_evidence(document, statement, signature, content)


LONG_PROMPT = tuple([1] * 200)
PARSED = b'{"choices":[{"message":{"content":"","tool_calls":[{}]}}]}'


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"prompt": LONG_PROMPT}, "prompt_differs"),
        ({"usage": Usage(13, 0, 30)}, "count_differs"),
        ({"usage": Usage(12, 0, 40)}, "prompt_differs"),
        ({"response": PARSED}, "answer_parsed"),
        ({"known": 20}, "20 known"),
        ({"known": 3, "misfits": ("nothing_told",)}, "3 known"),
        ({"misfits": ("nothing_told",)}, "nothing_told"),
        ({"misfits": ("prompt_unreadable",)}, "prompt_unreadable"),
        ({"misfits": ("count_differs",)}, "count_differs"),
        ({"misfits": ("tail_unexplained",)}, "tail_unexplained"),
        ({"misfits": ("text_differs", "because"), "known": 20}, "because"),
        ({"provider": ""}, "no copy"),
    ],
)
def test_a_misfit_that_the_file_itself_shows_cannot_be_left_out_or_made_up(
    calibration: Calibration, lie: dict[str, Any], said: str
) -> None:
    """An honest provider looked like a cheat where an auditor kept silent of what did not fit."""
    with pytest.raises(VerificationError, match=said):
        verify_evidence(make_lie(calibration, **lie), verify_receipt_document)


def test_a_rerun_is_not_made_to_ask_for_any_context(cheat: bytes) -> None:
    """User and provider may be one, and sign for a prompt of millions of tokens."""
    document = msgspec.json.decode(cheat)
    evidence = verify_evidence(cheat, verify_receipt_document)
    assert evidence.content is not None
    long = (1,) * (PROMPT_TOKENS_MAX + 1)
    content = msgspec.structs.replace(evidence.content, prompt_tokens=long)
    statement = msgspec.structs.replace(evidence.statement, content_hash=content.get_hash())
    signature = sign_statement(statement, evidence.receipt.receipt, DOMAIN, AUDITOR)
    data = encode_evidence(document["receipt"], statement, signature, content)
    with pytest.raises(VerificationError, match="at most 131072"):
        verify_evidence(data, verify_receipt_document)


def test_a_text_that_differs_is_the_auditors_word(calibration: Calibration) -> None:
    """Where the tokens stop to spell the answer only a vocabulary can tell; it penalises nobody."""
    data = make_lie(calibration, known=20, misfits=("text_differs",))
    evidence = verify_evidence(data, verify_receipt_document)
    assert evidence.statement.judgement.verdict is Verdict.INCONCLUSIVE
    assert (
        "cheat"
        in verify_evidence(
            make_lie(calibration), verify_receipt_document
        ).statement.judgement.verdict
    )


def test_another_s_signature_is_refused(calibration: Calibration) -> None:
    data = make_evidence(ToyModel(weights=2), calibration, signer=STRANGER)
    with pytest.raises(VerificationError, match=STRANGER.address):
        verify_evidence(data, verify_receipt_document)


def test_limits() -> None:
    for wrong in (b"", b"{}", b"[" * 100_000, b"\xff", b" " * (FILE_BYTES_MAX + 1)):
        with pytest.raises(VerificationError, match="does not hold"):
            verify_evidence(wrong, verify_receipt_document)
