"""Final hidden states of an answer, as TOPLOC takes them: behind the last norm, before the head.

    with open_states("llama", path) as states:
        run = states.decode(prompt, answer)      # one token a step, as a server generates
        run = states.prefill(prompt, answer)     # one pass, as a verifier does

A run is [tokens, width], float32: the prompt's positions, then one row for each answer token that
was fed back, so that of n answer tokens n - 1 have a row of their own and the first comes from the
prompt's last row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.audit_cheats import Q4_0
from hanse.engines.proving.prefill_gguf import STEP_TOKENS, GgufPrefill
from hanse.engines.proving.prefill_torch import TorchPrefill

CONTEXT_TOKENS = 1_024


class GgufStates(GgufPrefill):
    """llama.cpp by cyllama, its context set to hand out states."""

    def __init__(self, path: Path, *, four_bit_cache: bool = False) -> None:
        super().__init__(path, context_tokens=CONTEXT_TOKENS, threads=1)
        from cyllama.llama import llama_cpp

        params = llama_cpp.LlamaContextParams()
        params.n_ctx = CONTEXT_TOKENS
        params.n_batch = params.n_ubatch = STEP_TOKENS
        params.n_threads = params.n_threads_batch = 1
        params.embeddings = True
        params.pooling_type = 0  # none: of each token
        if four_bit_cache:
            params.type_k = params.type_v = Q4_0
            params.flash_attn_type = 1
        self._context.close()
        self._context = llama_cpp.LlamaContext(self.model, params)

    def decode(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        steps = [list(prompt[at : at + STEP_TOKENS]) for at in range(0, len(prompt), STEP_TOKENS)]
        return self._read([*steps, *([token] for token in answer[:-1])])

    def prefill(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        tokens = [*prompt, *answer[:-1]]
        return self._read(
            [tokens[at : at + STEP_TOKENS] for at in range(0, len(tokens), STEP_TOKENS)]
        )

    def _read(self, steps: Sequence[Sequence[int]]) -> Any:
        import numpy as np

        self._context.kv_cache_clear()
        rows, position = [], 0
        for tokens in steps:
            self._batch.clear()
            for place, token in enumerate(tokens):
                self._batch.add(token, position + place, [0], True)
            self._context.decode(self._batch)
            rows += [self._context.get_embeddings_ith(place) for place in range(len(tokens))]
            position += len(tokens)
        return np.array(rows, dtype=np.float32)


class TorchStates(TorchPrefill):
    """torch in single precision, a runtime that shares no code with llama.cpp."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, context_tokens=CONTEXT_TOKENS, threads=1)

    def prefill(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        import torch

        with torch.inference_mode():
            return self._run(torch.tensor([*prompt, *answer[:-1]])).numpy()

    def close(self) -> None:
        self._weights.clear()


@contextmanager
def open_states(runtime: str, path: Path, *, four_bit_cache: bool = False) -> Iterator[Any]:
    """A model in `llama` or `torch`; its memory is free again at the end."""
    states = (
        TorchStates(path) if runtime == "torch" else GgufStates(path, four_bit_cache=four_bit_cache)
    )
    try:
        yield states
    finally:
        states.close()
