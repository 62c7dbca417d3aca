"""The replayed sampler against llama.cpp's own, token by token."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hanse.engines.proving.loaded_gguf import load_gguf
from hanse.verification.audits.sampling import Chain, get_misses
from tests.engines.tiny_copy import make_copy

TOKENS = 60
CHAINS = (
    Chain(1_000_000, 0, 1_000_000, 0),
    Chain(700_000, 0, 1_000_000, 0),
    Chain(),
    Chain(1_200_000, 5, 1_000_000, 0),
    Chain(1_000_000, 0, 600_000, 0),
    Chain(1_500_000, 0, 1_000_000, 100_000),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    model = load_gguf(make_copy(tmp_path_factory.mktemp("replay") / "tiny.gguf", canaries=0))
    yield model
    model.close()


def generate(model: Any, chain: Chain, seed: int) -> tuple[np.ndarray, list[int]]:
    """Logits and tokens of llama.cpp's own sampler, in the order of its server's chain."""
    from cyllama.llama import llama_cpp

    params = llama_cpp.LlamaContextParams()
    params.n_ctx = 256
    params.n_threads = params.n_threads_batch = 1
    context = llama_cpp.LlamaContext(model, params)
    sampler = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
    sampler.add_top_k(chain.top_k)
    sampler.add_top_p(chain.top_p_ppm / 1_000_000, 0)
    sampler.add_min_p(chain.min_p_ppm / 1_000_000, 0)
    sampler.add_temp(chain.temperature_ppm / 1_000_000)
    sampler.add_dist(seed)
    batch = llama_cpp.LlamaBatch(n_tokens=8, embd=0, n_seq_max=1)
    rows, tokens, fed = [], [], [5, 6, 7]
    place = 0
    for _ in range(TOKENS):
        batch.clear()
        for token in fed:
            batch.add(token, place, [0], True)
            place += 1
        context.decode(batch)
        last = len(fed) - 1
        rows.append(np.array(context.get_logits_ith(last), dtype=np.float32))
        fed = [sampler.sample(context, last)]
        tokens += fed
    batch.close()
    context.close()
    return np.stack(rows), tokens


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_every_draw_is_the_one_that_llama_cpp_takes(model: Any, chain: Chain) -> None:
    logits, tokens = generate(model, chain, 1_234)
    assert len(set(tokens)) > 5  # there was something to choose
    assert get_misses(logits, tokens, chain, 1_234) == pytest.approx(0, abs=1e-5)
    assert np.mean(get_misses(logits, tokens, chain, 1_235) > 0.05) > 0.3
