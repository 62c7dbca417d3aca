"""What a recorder's answer owes to the entries that were submitted, one part of it at a time."""

import pytest

from hanse.chain import Key
from hanse.protocol.eip712 import Domain
from hanse.protocol.limits import SUBMISSION_VALID_S_MAX
from hanse.protocol.records import Promise, PromiseKind, RecordEntry, Side, SignedPromise
from hanse.protocol.records.messages import hash_entries
from hanse.protocol.records.verify import verify_submission
from hanse.protocol.records.wire import entry_to_json, promise_to_json
from hanse.protocol.signatures import to_hex
from hanse.settlement.records.answers import (
    PROMISE_BLOCKS_MAX,
    PROOF_BLOCKS,
    Identity,
    read_answer,
)
from hanse.settlement.records.recorder_client import SubmissionAnswer
from hanse.settlement.records.submission_book import EntryAnswer, KnownRecorder
from hanse.settlement.records.watch import FaultError

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
RECORDER, OTHER, SIGNER = Key(b"\x05" * 32), Key(b"\x06" * 32), Key(b"\x01" * 32)
URL, BLOCK, NOW_S = "http://recorder.test", 100, 1_900_000_000
KNOWN = KnownRecorder(URL, RECORDER.address, 0, "0x" + "00" * 32, "", "", "", 0)
IDENTITY = Identity(Side.USER, SIGNER.address, SIGNER, DOMAIN)
ENTRIES = tuple(
    RecordEntry("0x" + "a1" * 20, "0x" + "b2" * 20, SIGNER.address, n, f"0x{n:064x}", 5)
    for n in range(1, 5)
)
STATES = (("waiting", "missing_at_provider"), ("matched", ""), ("committed", ""), ("refused", ""))
HELD, MATCHED = ENTRIES[:1], ENTRIES[1:2]


def promise(kind: PromiseKind, entries, block: int, key: Key = RECORDER) -> SignedPromise:
    made = Promise(RECORDER.address, kind, to_hex(hash_entries(entries)), block)
    return SignedPromise(made, key.sign_digest(DOMAIN.digest(made.struct_hash())))


def answer(held=None, matched=None, states=STATES) -> SubmissionAnswer:
    return SubmissionAnswer(RECORDER.address, states, held, matched)


def read(told: SubmissionAnswer):
    return read_answer(IDENTITY, KNOWN, ENTRIES[: len(told.entries)], told, BLOCK)


def test_what_is_signed_is_for_this_recorder_and_a_minute():
    signed = IDENTITY.sign(RECORDER.address, ENTRIES, NOW_S)
    assert (signed.party, signed.submission.side) == (SIGNER.address, Side.USER)
    assert signed.submission.entries == ENTRIES
    assert signed.submission.deadline == NOW_S + SUBMISSION_VALID_S_MAX // 2
    assert verify_submission(signed, DOMAIN, RECORDER.address, NOW_S) == SIGNER.address


def test_every_state_becomes_one_of_ours():
    held = promise(PromiseKind.HELD, HELD, 90)
    matched = promise(PromiseKind.MATCHED, MATCHED, 140)
    answers, promises = read(answer(held, matched))
    assert answers == [
        EntryAnswer(ENTRIES[0], "waiting", "missing_at_provider", 0),
        EntryAnswer(ENTRIES[1], "matched", "", 140),
        EntryAnswer(ENTRIES[2], "matched", "", BLOCK + PROOF_BLOCKS),
        EntryAnswer(ENTRIES[3], "waiting", "refused", 0),
    ]
    assert promises == [(held, list(HELD)), (matched, list(MATCHED))]


@pytest.mark.parametrize(
    ("states", "kinds"),
    [
        ((("waiting", "x"),), ["held"]),
        ((("matched", ""),), ["matched"]),
        ((("committed", ""),), []),
        ((("refused", "over_share"),), []),
    ],
)
def test_a_promise_is_owed_for_what_waits_and_for_what_is_matched(states, kinds):
    given = {
        "held": promise(PromiseKind.HELD, ENTRIES[:1], 90),
        "matched": promise(PromiseKind.MATCHED, ENTRIES[:1], 140),
    }
    answers, promises = read(answer(states=states, **{kind: given[kind] for kind in kinds}))
    assert [promise for promise, _ in promises] == [given[kind] for kind in kinds]
    assert answers[0].reason == (states[0][1] if answers[0].state == "waiting" else "")
    for kind in kinds:
        with pytest.raises(FaultError) as caught:
            read(answer(states=states))
        assert (caught.value.fault, caught.value.message) == (
            "lie",
            f"recorder {URL} promises nothing",
        )
        assert caught.value.evidence == {
            "recorder": RECORDER.address,
            "entries": [entry_to_json(ENTRIES[0])],
            "promise": None,
        }
        wrong = promise(PromiseKind[kind.upper()], ENTRIES[:1], 90, OTHER)
        with pytest.raises(FaultError) as caught:
            read(answer(states=states, **{kind: wrong}))
        assert caught.value.fault == "lie"
        assert caught.value.message.startswith(f"{URL}: ")
        assert RECORDER.address in caught.value.message
        assert caught.value.evidence["promise"] == promise_to_json(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        promise(PromiseKind.MATCHED, ENTRIES[:2], 140),
        promise(PromiseKind.HELD, MATCHED, 140),
    ],
)
def test_a_promise_about_something_else_is_a_lie(wrong):
    states = (("refused", ""), ("matched", ""))
    with pytest.raises(FaultError) as caught:
        read(answer(matched=wrong, states=states))
    assert caught.value.fault == "lie"
    assert (caught.value.code, caught.value.details) == ("recorder_dishonest", {"fault": "lie"})
    assert caught.value.evidence["entries"] == [entry_to_json(ENTRIES[1])]


def test_a_promise_is_for_a_day_of_blocks_at_most():
    states = (("matched", ""),)
    last = BLOCK + PROMISE_BLOCKS_MAX
    answers, _ = read(
        answer(matched=promise(PromiseKind.MATCHED, ENTRIES[:1], last), states=states)
    )
    assert answers[0].commit_by == last
    far = promise(PromiseKind.MATCHED, ENTRIES[:1], last + 1)
    with pytest.raises(FaultError) as caught:
        read(answer(matched=far, states=states))
    assert (caught.value.fault, caught.value.message) == (
        "stall",
        f"recorder {URL} promises block {last + 1}, more than {PROMISE_BLOCKS_MAX} after {BLOCK}",
    )
    assert caught.value.evidence == {
        "recorder": RECORDER.address,
        "entries": [entry_to_json(ENTRIES[0])],
        "promise": promise_to_json(far),
    }


def test_an_answer_of_another_length_is_no_answer():
    with pytest.raises(ValueError, match="zip"):
        read_answer(IDENTITY, KNOWN, ENTRIES, answer(states=STATES[:3]), BLOCK)
