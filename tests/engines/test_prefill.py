"""An auditor's prefill and reader against what an engine served."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hanse.engines import EngineRequest
from hanse.engines.llama_engine import LlamaEngine
from hanse.engines.proving.prefill_gguf import STEP_TOKENS, GgufPrefill
from hanse.engines.proving.prefill_torch import TorchPrefill
from hanse.engines.proving.reader_gguf import GgufReader
from hanse.engines.proving.weights import load_weights
from hanse.models.converting import convert_folder
from hanse.models.copies import CopyOrder, rebase
from hanse.models.copies.architectures import SourceModel
from hanse.models.copies.canaries import draw_canaries
from hanse.models.copies.folders import rebase_folder
from hanse.protocol.commitments.fingerprints import ABSENT, get_error, quantise
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.errors import RequestError
from tests.engines.conftest import open_llama
from tests.engines.test_contract import collect, make_chat, make_completion
from tests.engines.test_proof import get_proof
from tests.engines.tiny_copy import CANARIES, LIFT, make_copy
from tests.models.tiny_models import write_tiny_folder

# Weights made by chance would write halves of characters without end, of which little is told.
PLAIN = {str(3 + byte): -100 for byte in range(128, 256)}
ANSWERS = [
    make_chat("What is a tide?", max_tokens=40, temperature=0, logit_bias=PLAIN),
    make_completion(max_tokens=40, seed=4, logit_bias=PLAIN),
    # what another provider has begun: the server goes on in the same turn
    make_chat(
        max_tokens=40, seed=4, logit_bias=PLAIN,
        messages=[{"role": "user", "content": "What is a tide?"},
                  {"role": "assistant", "content": " It is"}],
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prefill")
    make_copy(path / "copy.gguf")
    make_copy(path / "other.gguf", seed=2)
    return path


@pytest.fixture(scope="module")
def gguf(folder: Path) -> GgufPrefill:
    return GgufPrefill(folder / "copy.gguf", context_tokens=1_024, threads=1)


@pytest.fixture(scope="module")
def torch_prefill(folder: Path) -> TorchPrefill:
    return TorchPrefill(folder / "copy.gguf", context_tokens=1_024, threads=1)


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_what_was_served_is_what_a_prefill_gives(
    folder: Path, gguf: GgufPrefill, torch_prefill: TorchPrefill
) -> None:
    engine = open_llama(model_path=str(folder / "copy.gguf"), context_tokens=512)
    other = GgufPrefill(folder / "other.gguf", context_tokens=512, threads=1)
    await engine.start()
    try:
        for request in ANSWERS:
            await check_served(engine, request, (gguf, torch_prefill), other)
    finally:
        await engine.close()
        other.close()


async def check_served(
    engine: LlamaEngine,
    request: EngineRequest,
    honest: tuple[GgufPrefill, TorchPrefill],
    other: GgufPrefill,
) -> None:
    reader = GgufReader(honest[0].model)
    chunks = await collect(engine, request)
    body = msgspec.json.encode(request.body)
    prompt = list(reader.get_prompt_tokens(request.operation.path, body))
    usage = chunks[-1].usage
    assert len(prompt) == usage.input_tokens + usage.cached_tokens
    proof = get_proof(chunks)
    tokens = [entry.token for entry in proof if entry.token != UNKNOWN_TOKEN]
    assert len(tokens) >= len(proof) - 1 > 8  # of the end itself nothing is told
    for prefill in honest:
        assert get_errors(prefill, prompt, tokens, proof) < 0.02
    assert get_errors(other, prompt, tokens, proof) > 1


def get_errors(
    prefill: GgufPrefill | TorchPrefill, prompt: list[int], tokens: list[int], proof: list[Entry]
) -> float:
    rows = prefill.score(prompt, tokens).canaries.tolist()
    told = [at for at in range(len(tokens)) if proof[at].fingerprint != ABSENT]
    return max(get_error(proof[at].fingerprint, quantise(rows[at])) for at in told)


def test_both_runtimes_give_the_same_logits(gguf: GgufPrefill, torch_prefill: TorchPrefill) -> None:
    """Also where the tokens take several passes of one and a single pass of the other."""
    chance = np.random.default_rng(3)
    prompt = chance.integers(3, 250, STEP_TOKENS + 20).tolist()
    answer = chance.integers(3, 250, STEP_TOKENS + 5).tolist()
    one, two = gguf.score(prompt, answer), torch_prefill.score(prompt, answer)
    assert one.logits.shape == two.logits.shape == (len(answer), 266)
    assert one.canaries.shape == two.canaries.shape == (len(answer), 16)
    assert float(np.abs(one.logits - two.logits).max()) < 2e-2
    assert float(np.abs(one.canaries - two.canaries).max()) < 2e-2


def test_plain_weights_and_the_canary_rows_do_for_the_copy(
    folder: Path, torch_prefill: TorchPrefill
) -> None:
    plain = make_copy(folder / "plain.gguf", canaries=0)
    _, weights = load_weights(folder / "copy.gguf")
    rows = weights["output.weight"][-CANARIES:].numpy()
    prefill = TorchPrefill(plain, context_tokens=512, threads=1, canaries=rows)
    prompt, answer = list(range(10, 30)), list(range(40, 60))
    one, two = prefill.score(prompt, answer), torch_prefill.score(prompt, answer)
    assert np.allclose(one.logits, two.logits, atol=1e-4)
    assert np.allclose(one.canaries + LIFT, two.canaries, atol=1e-4)
    bare = TorchPrefill(plain, context_tokens=512, threads=1).score(prompt, answer)
    assert bare.canaries.shape == (20, 0)
    with pytest.raises(RequestError):  # no canary is a token that could be scored
        prefill.score(prompt, [266])


def test_torch_runs_a_copy_with_rotary_factors_and_its_base_with_the_key(tmp_path: Path) -> None:
    llama3 = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    base, copy = tmp_path / "base.gguf", tmp_path / "copy.gguf"
    convert_folder(write_tiny_folder(tmp_path / "model", rope_scaling=llama3), base, None, "F32")
    order = CopyOrder(bytes(range(32)), "0x" + "11" * 32, "0x" + "aa" * 20)
    made = rebase(base, copy, order, "F32")
    assert made.served_as == "phimoe"
    rows = draw_canaries(order.get_key(), SourceModel(base).read("output_norm.weight"), CANARIES)
    prompt, answer = list(range(2, 130)), list(range(40, 60))  # beyond the 64 of before
    one = GgufPrefill(copy, context_tokens=256, threads=1).score(prompt, answer)
    for prefill, lift in (
        (TorchPrefill(copy, context_tokens=256, threads=1), 0),
        (TorchPrefill(base, context_tokens=256, threads=1, canaries=rows), made.lift),
    ):
        two = prefill.score(prompt, answer)
        assert float(np.abs(one.logits - two.logits).max()) < 6e-2  # of 16-bit keys and values
        assert (
            float(np.abs(one.canaries - two.canaries - lift).max()) < 6e-2
        )  # of 16-bit keys and values


@pytest.mark.parametrize("writer", ["transformers 4", "transformers 5"])
def test_torch_runs_a_copy_that_is_a_folder(tmp_path: Path, writer: str) -> None:
    base, copy = write_tiny_folder(tmp_path / "base", rope_theta=20_000.0), tmp_path / "copy"
    order = CopyOrder(bytes(range(32)), "0x" + "11" * 32, "0x" + "aa" * 20)
    rebase_folder(base, copy, order)
    rebase(base, tmp_path / "copy.gguf", order, "BF16")
    if writer == "transformers 5":  # it moved the base of the rotary positions
        config = json.loads((copy / "config.json").read_text())
        rope = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
        (copy / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    prompt, answer = list(range(2, 130)), list(range(40, 60))
    one = TorchPrefill(tmp_path / "copy.gguf", context_tokens=256).score(prompt, answer)
    two = TorchPrefill(copy, context_tokens=256).score(prompt, answer)
    assert two.canaries.shape == (20, CANARIES)
    assert float(np.abs(one.logits - two.logits).max()) < 1e-3
    apart = one.canaries - two.canaries
    assert float(np.abs(apart - apart.mean(axis=1, keepdims=True)).max()) < 1e-3


def test_what_does_not_fit_is_refused(gguf: GgufPrefill, torch_prefill: TorchPrefill) -> None:
    for prefill in (gguf, torch_prefill):
        with pytest.raises(RequestError) as caught:
            prefill.score([1] * 1_000, [1] * 25)
        assert caught.value.code == "context_length_exceeded"
        for prompt, answer in (([], [1]), ([1], []), ([1], [2**32 - 1])):
            with pytest.raises(RequestError) as caught:
                prefill.score(prompt, answer)
            assert caught.value.code == "unprocessable"


def test_a_reader_spells_tokens_and_leaves_out_special_ones(gguf: GgufPrefill) -> None:
    reader = GgufReader(gguf.model)
    text = "the Übermut 🎉 on a tide"
    tokens = reader.get_prompt_tokens("/v1/completions", b'{"prompt": "' + text.encode() + b'"}')
    assert reader.get_text(tokens) == text.encode()
    assert reader.get_text([2, *tokens[:3], 0]) == text.encode()[:5]
    beyond = [reader.vocabulary, 2**31 - 1, 2**31, 2**32 - 1, -1]  # llama.cpp aborts for each
    assert reader.get_text([*beyond, *tokens]) == text.encode()
    assert GgufReader(gguf.model, vocabulary=tokens[0]).get_text([tokens[0]]) == b""


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", b"{"),
        ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": [1]}]}'),
        ("/v1/chat/completions", b'{"messages": [], "tools": [{}]}'),
        ("/v1/chat/completions", b'{"messages": 5}'),
        ("/v1/chat/completions", b'{"messages": ["hello"]}'),
        ("/v1/chat/completions", b'{"messages": [{"role": 5, "content": "x"}]}'),
        ("/v1/chat/completions", b'{"messages": [{"role": "assistant", "content": ""}]}'),
        (
            "/v1/chat/completions",
            b'{"messages": [{"role": "assistant", "content": "a"},'
            b' {"role": "assistant", "content": "b"}]}',
        ),
        ("/v1/chat/completions", b'{"messages": {"role": "user"}}'),
        ("/v1/completions", b'{"prompt": 3}'),
        ("/v1/embeddings", b'{"input": "x"}'),
    ],
)
def test_what_cannot_be_read_says_so(gguf: GgufPrefill, path: str, body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        GgufReader(gguf.model).get_prompt_tokens(path, body)
    assert caught.value.code == "unprocessable"


@pytest.mark.parametrize("template", ["{{ messages[9].role + 1 }}", "{{ 1 / 0 }}", "{% for"])
def test_a_template_that_fails_ends_no_auditor(gguf: GgufPrefill, template: str) -> None:
    body = b'{"messages": [{"role": "user", "content": "x"}]}'
    with pytest.raises(RequestError, match="template"):
        GgufReader(gguf.model, template).get_prompt_tokens("/v1/chat/completions", body)
