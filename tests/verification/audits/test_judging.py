"""Verdicts: who is found, who is not, and that nobody is punished for what proves nothing."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hanse.protocol.commitments.fingerprints import ABSENT
from hanse.protocol.commitments.seeds import get_request_seed
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.messages import Usage
from hanse.protocol.signatures import ZERO_HASH
from hanse.verification.audits.alignment import TAIL_TOKENS_MAX
from hanse.verification.audits.answers import Auditor, open_commitment
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.judging import REASONS, Judgement, Verdict
from hanse.verification.audits.measuring import Task, measure
from tests.verification.audits.bought_answers import (
    MANIFEST,
    PATH,
    PROVIDER,
    SERVED_NOISE,
    audit,
    calibrate,
    make_auditor,
    make_body,
    make_response,
    sell,
)
from tests.verification.audits.toy_model import GREEDY, PLAIN, ToyModel, ToyReader

HONEST = ToyModel(noise=SERVED_NOISE)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate()


def test_honest_answers_are_honest(calibration: Calibration) -> None:
    for number in range(2, 42):
        judgement = audit(sell(HONEST, number=number), calibration).judgement
        assert judgement.verdict is Verdict.HONEST, judgement
        assert judgement.reasons == ()
        assert {one.statistic for one in judgement.findings} >= {"fingerprint/4", "sampling"}


@pytest.mark.parametrize("damage", [0.15, 0.5])
def test_a_coarser_model_is_a_cheat(calibration: Calibration, damage: float) -> None:
    judgement = audit(sell(ToyModel(damage=damage)), calibration).judgement
    assert judgement.verdict is Verdict.CHEAT
    assert judgement.reasons[0] == "fingerprint_differs"
    assert "fingerprint" in judgement.detected


@pytest.mark.parametrize(
    ("share", "verdict", "reason"),
    [
        (1.5, Verdict.INCONCLUSIVE, "fingerprint_doubtful"),
        (2.5, Verdict.CHEAT, "fingerprint_differs"),
    ],
)
def test_what_honest_answers_might_be_is_never_punished(
    calibration: Calibration, share: float, verdict: Verdict, reason: str
) -> None:
    """The same answer under thresholds that it is above, by less and by more than twice."""
    sold = sell(HONEST)
    worst = {one.statistic: one.value_ppm for one in audit(sold, calibration).judgement.findings}
    strict = msgspec.structs.replace(
        calibration,
        thresholds=tuple(
            msgspec.structs.replace(one, limit_ppm=int(worst[one.statistic] / share))
            if one.statistic.startswith("fingerprint") and one.statistic in worst
            else one
            for one in calibration.thresholds
        ),
    )
    judgement = audit(sold, strict).judgement
    assert (judgement.verdict, judgement.reasons) == (verdict, (reason,))
    assert judgement.detected == ("fingerprint",)


def test_another_copy_is_a_cheat_within_four_tokens(calibration: Calibration) -> None:
    sold = sell(ToyModel(weights=2), 4)
    judgement = audit(sold, calibration).judgement
    assert judgement.verdict is Verdict.CHEAT
    (finding,) = judgement.findings
    assert finding.value_ppm > 3 * finding.limit_ppm


def test_a_swap_in_the_middle_of_a_long_answer_does_not_drown(calibration: Calibration) -> None:
    honest = sell(HONEST, 400)
    prompt = ToyReader().get_prompt_tokens(PATH, honest.bought.body)
    tokens = [entry.token for entry in honest.entries]
    other = ToyModel(damage=0.5).fingerprint(prompt, tokens)
    entries = honest.entries[:200] + other[200:216] + honest.entries[216:]
    judgement = audit(sell(HONEST, entries=entries), calibration).judgement
    assert judgement.verdict is Verdict.CHEAT


def test_a_dropped_system_prompt_is_a_cheat(calibration: Calibration) -> None:
    asked = make_body("Be brief. What is it?")
    judgement = audit(
        sell(HONEST, body=asked, served_prompt=make_body("What is it?")), calibration
    ).judgement
    assert judgement.verdict is Verdict.CHEAT


def test_cheap_text_behind_a_full_prefill_is_seen_and_not_punished(
    calibration: Calibration,
) -> None:
    sold = sell(HONEST)
    prompt = ToyReader().get_prompt_tokens(PATH, sold.bought.body)
    seed = get_request_seed(None, sold.bought.request.request_id, PROVIDER)
    cheap = [entry.token for entry in ToyModel(weights=2).generate(prompt, 80, PLAIN, seed)]
    forged = sell(HONEST, entries=HONEST.fingerprint(prompt, cheap))
    judgement = audit(forged, calibration).judgement
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reasons == ("sampling_differs",)
    assert judgement.detected == ("sampling",)


def test_a_greedy_answer_by_another_model_is_seen(calibration: Calibration) -> None:
    body = make_body(temperature=0)
    assert audit(sell(HONEST, body=body), calibration).judgement.verdict is Verdict.HONEST
    prompt = ToyReader().get_prompt_tokens(PATH, body)
    cheap = [entry.token for entry in ToyModel(weights=2).generate(prompt, 80, GREEDY, 0)]
    forged = sell(HONEST, body=body, entries=HONEST.fingerprint(prompt, cheap))
    assert audit(forged, calibration).judgement.reasons == ("sampling_differs",)


def test_the_seed_is_the_caller_s_where_it_names_one(calibration: Calibration) -> None:
    body = make_body(seed=7)
    assert audit(sell(HONEST, body=body), calibration).judgement.verdict is Verdict.HONEST
    tokens = sell(HONEST, body=make_body(seed=8)).entries
    judgement = audit(sell(HONEST, body=body, entries=tokens), calibration).judgement
    assert judgement.reasons == ("sampling_differs",)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("text_differs", {"text": "Z" * 80}),
        ("count_differs", {"usage": Usage(11 + 2, 0, 79)}),
        ("prompt_differs", {"usage": Usage(5, 0, 80)}),
        ("answer_parsed", {"response": b"not json"}),
        (
            "answer_parsed",
            {"response": b'{"choices":[{"message":{"tool_calls":[{"type":"function"}]}}]}'},
        ),
        ("prompt_unreadable", {"body": make_body(messages=[{"role": "user"}])}),
    ],
)
def test_a_sequence_that_does_not_fit_is_never_punished(
    calibration: Calibration, reason: str, changes: dict[str, object]
) -> None:
    cheat = ToyModel(weights=2)
    if reason == "prompt_unreadable":
        entries = sell(cheat).entries
        body = b'{"model":"toy","prompt":"x"}'
        sold = sell(cheat)
        bought = msgspec.structs.replace(sold.bought, body=body)
        sold.bought, sold.entries = bought, entries
    else:
        sold = sell(cheat, **changes)  # type: ignore[arg-type]
    judgement = audit(sold, calibration).judgement
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert reason in judgement.reasons


def test_a_bill_above_its_commitment_is_a_cheat_whatever_was_run(
    calibration: Calibration,
) -> None:
    """Both numbers are signed, so neither threshold nor calibration nor model has a say."""
    conditions = msgspec.structs.replace(calibration.conditions, manifest_root=ZERO_HASH)
    other = msgspec.structs.replace(calibration, conditions=conditions)
    for known in (calibration, other):
        judgement = audit(sell(HONEST, usage=Usage(13, 0, 81)), known).judgement
        assert judgement.verdict is Verdict.CHEAT
        assert judgement.reasons[0] == "overbilled"
    fewer = audit(sell(HONEST, usage=Usage(13, 0, 79)), calibration).judgement
    assert fewer.verdict is Verdict.INCONCLUSIVE
    sold = sell(HONEST, usage=Usage(13, 0, 81))
    bought = sold.bought
    for change in (
        {"offer": msgspec.structs.replace(bought.offer, verifiability="sampled")},
        {
            "receipt": msgspec.structs.replace(
                bought.receipt, receipt=msgspec.structs.replace(bought.receipt.receipt, fee=0)
            )
        },
    ):
        sold.bought = msgspec.structs.replace(bought, **change)
        judgement = audit(sold, calibration).judgement
        assert "overbilled" not in judgement.reasons
        assert judgement.verdict is Verdict.INCONCLUSIVE


def test_another_calibration_says_nothing(calibration: Calibration) -> None:
    sold = sell(ToyModel(weights=2))
    conditions = calibration.conditions
    for change, reason in (
        ({"manifest_root": "0x" + "00" * 32}, "other_model"),
        ({"audited_by": "torch"}, "other_runtime"),
        ({"served_by": "vllm 1"}, "other_runtime"),
    ):
        other = msgspec.structs.replace(
            calibration, conditions=msgspec.structs.replace(conditions, **change)
        )
        judgement = audit(sold, other).judgement
        assert judgement.verdict is Verdict.INCONCLUSIVE
        assert reason in judgement.reasons


def test_of_a_longer_answer_no_more_is_audited_than_was_calibrated(
    calibration: Calibration,
) -> None:
    conditions = msgspec.structs.replace(calibration.conditions, answer_tokens=20)
    short = msgspec.structs.replace(calibration, conditions=conditions)
    found = audit(sell(HONEST, 80), short)
    assert found.measured is not None
    assert len(found.measured.misses) == 20
    assert {one.statistic for one in found.judgement.findings} == {
        "fingerprint/4", "fingerprint/16", "sampling"
    }  # fmt: skip


def test_without_a_threshold_nothing_is_judged(calibration: Calibration) -> None:
    kept = tuple(one for one in calibration.thresholds if one.statistic == "sampling")
    bare = msgspec.structs.replace(calibration, thresholds=kept)
    assert audit(sell(HONEST), bare).judgement.reasons == ("not_calibrated",)


def test_an_audit_ends_before_an_unknown_token(calibration: Calibration) -> None:
    sold = sell(HONEST)
    entries = sold.entries[:40] + [Entry(UNKNOWN_TOKEN, ABSENT)] + sold.entries[41:]
    partly = sell(HONEST, entries=entries)
    found = audit(partly, calibration)
    assert found.judgement.verdict is Verdict.HONEST
    assert found.measured is not None
    assert len(found.measured.misses) == 40
    nothing = sell(HONEST, entries=[Entry(UNKNOWN_TOKEN, ABSENT)] * 20, text="AAAA")
    judgement = audit(nothing, calibration).judgement
    assert "nothing_told" in judgement.reasons
    assert judgement.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    "hide",
    [
        lambda at, one: Entry(UNKNOWN_TOKEN, ABSENT),
        lambda at, one: Entry(one.token, ABSENT),
        lambda at, one: one if at < 3 else Entry(one.token, ABSENT),
        lambda at, one: one if at != 3 else Entry(UNKNOWN_TOKEN, ABSENT),
        lambda at, one: Entry(UNKNOWN_TOKEN, ABSENT) if at == 0 else Entry(one.token, b"x" * 16),
    ],
)
def test_a_commitment_that_tells_nothing_counts_in_the_record(
    calibration: Calibration, hide: Callable[[int, Entry], Entry]
) -> None:
    """What whoever has no copy would commit to: never a cheat, and no clean slate either."""
    whole = sell(ToyModel(weights=2), 80)
    text = ToyReader().get_text([one.token for one in whole.entries]).decode()
    hidden = [hide(at, one) for at, one in enumerate(whole.entries)]
    judgement = audit(sell(ToyModel(weights=2), entries=hidden, text=text), calibration).judgement
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "little_told" in judgement.reasons
    short = audit(sell(HONEST, entries=hidden[:63], text=text[:63]), calibration).judgement
    assert "little_told" not in short.reasons
    body = make_body("Q", response_format={"type": "json_object"})
    fenced = audit(sell(HONEST, body=body, entries=hidden, text=text), calibration).judgement
    assert "little_told" not in fenced.reasons


def test_a_bill_padded_behind_the_whole_text_is_doubted(calibration: Calibration) -> None:
    """What it states, bills and commits to agree; but no text takes so many tokens more."""
    sold = sell(HONEST)
    text = ToyReader().get_text([entry.token for entry in sold.entries]).decode()

    def pad(unknown: int, served: str = text, **fields: Any) -> Judgement:
        entries = sold.entries + [Entry(UNKNOWN_TOKEN, ABSENT)] * unknown
        body = make_body("What is it? 1", **fields)
        return audit(sell(HONEST, body=body, entries=entries, text=served), calibration).judgement

    for unknown in (1, TAIL_TOKENS_MAX):
        assert pad(unknown).verdict is Verdict.HONEST
    padded = pad(TAIL_TOKENS_MAX + 9)
    assert (padded.verdict, padded.reasons) == (Verdict.INCONCLUSIVE, ("tail_unexplained",))
    stop = "x" * 40  # may have been written and cut off
    assert pad(TAIL_TOKENS_MAX + 9, stop=stop).verdict is Verdict.HONEST
    assert pad(TAIL_TOKENS_MAX + 49, stop=stop).reasons == ("tail_unexplained",)
    assert pad(200, text + "and more").verdict is Verdict.HONEST, "they may be this text's"
    cheap = ToyModel(weights=2).generate(
        ToyReader().get_prompt_tokens(PATH, make_body("What is it? 1")), 80, PLAIN, 1
    )
    swapped = sell(HONEST, entries=[*cheap, *[Entry(UNKNOWN_TOKEN, ABSENT)] * 200])
    judgement = audit(swapped, calibration).judgement
    assert judgement.verdict is Verdict.CHEAT, "padding buys nobody an inconclusive audit"
    assert "tail_unexplained" in judgement.reasons


def test_positions_without_a_fingerprint_are_passed_over(calibration: Calibration) -> None:
    sold = sell(HONEST)
    entries = [Entry(one.token, ABSENT if at % 5 == 0 else one.fingerprint)
               for at, one in enumerate(sold.entries)]  # fmt: skip
    assert audit(sell(HONEST, entries=entries), calibration).judgement.verdict is Verdict.HONEST
    none = [Entry(one.token, ABSENT) for one in sold.entries]
    judgement = audit(sell(HONEST, entries=none), calibration).judgement
    assert judgement.reasons == ("fingerprint_not_covered", "little_told")


def test_every_reason_is_explained() -> None:
    assert all(REASONS.values())
    assert MANIFEST != ZERO_HASH


def test_what_was_signed_is_held_to_first() -> None:
    sold = sell(HONEST, 8)
    assert open_commitment(sold.bought, sold.opening) == tuple(sold.entries)
    other = sell(HONEST, 8, number=9)
    with pytest.raises(VerificationError, match="the receipt's"):
        open_commitment(sold.bought, other.opening)
    for change, code in (
        ({"body": b"{}"}, "evidence_invalid"),
        ({"request": other.bought.request}, "evidence_invalid"),
        ({"response": make_response("other")}, "response_mismatch"),
    ):
        with pytest.raises(VerificationError) as refused:
            open_commitment(msgspec.structs.replace(sold.bought, **change), sold.opening)
        assert refused.value.code == code
    with pytest.raises(RequestError, match="has no commitment"):
        open_commitment(sell(HONEST, 0).bought, b"")


def test_a_prefill_that_gives_nonsense_is_refused() -> None:
    class Broken(ToyModel):
        def score(self, prompt_tokens, answer_tokens):  # type: ignore[no-untyped-def]
            scores = super().score(prompt_tokens, answer_tokens)
            scores.logits[0, 0] = float("nan")
            return scores

    for model, tokens in ((ToyModel(), ()), (_Lenient(), (1, 64)), (Broken(), (1, 2))):
        with pytest.raises(RequestError) as refused:
            measure(model, Task((1, 2), tokens, PLAIN, 1))
        assert refused.value.code == "unprocessable"


class _Lenient(ToyModel):
    """Takes any token, as a runtime might that wraps them around."""

    def score(self, prompt_tokens, answer_tokens):  # type: ignore[no-untyped-def]
        return super().score(prompt_tokens, [token % 64 for token in answer_tokens])


def test_an_auditor_with_the_plain_model_sees_sampling_only(calibration: Calibration) -> None:
    class Plain(ToyModel):
        def score(self, prompt_tokens, answer_tokens):  # type: ignore[no-untyped-def]
            scores = super().score(prompt_tokens, answer_tokens)
            scores.canaries = scores.canaries[:, :0]
            return scores

    plain = Auditor(Plain(noise=0.01), ToyReader())
    judgement = audit(sell(ToyModel(weights=2)), calibration, plain).judgement
    assert judgement.reasons == ("sampling_differs", "fingerprint_not_covered")
    assert make_auditor().prefill.runtime == "toy 1"
