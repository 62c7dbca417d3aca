"""Honest noise measured: what counts, what is left out, and what a calibration then says."""

from pathlib import Path

import msgspec
import pytest

from hanse.auditor.calibrating.noise import Rescored, Sample, Upstream, calibrate, rescore, take
from hanse.auditor.calibrating.serving import Served
from hanse.auditor.opened_model import OpenedModel
from hanse.protocol.commitments.seeds import get_request_seed
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Usage
from tests.verification.audits.bought_answers import (
    MANIFEST,
    PROVIDER,
    SERVED_NOISE,
    make_auditor,
    sell,
)
from tests.verification.audits.toy_model import ToyModel

MODEL = OpenedModel(make_auditor(), Path("toy.gguf"), None)


def serve(number: int, cached_tokens: int = 0, text: str | None = None) -> Served:
    """What the engine would have given for one question of the toy."""
    sold = sell(ToyModel(noise=SERVED_NOISE), 20, number, text=text)
    bought = sold.bought
    usage = bought.receipt.receipt.usage
    seed = get_request_seed(None, bought.request.request_id, PROVIDER)
    metered = Usage(usage.input_tokens - cached_tokens, cached_tokens, usage.output_tokens)
    return Served(
        "chat", bought.path, bought.body, bought.response, tuple(sold.entries), metered, seed
    )


def test_honest_answers_are_counted_with_what_they_were_made_under() -> None:
    sample = Sample()
    for number in range(60):
        served = serve(number, cached_tokens=number % 2)
        take(sample, served, rescore(served, MODEL))
    assert len(sample.statistics) == 60
    assert (sample.tokens, sample.longest_answer) == (1_200, 20)
    assert sample.labels == {"chat", "cache"}
    made = calibrate(sample, MODEL, MANIFEST, "Q8_0", 0.95, 0.95)
    assert made.conditions.served_by.startswith("llama xllamacpp-")
    assert made.conditions.answer_tokens == 20
    assert {one.statistic for one in made.thresholds} == {
        "fingerprint/4", "fingerprint/16", "sampling"
    }  # fmt: skip
    with pytest.raises(RequestError, match="measure 299"):
        calibrate(sample, MODEL, MANIFEST, "Q8_0", 0.99, 0.95)


def test_what_another_server_served_has_no_thresholds_of_draws() -> None:
    sample = Sample()
    for number in range(60):
        served = serve(number)
        take(sample, served, rescore(served, MODEL))
    vllm = Upstream("http://127.0.0.1:8000/v1", "m", Path("copy.copy.json"), "vllm 0.32.0 cpu")
    made = calibrate(sample, MODEL, MANIFEST, "BF16", 0.95, 0.95, vllm)
    assert made.conditions.served_by == "upstream vllm 0.32.0 cpu"
    assert {one.statistic for one in made.thresholds} == {"fingerprint/4", "fingerprint/16"}


def test_what_an_audit_would_not_judge_is_left_out_by_its_reason() -> None:
    sample = Sample()
    served = serve(1, text="another text")
    found = rescore(served, MODEL)
    assert not isinstance(found, Rescored)
    take(sample, served, found)
    assert sample.misfits == {"text_differs": 1}
    assert sample.statistics == []
    with pytest.raises(RequestError, match=r"measure 59\. .* left out: 1 text_differs"):
        calibrate(sample, MODEL, MANIFEST, "Q8_0", 0.95, 0.95)
    untold = msgspec.structs.replace(served.entries[0], token=2**32 - 1)
    empty = Served(
        served.kind, served.path, served.body, serve(1).response, (untold,), served.usage, 1
    )
    assert "nothing_told" in rescore(empty, MODEL)  # type: ignore[operator]
