"""Perplexity of a model over a text, and how far its predictions are from its source's.

The text is read in pieces of `PIECE_TOKENS`, each from an empty context and with the token that
begins a text where the model wants one. The first `CONTEXT_TOKENS` of a piece only give context;
every later token is scored:

    perplexity = exp(mean of -log p(token))      KL = mean of sum over v of P(v) log(P(v) / Q(v))

with P the source's distribution and Q the candidate's, over the whole vocabulary. Both are given
with their standard error over the tokens. The same is what llama.cpp's perplexity tool calls
mean KLD, over other pieces.
"""

import math
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from hanse.models.tensors import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIECE_TOKENS = 256
"""Of context for the last token of a piece; whole pieces are computed at once."""
CONTEXT_TOKENS = 32
"""At the start of a piece, not scored: without context every model guesses alike."""
SPEED_TOKENS = 32
"""Generated one by one to measure speed."""
ROWS = 32
"""Positions whose logits are turned into probabilities at once; bounds memory."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One model over the text.

    Attributes:
        tokens: that were scored.
        perplexity, perplexity_error: with standard error.
        kl, kl_error: mean nats a token against the source, with standard error; zero for itself.
        kl_p99: that 99 of 100 tokens stay under.
        same_top: share of tokens at which the likeliest token is the source's.
        prompt_tokens_per_s, answer_tokens_per_s: on this machine, at this moment.
        memory_bytes: most that the process had resident, before anything was compared.
    """

    tokens: int
    perplexity: float
    perplexity_error: float
    kl: float = 0.0
    kl_error: float = 0.0
    kl_p99: float = 0.0
    same_top: float = 1.0
    prompt_tokens_per_s: float
    answer_tokens_per_s: float
    memory_bytes: int


class LlamaRun:
    """A GGUF model in llama.cpp, ready to give logits; closes what it opened."""

    def __init__(self, path: Path, threads: int, *, is_exact: bool = False) -> None:
        """Load the model; with `is_exact` nothing is rounded to 16 bits on the way."""
        from cyllama.llama import llama_cpp

        class Model(llama_cpp.LlamaModel):  # type: ignore[misc] # no types in the package
            n_vocab = 0  # which get_logits_ith reads, and the package never sets

        llama_cpp.disable_logging()
        llama_cpp.ggml_backend_load_all()
        self._llama = llama_cpp
        self._model = Model(str(path), llama_cpp.LlamaModelParams())
        self._vocab = self._model.get_vocab()
        self.vocabulary = self._model.n_vocab = self._vocab.n_vocab
        # Gemma and Llama 3 guess wildly without the token that begins a text
        self.beginning = [self._vocab.token_bos()] if self._vocab.get_add_bos() else []
        params = llama_cpp.LlamaContextParams()
        params.n_ctx = PIECE_TOKENS + SPEED_TOKENS + 1
        params.n_batch = params.n_ubatch = PIECE_TOKENS
        params.n_threads = params.n_threads_batch = threads
        if is_exact:
            params.type_k = params.type_v = 0  # GGML_TYPE_F32
            params.flash_attn_type = 0  # off: it rounds queries too
        self._context = llama_cpp.LlamaContext(self._model, params)

    def __enter__(self) -> "LlamaRun":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._context.close()
        self._model.close()

    def tokenise(self, text: str) -> list[int]:
        """The text's tokens, without any that mark its beginning."""
        return list(self._vocab.tokenize(text, False, False))

    def read(self, tokens: list[int], at: int = 0, *, all_logits: bool = True) -> None:
        """Have the model read tokens from position `at`; from 0 the context is emptied."""
        if at == 0:
            self._context.kv_cache_clear(True)
        batch = self._llama.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
        for index, token in enumerate(tokens):
            batch.add(token, at + index, [0], all_logits or index == len(tokens) - 1)
        self._context.decode(batch)

    def get_logits(self, index: int) -> "NDArray[np.float32]":
        """Raw logits after the token at this place of what was read last."""
        import numpy as np

        return np.asarray(self._context.get_logits_ith(index), dtype=np.float32)


def score(
    run: LlamaRun,
    text: str,
    tokens_max: int,
    reference: Path,
    is_source: bool,
    progress: Progress,
) -> Score:
    """Score the model; its log probabilities go to `reference`, or are compared with those there.

    Raises:
        ValueError: the text is too short, or the vocabulary is not the source's.
    """
    import numpy as np

    tokens = run.tokenise(text)[:tokens_max]
    length = PIECE_TOKENS - len(run.beginning)
    pieces = [run.beginning + tokens[at : at + length] for at in range(0, len(tokens), length)]
    pieces = [piece for piece in pieces if len(piece) > 2 * CONTEXT_TOKENS]
    if not pieces:
        raise ValueError(f"the text has {len(tokens)} tokens, {2 * CONTEXT_TOKENS + 1} are needed")
    total = sum(len(piece) - CONTEXT_TOKENS for piece in pieces)
    answer_rate = _measure_speed(run, pieces[0])
    memory = _read_peak_memory()
    shape = (total, run.vocabulary)
    if not is_source and reference.stat().st_size != 4 * math.prod(shape):
        raise ValueError("its vocabulary is not the source's")
    held = np.memmap(reference, np.float32, "w+" if is_source else "r", shape=shape)
    found = _Sums(total)
    seconds = 0.0
    for piece in pieces:
        begun = time.perf_counter()
        run.read(piece)
        seconds += time.perf_counter() - begun
        for first in range(CONTEXT_TOKENS - 1, len(piece) - 1, ROWS):
            places = range(first, min(first + ROWS, len(piece) - 1))
            own = _to_log_probabilities(np.stack([run.get_logits(place) for place in places]))
            at = slice(found.count, found.count + len(places))
            wanted = np.array([piece[place + 1] for place in places])
            if is_source:
                held[at] = own
                found.add(own, wanted, None)
            else:
                found.add(own, wanted, np.asarray(held[at]))
            progress("reading the text", found.count / total)
    return found.to_score(sum(map(len, pieces)) / seconds, answer_rate, memory)


def measure_margin(
    run: LlamaRun, text: str, tokens_max: int, canaries: int, progress: Progress
) -> dict[str, float]:
    """How far the last `canaries` logits are above all others: fields of a copy's `LiftMargin`."""
    import numpy as np

    tokens = run.tokenise(text)[:tokens_max]
    length, count = PIECE_TOKENS - len(run.beginning), run.vocabulary - canaries
    smallest, largest, highest, positions = math.inf, -math.inf, -math.inf, 0
    for at in range(0, len(tokens), length):
        piece = run.beginning + tokens[at : at + length]
        run.read(piece)
        rows = np.stack([run.get_logits(place) for place in range(len(piece))])
        top = rows[:, :count].max(axis=1)
        smallest = min(smallest, float((rows[:, count:].min(axis=1) - top).min()))
        largest = max(largest, float((rows[:, count:].max(axis=1) - top).max()))
        highest = max(highest, float(top.max()))
        positions += len(piece)
        progress("checking the lift", positions / len(tokens))
    return {
        "positions": positions, "smallest": smallest, "largest": largest, "highest": highest
    }  # fmt: skip


class _Sums:
    """What is kept of each scored token."""

    def __init__(self, tokens: int) -> None:
        import numpy as np

        self.count = 0
        self._surprise = np.zeros(tokens)
        self._kl = np.zeros(tokens)
        self._same = np.ones(tokens, dtype=bool)

    def add(self, own: Any, wanted: Any, source: Any) -> None:
        """Add rows of log probabilities, the tokens that came, and the source's rows."""
        import numpy as np

        at = slice(self.count, self.count + len(own))
        self._surprise[at] = -own[np.arange(len(own)), wanted]
        if source is not None:
            terms = np.exp(source.astype(np.float64)) * (source - own)
            self._kl[at] = terms.sum(axis=1)
            self._same[at] = source.argmax(axis=1) == own.argmax(axis=1)
        self.count += len(own)

    def to_score(self, prompt_rate: float, answer_rate: float, memory_bytes: int) -> Score:
        """The means, with their standard errors."""
        import numpy as np

        root = math.sqrt(self.count)
        perplexity = float(np.exp(self._surprise.mean()))
        return Score(
            tokens=self.count,
            perplexity=perplexity,
            perplexity_error=perplexity * float(self._surprise.std(ddof=1)) / root,
            kl=float(self._kl.mean()),
            kl_error=float(self._kl.std(ddof=1)) / root,
            kl_p99=float(np.quantile(self._kl, 0.99)),
            same_top=float(self._same.mean()),
            prompt_tokens_per_s=prompt_rate,
            answer_tokens_per_s=answer_rate,
            memory_bytes=memory_bytes,
        )


def _to_log_probabilities(logits: Any) -> Any:
    import numpy as np

    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted.astype(np.float64)).sum(axis=1, keepdims=True)
    return (shifted - np.log(total)).astype(np.float32)


def _measure_speed(run: LlamaRun, piece: list[int]) -> float:
    """Tokens a second, one after the other: the same tokens for every model."""
    run.read(piece, all_logits=False)
    begun = time.perf_counter()
    for index in range(SPEED_TOKENS):
        run.read([piece[index % len(piece)]], len(piece) + index)
        run.get_logits(-1)
    return SPEED_TOKENS / (time.perf_counter() - begun)


def _read_peak_memory() -> int:
    """Most bytes that this process had resident; Linux's own count, else getrusage's."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1_024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1_024
