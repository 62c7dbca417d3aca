"""Batches of bench-audit against the prefill of one answer, on a copy of a few kilobytes."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.auditing.llama_side import GgufMany
from benchmarks.auditing.torch_side import Order, TorchMany
from hanse.engines.proving.prefill_torch import TorchPrefill
from hanse.protocol.commitments.fingerprints import SCALE, get_steps, quantise
from hanse.verification.audits.sampling import Chain, get_misses
from tests.engines.tiny_copy import make_copy

CHAINS = (Chain(1_000_000, 0, 1_000_000, 0), Chain(0, 0, 1_000_000, 0), Chain(), Chain(700_000))
NO_END = 1_000
"""No token of the model, so that every answer has its full length."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("many") / "copy.gguf"
    make_copy(found)
    return found


@pytest.fixture(scope="module")
def many(path: Path) -> TorchMany:
    return TorchMany(path, context_tokens=512, threads=1, end=NO_END)


def make_orders() -> list[Order]:
    chance = np.random.default_rng(5)
    prompts = [tuple(chance.integers(3, 250, size).tolist()) for size in (9, 23)]
    return [
        Order(prompt, chain, 10 * place + number, 6 + number)
        for place, prompt in enumerate(prompts)
        for number, chain in enumerate(CHAINS)
    ]


def test_what_torch_writes_in_one_batch_is_what_one_prefill_of_each_answer_gives(
    path: Path, many: TorchMany
) -> None:
    alone = TorchPrefill(path, context_tokens=512, threads=1)
    orders = make_orders()
    for order, entries in zip(orders, many.write(orders, SCALE), strict=True):
        tokens = [entry.token for entry in entries]
        assert len(tokens) == order.tokens
        scores = alone.score(order.prompt, tokens)
        rows = scores.canaries.tolist()
        for entry, row in zip(entries, rows, strict=True):
            steps = zip(get_steps(entry.fingerprint), get_steps(quantise(row)), strict=True)
            assert max(abs(mine - other) for mine, other in steps) <= 1
        assert max(get_misses(scores.logits, tokens, order.chain, order.seed)) < 1e-3


def test_answers_that_share_a_prompt_are_scored_as_if_each_came_alone(
    path: Path, many: TorchMany
) -> None:
    alone = TorchPrefill(path, context_tokens=512, threads=1)
    llama = GgufMany(path, context_tokens=512, threads=1)
    chance = np.random.default_rng(8)
    groups = [
        (
            chance.integers(3, 250, prompt).tolist(),
            [chance.integers(3, 250, size).tolist() for size in sizes],
        )
        for prompt, sizes in ((7, (1, 5, 9)), (30, (12, 3)))
    ]
    try:
        both = many.score_many(groups), llama.score_many(groups)
    finally:
        llama.close()
    for place, (prompt, answers) in enumerate(groups):
        for number, answer in enumerate(answers):
            wanted = alone.score(prompt, answer)
            for found, most in zip(both, (1e-4, 2e-2), strict=True):
                one = found[place][number]
                assert one.logits.shape == wanted.logits.shape
                assert float(np.abs(one.logits - wanted.logits).max()) < most
                assert float(np.abs(one.canaries - wanted.canaries).max()) < most
