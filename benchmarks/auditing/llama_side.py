"""llama.cpp, by cyllama, with many answers at once: an auditor that reads each prompt once.

Rows of a prompt belong to all sequences of its answers, rows of an answer to its own. So four
answers to one question cost one prompt, and a pass has a few hundred rows, as a busy auditor's has.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.auditing.torch_side import Group
from hanse.engines.proving.prefill_gguf import GgufPrefill
from hanse.engines.proving.scores import CopyScores, join_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEQUENCES = 32
ROWS = 512


class GgufMany(GgufPrefill):
    """Groups of answers in one batch; `cache_type` as `--cache-type-k` has it, None for f16."""

    def __init__(
        self, path: Path, *, context_tokens: int, threads: int, cache_type: int | None = None
    ) -> None:
        super().__init__(path, context_tokens=context_tokens, threads=threads)
        from cyllama.llama import llama_cpp

        params = llama_cpp.LlamaContextParams()
        params.n_ctx = context_tokens
        params.n_batch = params.n_ubatch = ROWS
        params.n_seq_max = SEQUENCES
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        if cache_type is not None:
            params.type_k = params.type_v = cache_type
            params.flash_attn_type = 1
        self._batch.close()
        self._context.close()
        self._context = llama_cpp.LlamaContext(self.model, params)
        self._batch = llama_cpp.LlamaBatch(n_tokens=ROWS, embd=0, n_seq_max=SEQUENCES)

    def score_many(self, groups: Sequence[Group]) -> list[list[CopyScores]]:
        """Prefill of all groups; scores of each answer of each."""
        found: list[list[CopyScores]] = []
        for together in _split(groups):
            found += self._score_together(together)
        return found

    def _score_together(self, groups: Sequence[Group]) -> list[list[CopyScores]]:
        rows: list[tuple[int, int, list[int], bool]] = []
        wanted: list[list[list[int]]] = []
        sequence = 0
        for prompt, answers in groups:
            mine = list(range(sequence, sequence + len(answers)))
            sequence += len(answers)
            last = len(prompt) - 1
            rows += [(token, place, mine, place == last) for place, token in enumerate(prompt)]
            first, of_answers = len(rows) - 1, []
            for number, answer in zip(mine, answers, strict=True):
                begin = len(rows)
                rows += [
                    (token, len(prompt) + place, [number], True)
                    for place, token in enumerate(answer[:-1])
                ]
                of_answers.append([first, *range(begin, len(rows))])
            wanted.append(of_answers)
        logits = self._run_rows(rows)
        return [
            [
                join_rows([logits[row] for row in answer], self._vocabulary, self._canaries)
                for answer in group
            ]
            for group in wanted
        ]

    def _run_rows(
        self, rows: Sequence[tuple[int, int, list[int], bool]]
    ) -> "dict[int, NDArray[Any]]":
        import numpy as np

        self._context.kv_cache_clear()
        found: dict[int, NDArray[Any]] = {}
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            self._batch.clear()
            for token, place, sequences, is_wanted in part:
                self._batch.add(token, place, sequences, is_wanted)
            self._context.decode(self._batch)
            for at, (*_, is_wanted) in enumerate(part):
                if is_wanted:
                    row = np.array(self._context.get_logits_ith(at), dtype=np.float32)
                    found[start + at] = row
        return found


def _split(groups: Sequence[Group]) -> list[list[Group]]:
    """As many groups together as fit the sequences and one batch of rows."""
    parts: list[list[Group]] = [[]]
    rows = sequences = 0
    for prompt, answers in groups:
        more = len(prompt) + sum(len(answer) - 1 for answer in answers)
        is_full = rows + more > ROWS or sequences + len(answers) > SEQUENCES
        if parts[-1] and is_full:
            parts.append([])
            rows = sequences = 0
        parts[-1].append((prompt, answers))
        rows, sequences = rows + more, sequences + len(answers)
    return parts
