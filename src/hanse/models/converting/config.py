"""Reads config.json of a model of the Llama family or Qwen2; says why it cannot be converted."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.models.opening import SETTINGS_BYTES_MAX, read_document
from hanse.protocol.errors import RequestError, VerificationError

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
}
"""Class in config.json -> GGUF's name."""

LAYERS_MAX, WIDTH_MAX, VOCABULARY_MAX = 1_024, 2**20, 2**24
"""Above what any model has; what follows is allocated by them."""


@dataclass(frozen=True)
class ModelConfig:
    """What the converter needs to know.

    Attributes:
        architecture: GGUF's name.
        rope_base: theta of rotary positions.
        rope_linear: factor by which positions are divided; 1 for none.
        rope_factors: by which each frequency is divided (Llama 3's scaling); empty for none.
        is_tied: whether the output head is the embedding table.
    """

    architecture: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    context_tokens: int
    norm_epsilon: float
    rope_base: float
    rope_linear: float
    rope_factors: tuple[float, ...]
    is_tied: bool


def read_config(path: Path) -> ModelConfig:
    """The settings in a config.json.

    Raises:
        RequestError: `model_unsupported`, with the reason.
        VerificationError: `model_invalid`, a setting is missing or out of range.
    """
    raw = read_document(path, SETTINGS_BYTES_MAX)
    named = raw.get("architectures")
    first = str(named[0] if isinstance(named, list) and named else raw.get("model_type"))[:60]
    if first not in ARCHITECTURES:
        raise _refuse(f"of class {first}; {', '.join(ARCHITECTURES)} can be")
    if raw.get("hidden_act", "silu") != "silu":
        raise _refuse(f"with the activation {str(raw['hidden_act'])[:40]}; silu can be")
    if raw.get("use_sliding_window") or (
        first == "MistralForCausalLM" and raw.get("sliding_window")
    ):
        raise _refuse("with a sliding window of attention")
    if raw.get("mlp_bias"):
        raise _refuse("with biases in its feed-forward part")
    heads = _get_int(raw, "num_attention_heads", WIDTH_MAX)
    width = _get_int(raw, "hidden_size", WIDTH_MAX)
    head_width = _get_int(raw, "head_dim", WIDTH_MAX, width // heads)
    kv_heads = _get_int(raw, "num_key_value_heads", heads, heads)
    if heads % kv_heads or head_width % 2:
        raise _invalid(f"{heads} heads, {kv_heads} of them for keys, width {head_width} each")
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise _invalid("rope_scaling is no object")
    base = _get_number(rope if "rope_theta" in rope else raw, "rope_theta", 10_000.0)
    linear, factors = _read_scaling(rope, base, head_width)
    return ModelConfig(
        architecture=ARCHITECTURES[first],
        layers=_get_int(raw, "num_hidden_layers", LAYERS_MAX),
        width=width,
        feed_forward=_get_int(raw, "intermediate_size", WIDTH_MAX),
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        vocabulary=_get_int(raw, "vocab_size", VOCABULARY_MAX),
        context_tokens=_get_int(raw, "max_position_embeddings", 2**31 - 1, 2_048),
        norm_epsilon=_get_number(raw, "rms_norm_eps", 1e-6),
        rope_base=base,
        rope_linear=linear,
        rope_factors=factors,
        is_tied=bool(raw.get("tie_word_embeddings", False)),
    )


def _read_scaling(
    rope: dict[str, Any], base: float, head_width: int
) -> tuple[float, tuple[float, ...]]:
    """The divisor of positions, and those of each frequency."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return 1.0, ()
    if kind == "linear":
        return _get_number(rope, "factor"), ()
    if kind == "llama3":
        return 1.0, _get_llama3_factors(rope, base, head_width)
    raise _refuse(f"whose positions are scaled by {str(kind)[:40]}; linear and llama3 can be")


def _get_llama3_factors(rope: dict[str, Any], base: float, head_width: int) -> tuple[float, ...]:
    """Long waves are stretched, short ones left, those between partly.

    Source: the Llama 3.1 model card's scaling, as transformers' `rope_utils` has it.
    """
    factor = _get_number(rope, "factor")
    low, high = _get_number(rope, "low_freq_factor"), _get_number(rope, "high_freq_factor")
    trained = _get_number(rope, "original_max_position_embeddings")
    factors = []
    for index in range(head_width // 2):
        wave = 2 * math.pi * base ** (2 * index / head_width)
        if wave < trained / high:
            factors.append(1.0)
        elif wave > trained / low:
            factors.append(factor)
        else:
            smooth = (trained / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(factors)


def _get_int(raw: dict[str, Any], key: str, most: int, default: int | None = None) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _invalid(f"{key} is {str(value)[:40]}, 1 to {most} can be")
    return value


def _get_number(raw: dict[str, Any], key: str, default: float | None = None) -> float:
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, int | float) or not 0 < value < 1e12:
        raise _invalid(f"{key} is {str(value)[:40]}")
    return float(value)


def _refuse(what: str) -> RequestError:
    return RequestError("model_unsupported", f"No conversion to GGUF of a model {what}.")


def _invalid(what: str) -> VerificationError:
    return VerificationError("model_invalid", f"config.json contradicts itself: {what}.")
