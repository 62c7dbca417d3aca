"""What a model is, from its headers alone: architecture, sizes, tokenizer, template, licence."""

from collections import Counter
from dataclasses import dataclass

from hanse.models.ggml_types import FILE_TYPES
from hanse.models.tensors import Header, ListValue

UNKNOWN = "unknown"

_SHAPE_KEYS = (
    ("layers", "block_count", "num_hidden_layers"),
    ("width", "embedding_length", "hidden_size"),
    ("feed_forward", "feed_forward_length", "intermediate_size"),
    ("heads", "attention.head_count", "num_attention_heads"),
    ("key_value_heads", "attention.head_count_kv", "num_key_value_heads"),
    ("context_tokens", "context_length", "max_position_embeddings"),
    ("experts", "expert_count", "num_local_experts"),
)
"""Our name, GGUF's key below the architecture, config.json's key."""


@dataclass(frozen=True)
class TypeShare:
    """How much of the model is stored in one type."""

    dtype: str
    tensors: int
    weights: int
    size_bytes: int


@dataclass(frozen=True)
class Description:
    """A model, as its headers describe it.

    Attributes:
        shape: layers, width and so on, by our names; what the header does not say is missing.
        vocabulary: tokens; None where the header does not say.
        tokenizer: kind and pre-tokenizer, such as `gpt2, smollm`.
        chat_template: Jinja, as the model has it; empty without one.
        bits_per_weight: over all tensors, times 100 and rounded.
        types: what its tensors are stored in, the largest share first.
        is_head_tied: whether the output head is the embedding table.
    """

    architecture: str
    quantisation: str
    weights: int
    size_bytes: int
    bits_per_weight_x100: int
    shape: dict[str, int]
    vocabulary: int | None
    tokenizer: str
    chat_template: str
    licence: str
    is_head_tied: bool
    types: tuple[TypeShare, ...]


def describe(header: Header, licence: str = "", chat_template: str = "") -> Description:
    """Describe a model; licence and template where they lie in files of their own."""
    return Description(
        architecture=get_architecture(header),
        quantisation=get_quantisation(header),
        weights=header.weights,
        size_bytes=header.size_bytes,
        bits_per_weight_x100=round(800 * header.size_bytes / max(1, header.weights)),
        shape=_get_shape(header),
        vocabulary=_find_vocabulary(header),
        tokenizer=_get_tokenizer(header),
        chat_template=header.find_text("tokenizer.chat_template") or chat_template,
        licence=licence or header.find_text("general.license"),
        is_head_tied=not {"output.weight", "lm_head.weight"} & header.tensors.keys(),
        types=get_types(header),
    )


def get_architecture(header: Header) -> str:
    """GGUF's name (`llama`), or the class that config.json names (`LlamaForCausalLM`)."""
    if header.format == "gguf":
        return header.find_text("general.architecture") or UNKNOWN
    return (
        header.find_text("config.architecture") or header.find_text("config.model_type") or UNKNOWN
    )


def get_quantisation(header: Header) -> str:
    """The usual name of the mix, such as `Q4_K_M`; without one, the type of most weights."""
    kind = header.find_int("general.file_type")
    name = FILE_TYPES.get(kind) if kind is not None and header.format == "gguf" else None
    types = get_types(header)
    return name or (types[0].dtype if types else UNKNOWN)


def get_types(header: Header) -> tuple[TypeShare, ...]:
    """The storage types, the one of most weights first."""
    tensors, weights, size_bytes = Counter[str](), Counter[str](), Counter[str]()
    for tensor in header.tensors.values():
        tensors[tensor.dtype] += 1
        weights[tensor.dtype] += tensor.weights
        size_bytes[tensor.dtype] += tensor.size_bytes
    return tuple(
        TypeShare(dtype, tensors[dtype], count, size_bytes[dtype])
        for dtype, count in weights.most_common()
    )


def _get_shape(header: Header) -> dict[str, int]:
    prefix = get_architecture(header)
    found = {}
    for name, in_gguf, in_config in _SHAPE_KEYS:
        key = f"{prefix}.{in_gguf}" if header.format == "gguf" else f"config.{in_config}"
        value = header.find_int(key)
        if value is not None:
            found[name] = value
    return found


def _find_vocabulary(header: Header) -> int | None:
    tokens = header.values.get("tokenizer.ggml.tokens")
    if isinstance(tokens, ListValue):
        return tokens.count
    return header.find_int("config.vocab_size")


def _get_tokenizer(header: Header) -> str:
    parts = (header.find_text(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    return ", ".join(part for part in parts if part) or (
        UNKNOWN if header.format == "gguf" else "tokenizer.json"
    )
