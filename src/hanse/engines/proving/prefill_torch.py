"""One forward pass over prompt and answer with torch: a second runtime beside llama.cpp.

    prefill = TorchPrefill(path)                # GGUF, or a folder with safetensors
    scores = prefill.score(prompt_tokens, answer_tokens)

It shares no code with llama.cpp: weights are dequantised and everything is computed in single
precision, while llama.cpp also quantises activations. So the two differ as honest runtimes do, and
a calibration between them is one between strangers.

Shapes: hidden and normed are [tokens, width]; query is [heads, tokens, width of a head], key and
value have as many heads as the model keeps of them.

Implements `hanse.verification.audits.prefill.Prefill`, which it does not import.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.engines.child_process import set_openmp
from hanse.engines.proving.copy_in_service import find_copy
from hanse.engines.proving.scores import CopyScores, check_length, join_rows
from hanse.engines.proving.weights import ROPE_FACTORS, load_weights
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TorchPrefill:
    """A loaded model; not safe for several threads at once."""

    def __init__(
        self,
        path: Path,
        *,
        context_tokens: int = 4_096,
        threads: int = 2,
        canaries: "NDArray[Any] | None" = None,
    ) -> None:
        """Load the model.

        Args:
            path: a copy, which has its description beside it, or a plain model.
            context_tokens: prompt and answer together, at most.
            threads: processor threads.
            canaries: of a plain model the rows [K, width] of the copy that is audited, in the basis
                of the model: what an auditor with the copy's key computes them to be
                (`hanse.models.copies.canaries`). So an audit needs no copy.

        Raises:
            RequestError: torch is not installed, or the model is of a kind that is not run here.
        """
        set_openmp()
        try:
            import torch
        except ImportError as error:
            raise RequestError(
                "configuration_invalid",
                "Audits with torch need it; run: pip install 'hanse[models]'",
            ) from error

        torch.set_num_threads(threads)
        self._shape, self._weights = load_weights(path)
        copy = find_copy(path)
        rows = len(self._head())
        self._added = None if canaries is None else torch.from_numpy(canaries).float()
        self._vocabulary = copy.description.vocabulary if copy else rows
        self._canaries = (
            copy.description.canary_count if copy else 0 if canaries is None else len(canaries)
        )
        self._context_tokens = min(context_tokens, self._shape.context_tokens)
        self.runtime = f"torch {torch.__version__} cpu float32"

    def score(self, prompt_tokens: Sequence[int], answer_tokens: Sequence[int]) -> CopyScores:
        """One prefill; row i is what the model gave before answer token i.

        Raises:
            RequestError: `context_length_exceeded`, or a token is none of the model's.
        """
        import torch

        limit = len(self._weights["token_embd.weight"])
        check_length(prompt_tokens, answer_tokens, self._context_tokens, limit)
        tokens = [*prompt_tokens, *answer_tokens[:-1]]
        with torch.inference_mode():
            chosen_by = self._run(torch.tensor(tokens))[len(prompt_tokens) - 1 :]
            logits = chosen_by @ self._head().T
            if (bias := self._weights.get("output.bias")) is not None:
                logits = logits + bias
            if self._added is not None:
                logits = torch.cat((logits, chosen_by @ self._added.T), -1)
        return join_rows(list(logits.numpy()), self._vocabulary, self._canaries)

    def _head(self) -> Any:
        """The output matrix; the embeddings themselves where it is tied."""
        return self._weights.get("output.weight", self._weights["token_embd.weight"])

    def _run(self, tokens: Any) -> Any:
        hidden = self._weights["token_embd.weight"][tokens]
        turn = self._make_turn(len(tokens))
        for layer in range(self._shape.layers):
            at = f"blk.{layer}."
            hidden = hidden + self._attend(self._norm(hidden, f"{at}attn_norm"), at, turn)
            normed = self._norm(hidden, f"{at}ffn_norm")
            hidden = hidden + self._feed_forward(normed, at)
        return self._norm(hidden, "output_norm")

    def _norm(self, hidden: Any, name: str) -> Any:
        mean = hidden.pow(2).mean(-1, keepdim=True)
        return hidden * (mean + self._shape.epsilon).rsqrt() * self._weights[f"{name}.weight"]

    def _map(self, hidden: Any, name: str) -> Any:
        mapped = hidden @ self._weights[f"{name}.weight"].T
        bias = self._weights.get(f"{name}.bias")
        return mapped if bias is None else mapped + bias

    def _feed_forward(self, normed: Any, at: str) -> Any:
        import torch

        gate = torch.nn.functional.silu(self._map(normed, f"{at}ffn_gate"))
        return self._map(gate * self._map(normed, f"{at}ffn_up"), f"{at}ffn_down")

    def _attend(self, normed: Any, at: str, turn: tuple[Any, Any]) -> Any:
        import torch

        shape, count = self._shape, len(normed)

        def split(name: str, heads: int) -> Any:
            return self._map(normed, f"{at}{name}").view(count, heads, -1).transpose(0, 1)

        query = self._turn(split("attn_q", shape.heads), turn)
        key = self._turn(split("attn_k", shape.key_value_heads), turn)
        value = split("attn_v", shape.key_value_heads)
        times = shape.heads // shape.key_value_heads
        out = torch.nn.functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(times, 0),
            value.repeat_interleave(times, 0),
            is_causal=True,
        )
        return self._map(out.transpose(0, 1).reshape(count, -1), f"{at}attn_output")

    def _make_turn(self, count: int) -> tuple[Any, Any]:
        """Cosine and sine of each position's angles, [T, W / 2]."""
        import torch

        width = self._shape.head_width
        steps = torch.arange(0, width, 2, dtype=torch.float64) / width
        rates = self._shape.rope_base**-steps
        if (factors := self._weights.get(ROPE_FACTORS)) is not None:
            rates = rates / factors
        angles = torch.outer(torch.arange(count, dtype=torch.float64), rates)
        return angles.cos().float(), angles.sin().float()

    def _turn(self, heads: Any, turn: tuple[Any, Any]) -> Any:
        import torch

        cosine, sine = turn
        half = self._shape.head_width // 2
        if self._shape.pairs_neighbours:
            first, second = heads[..., 0::2], heads[..., 1::2]
        else:
            first, second = heads[..., :half], heads[..., half:]
        turned = (first * cosine - second * sine, first * sine + second * cosine)
        if self._shape.pairs_neighbours:
            return torch.stack(turned, -1).flatten(-2)
        return torch.cat(turned, -1)
