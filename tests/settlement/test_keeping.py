"""Answers kept until they are drawn: bounded, private, encrypted, and never in a request's way."""

import os
import stat

import pytest

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.signatures import ZERO_HASH
from hanse.settlement.keeping.keeper import AnswerKeeper, Both
from hanse.settlement.keeping.kept_answers import KEPT_S, PART_S, KeptAnswers, KeptLimits
from hanse.settlement.traces.document import Side, Trace
from tests.protocol.made_messages import make_offer, make_receipt
from tests.settlement.trace_parts import BODY, PATH, PROMPT, RESPONSE, make_request

COMMITTED = "0x" + "c0" * 32


def make_trace(number: int = 1) -> Trace:
    voucher, receipt = make_request(number)
    return Trace(Side.USER, voucher.request, receipt, PATH, BODY, RESPONSE)


def test_what_one_process_keeps_another_reads_and_removes(tmp_path):
    folder = tmp_path / "audits" / "kept"
    traces = [make_trace(1), make_trace(2)]
    gateway, auditor = KeptAnswers(folder), KeptAnswers(folder)
    assert auditor.list_names() == []
    for trace in traces:
        assert gateway.add(trace)
    names = [trace.request.request_id for trace in traces]
    assert auditor.list_names() == names, "oldest first"
    assert [auditor.read(name) for name in names] == traces
    auditor.remove(names[0])
    auditor.remove(names[0])
    assert gateway.list_names() == names[1:]
    with pytest.raises(RequestError, match="no answer"):
        gateway.read(names[0])


def test_files_are_the_owners_alone_and_hold_no_plain_text(tmp_path):
    folder = tmp_path / "kept"
    KeptAnswers(folder).add(make_trace())
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert PROMPT not in path.read_bytes()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_damaged_file_is_refused(tmp_path):
    kept = KeptAnswers(tmp_path)
    trace = make_trace()
    kept.add(trace)
    (path,) = tmp_path.glob("*.kept")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VerificationError, match="damaged"):
        kept.read(trace.request.request_id)


@pytest.mark.parametrize("limits", [KeptLimits(answers_max=2), KeptLimits(bytes_max=4_000)])
def test_the_folder_is_bounded_and_has_room_again_once_it_was_emptied(tmp_path, limits):
    kept = KeptAnswers(tmp_path, limits)
    assert [kept.add(make_trace(number)) for number in range(4)] == [True, True, False, False]
    kept.remove(make_trace(0).request.request_id)
    assert kept.add(make_trace(3))


def test_what_waited_too_long_and_what_a_crash_left_is_forgotten(tmp_path):
    now = [os.stat(tmp_path).st_mtime]
    kept = KeptAnswers(tmp_path, now_s=lambda: now[0])
    kept.add(make_trace())
    (tmp_path / ".part-0x12").write_bytes(b"half")
    now[0] += PART_S + 60
    assert len(kept.list_names()) == 1
    assert not list(tmp_path.glob(".part-*"))
    now[0] += KEPT_S
    assert kept.list_names() == []
    assert not list(tmp_path.glob("*.kept"))


@pytest.mark.asyncio
async def test_only_answers_whose_offer_and_receipt_commit_are_kept(tmp_path):
    keeper = AnswerKeeper(KeptAnswers(tmp_path))
    voucher, _ = make_request()
    plain, committing = make_offer(), make_offer(verifiability="embedded")
    assert keeper.begin(plain, voucher, PATH, BODY) is None
    async with keeper:
        for root in (ZERO_HASH, COMMITTED):
            capture = keeper.begin(committing, voucher, PATH, BODY)
            capture.add(RESPONSE[:10])
            capture.add(RESPONSE[10:])
            capture.end(make_receipt(voucher, commitment_root=root))
        capture = keeper.begin(committing, voucher, PATH, BODY)
        capture.add(RESPONSE)
        capture.close()  # it broke off
    assert (keeper.kept, dict(keeper.dropped)) == (1, {"uncommitted": 1})
    (name,) = KeptAnswers(tmp_path).list_names()
    kept = KeptAnswers(tmp_path).read(name)
    assert (kept.body, kept.response) == (BODY, RESPONSE)
    assert keeper.reserve(64 * 1024 * 1024), "everything that was held is given back"


@pytest.mark.asyncio
async def test_nothing_that_fails_reaches_the_answer(tmp_path):
    voucher, _ = make_request()
    offer = make_offer(verifiability="embedded")
    receipt = make_receipt(voucher, commitment_root=COMMITTED)
    blocked = tmp_path / "a-file"
    blocked.write_bytes(b"")
    async with AnswerKeeper(KeptAnswers(blocked / "kept")) as keeper:
        capture = keeper.begin(offer, voucher, PATH, BODY)
        capture.end(receipt)
    assert keeper.dropped["store_unavailable"] == 1
    async with AnswerKeeper(KeptAnswers(tmp_path, KeptLimits(answers_max=0))) as keeper:
        keeper.begin(offer, voucher, PATH, BODY).end(receipt)
    assert keeper.dropped["folder_full"] == 1
    small = AnswerKeeper(KeptAnswers(tmp_path), captured_bytes_max=len(BODY))
    capture = small.begin(offer, voucher, PATH, BODY)
    assert small.begin(offer, voucher, PATH, BODY) is None, "two at once are too much"
    capture.add(RESPONSE)
    assert small.reserve(len(BODY)), "one that grew too large is let go of at once"
    capture.end(receipt)
    assert small.kept == 0


def test_a_trace_and_a_kept_answer_see_the_same_bytes():
    class Seen:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def add(self, data: bytes) -> None:
            self.calls.append(data)

        def end(self, receipt: object) -> None:
            self.calls.append(receipt)

        def close(self) -> None:
            self.calls.append("closed")

    _, receipt = make_request()
    first, second = Seen(), Seen()
    both = Both(first, second)
    both.add(b"1")
    both.end(receipt)
    both.close()
    assert first.calls == second.calls == [b"1", receipt, "closed"]
