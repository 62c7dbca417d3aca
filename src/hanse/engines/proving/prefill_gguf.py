"""One forward pass over prompt and answer with llama.cpp, by cyllama: canaries and full logits.

    prefill = GgufPrefill(path)                 # a copy, or a plain model: then without canaries
    scores = prefill.score(prompt_tokens, answer_tokens)
    scores.canaries                             # [n, K] float32, row i chose answer token i
    scores.logits                               # [n, V] float32
    prefill.close()

Implements `hanse.verification.audits.prefill.Prefill`, which it does not import. Blocks; call it in
a thread, one call at a time.

Cost, on one thread with SmolLM2 Q4_0: 3.4 ms a token, and 2.3 ms for each row of logits, which the
binding hands over as a Python list.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.engines.proving.copy_in_service import find_copy
from hanse.engines.proving.loaded_gguf import load_gguf
from hanse.engines.proving.scores import CopyScores, check_length, join_rows
from hanse.protocol.errors import TransientError

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_TOKENS = 256
"""Tokens of one pass; the rows of so many positions take 200 MB at a vocabulary of 2**18."""


class GgufPrefill:
    """A loaded model with its context; not safe for several threads at once."""

    def __init__(self, path: Path, *, context_tokens: int = 4_096, threads: int = 2) -> None:
        """Load the model.

        Args:
            path: GGUF; a copy has its description beside it.
            context_tokens: prompt and answer together, at most.
            threads: processor threads.

        Raises:
            RequestError: cyllama is not installed, or the file cannot be loaded.
        """
        self.model = load_gguf(path)
        from cyllama.llama import llama_cpp

        copy = find_copy(path)
        self._vocabulary = copy.description.vocabulary if copy else self.model.n_vocab
        self._canaries = copy.description.canary_count if copy else 0
        params = llama_cpp.LlamaContextParams()
        params.n_ctx = context_tokens
        params.n_batch = params.n_ubatch = min(STEP_TOKENS, context_tokens)
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self._context_tokens = context_tokens
        self._context = llama_cpp.LlamaContext(self.model, params)
        self._batch = llama_cpp.LlamaBatch(n_tokens=params.n_batch, embd=0, n_seq_max=1)
        self.runtime = f"llama.cpp cyllama-{version('cyllama')} cpu"

    def close(self) -> None:
        """Free the memory."""
        self._batch.close()
        self._context.close()
        self.model.close()

    def score(self, prompt_tokens: Sequence[int], answer_tokens: Sequence[int]) -> CopyScores:
        """One prefill; row i is what the model gave before answer token i.

        Raises:
            RequestError: `context_length_exceeded`, or a token is none of the model's.
            TransientError: llama.cpp failed.
        """
        limit = self._vocabulary + self._canaries
        check_length(prompt_tokens, answer_tokens, self._context_tokens, limit)
        tokens = [*prompt_tokens, *answer_tokens[:-1]]
        first = len(prompt_tokens) - 1
        self._context.kv_cache_clear()
        rows: list[NDArray[Any]] = []
        for start in range(0, len(tokens), STEP_TOKENS):
            rows += self._run(tokens[start : start + STEP_TOKENS], start, first)
        return join_rows(rows, self._vocabulary, self._canaries)

    def _run(self, tokens: list[int], start: int, first: int) -> "list[NDArray[Any]]":
        import numpy as np

        self._batch.clear()
        for place, token in enumerate(tokens):
            self._batch.add(token, start + place, [0], start + place >= first)
        try:
            self._context.decode(self._batch)
        except (ValueError, RuntimeError) as error:
            raise TransientError("engine_unavailable", f"The prefill failed: {error}") from error
        places = range(max(0, first - start), len(tokens))
        return [np.array(self._context.get_logits_ith(place), dtype=np.float32) for place in places]
