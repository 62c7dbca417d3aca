"""A running vLLM over a tiny copy: what only the real one can show.

It takes minutes to start and 3.5 GB to install, so it runs where it is asked for:
`make test-vllm` installs vLLM into an environment of its own and sets HANSE_VLLM.
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from benchmarks.vllm_side import Vllm, find_python, run_vllm
from hanse.engines import Engine, EngineRequest
from hanse.engines.proving.prefill_torch import TorchPrefill
from hanse.models.copies import CopyOrder
from hanse.models.copies.folders import rebase_folder
from hanse.models.copies.rebasing import get_description_path
from hanse.protocol.commitments.fingerprints import get_error, quantise
from hanse.protocol.commitments.tree import Entry
from tests.engines.conftest import UPSTREAM_MODEL, open_upstream
from tests.engines.test_contract import collect, make_chat, make_completion
from tests.models.tiny_models import VOCABULARY, write_tiny_folder

pytestmark = [
    pytest.mark.skipif(not os.environ.get("HANSE_VLLM"), reason="HANSE_VLLM is not set"),
    pytest.mark.skipif(find_python() is None, reason="no vLLM: make test-vllm installs it"),
    pytest.mark.asyncio(loop_scope="module"),
]

ORDER = CopyOrder(bytes(range(32)), "0x" + "11" * 32, "0x" + "aa" * 20)
END = {"1": -100}
"""No end of the text."""

TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of heads of 64, the least that vLLM's attention takes on processors."""
    folder = tmp_path_factory.mktemp("vllm")
    base = write_tiny_folder(folder / "base", hidden_size=256, intermediate_size=256)
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": TEMPLATE}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    rebase_folder(base, folder / "copy", ORDER, "F32")
    return folder / "copy"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vllm(copy: Path) -> AsyncIterator[Vllm]:
    async with run_vllm(copy, "float32", context_tokens=512, name=UPSTREAM_MODEL) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(vllm: Vllm, copy: Path) -> AsyncIterator[Engine]:
    description = str(get_description_path(copy))
    key = copy.parent / "key"
    opened = open_upstream(
        vllm.url, key, continuous_usage=True, choices_max=2, copy_description=description
    )
    await opened.start()
    yield opened
    await opened.close()


async def prove(engine: Engine, request: EngineRequest) -> list[Entry]:
    chunks = await collect(engine, request)
    entries = [entry for chunk in chunks for entry in chunk.proof]
    assert len(entries) == chunks[-1].usage.output_tokens
    return entries


async def test_fingerprints_are_those_of_a_prefill(engine: Engine, copy: Path) -> None:
    prompt = [5, 17, 200, 33, 8, 301, 77]
    request = make_completion(max_tokens=40, temperature=1.0, logit_bias=END)
    request.body["prompt"] = prompt
    entries = await prove(engine, request)
    scores = TorchPrefill(copy, threads=1).score(prompt, [entry.token for entry in entries])
    errors = [
        get_error(entry.fingerprint, quantise(row.tolist()))
        for entry, row in zip(entries, scores.canaries, strict=True)
    ]
    assert len(errors) == 40
    assert max(errors) < 0.02
    unrelated = [
        get_error(entry.fingerprint, quantise(row.tolist()))
        for entry, row in zip(entries, np.roll(scores.canaries, 1, axis=0), strict=True)
    ]
    assert min(unrelated) > 0.1


async def test_no_canary_comes_out_however_hot(engine: Engine) -> None:
    request = make_completion(max_tokens=400, temperature=2.0, logit_bias=END)
    entries = await prove(engine, request)
    assert len({entry.token for entry in entries}) > 100
    assert max(entry.token for entry in entries) < VOCABULARY


async def test_one_seed_gives_one_answer_and_others_others(engine: Engine) -> None:
    first, again, other = [
        [
            entry.token
            for entry in await prove(engine, make_chat(max_tokens=30, seed=seed, temperature=1.0))
        ]
        for seed in (5, 5, 6)
    ]
    assert first == again != other


async def test_two_answers_are_committed_to_together(engine: Engine) -> None:
    entries = await prove(engine, make_chat(max_tokens=6, n=2, logit_bias=END))
    assert len(entries) == 12
