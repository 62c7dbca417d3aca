"""Which models can be rebased: their shape read from a GGUF file, everything else refused with why.

The symmetries hold for one kind of network: RMSNorm before attention and feed-forward and at the
end, rotary positions, SwiGLU, residual stream without scales. Llama (with Mistral, SmolLM2,
TinyLlama and the like, which share its name in GGUF) and Qwen2/2.5 are of that kind. A tensor or
setting that is not known here could break the symmetry silently, so it is refused by name.
"""

from dataclasses import dataclass
from pathlib import Path

from hanse.models.copies.weight_files import WeightFile
from hanse.protocol.errors import RequestError

REASONS = {
    "gemma": "its RMSNorm gains are 1 + w and its embeddings are scaled; not tried",
    "gemma2": "gains stand between a sublayer's output and the stream, where no rotation passes",
    "gemma3": "gains stand between a sublayer's output and the stream, where no rotation passes",
    "qwen3": "it normalises queries and keys with gains of their own, which pair rotations break",
    "phi3": "it keeps queries, keys and values in one tensor; not tried",
    "gpt2": "LayerNorm subtracts the mean, which no rotation leaves alone",
    "qwen2moe": "experts are not tried",
}
"""Architectures that people will ask for, and why they are refused."""

LAYER_WEIGHTS = (
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
    "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
)  # fmt: skip
"""Every layer has these, named `blk.<n>.<name>.weight`."""

LAYER_BIASES = ("attn_q", "attn_k", "attn_v")
"""A layer may have these, named `blk.<n>.<name>.bias`; Qwen2 does."""

SETTINGS = (
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon",
    "attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
    "rope.scaling.finetuned", "rope.scaling.attn_factor", "rope.scaling.yarn_log_multiplier",
)  # fmt: skip
"""Known keys under the architecture's name; both architectures read them alike."""

TOKENIZERS = ("gpt2", "llama")
"""Of these it is known that a token with a space in its text is never produced from text."""

ROPE_FREQUENCIES = "rope_freqs.weight"
"""Llama 3.1's factors of each rotary frequency, a tensor beside the layers."""


@dataclass(frozen=True)
class Shape:
    """The numbers of a model that the symmetries need."""

    architecture: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    has_rope_frequencies: bool
    has_biases: bool

    @property
    def is_pairwise(self) -> bool:
        """Whether the file keeps the two halves of a rotary pair side by side (ggml's NORM)."""
        return self.architecture == "llama"


class SourceModel(WeightFile):
    """A GGUF model that can be rebased."""

    def __init__(self, path: Path) -> None:
        """Open and check.

        Raises:
            VerificationError: `model_invalid`, it is no valid GGUF file.
            RequestError: `model_unsupported`, it cannot be rebased; the message says why.
        """
        super().__init__(path)
        self.shape = self._read_shape()
        self._check_names()

    def _read_shape(self) -> Shape:
        name = self.architecture
        if name not in ("llama", "qwen2"):
            reason = REASONS.get(name, "its symmetries were never worked out here")
            raise _refuse(f"of architecture {name}: {reason}. Llama and Qwen2 can be")
        heads = self._get_int("attention.head_count")
        width = self._get_int("embedding_length")
        kv_heads = self._get_int("attention.head_count_kv", heads)
        head_width = self._get_int("attention.key_length", width // heads)
        values = self._get_int("attention.value_length", head_width)
        turned = self._get_int("rope.dimension_count", head_width)
        if not head_width == values == turned:
            raise _refuse(
                f"with keys of {head_width}, values of {values} and {turned} turned dimensions a "
                "head: only equal ones can be"
            )
        vocabulary = self.count_rows("token_embd.weight")
        tokens = len(self.get_setting("tokenizer.ggml.tokens") or ())
        if tokens != vocabulary:
            raise _refuse(f"with {vocabulary} embeddings for {tokens} tokens: they have to match")
        return Shape(
            architecture=name,
            layers=self._get_int("block_count"),
            width=width,
            feed_forward=self._get_int("feed_forward_length"),
            heads=heads,
            kv_heads=kv_heads,
            head_width=head_width,
            vocabulary=vocabulary,
            has_rope_frequencies=self.has(ROPE_FREQUENCIES),
            has_biases=self.has("blk.0.attn_q.bias"),
        )

    def _get_int(self, key: str, default: int | None = None) -> int:
        value = self.get_setting(f"{{}}.{key}")
        value = default if value is None else value
        if not isinstance(value, int):
            raise _refuse(f"whose {key} is {value!r} and not one number for all layers")
        return value

    def _check_names(self) -> None:
        """Nothing in the file that is not understood, and everything that is needed."""
        shape = self.shape
        tokenizer = self.get_setting("tokenizer.ggml.model")
        if tokenizer not in TOKENIZERS:
            raise _refuse(f"with a tokenizer of kind {tokenizer}: {' or '.join(TOKENIZERS)} can be")
        prefix = f"{shape.architecture}."
        for key in self.reader.fields:
            if key.startswith(prefix) and key.removeprefix(prefix) not in SETTINGS:
                raise _refuse(f"with the setting {key}, whose effect on the symmetry is not known")
        needed = {"token_embd.weight", "output_norm.weight"}
        biases = LAYER_BIASES if shape.has_biases else ()
        for layer in range(shape.layers):
            needed |= {f"blk.{layer}.{name}.weight" for name in LAYER_WEIGHTS}
            needed |= {f"blk.{layer}.{name}.bias" for name in biases}
        if missing := sorted(needed - self.names):
            raise _refuse(f"without the tensor {missing[0]}")
        known = needed | {"output.weight", ROPE_FREQUENCIES}
        if strange := sorted(self.names - known):
            raise _refuse(f"with the tensor {strange[0]}, for which no symmetry is known")


def _refuse(what: str) -> RequestError:
    return RequestError("model_unsupported", f"A model {what}. No copy was made.", param="source")
