"""A Llama-family model's weights and shape as torch tensors, from GGUF or safetensors.

Names are GGUF's. Architectures: `llama` and `qwen2`, which differ in how rotary positions pair the
dimensions of a head, in biases, and in a bias of the logits, which qwen2's graph has; and copies of
Llama 3.1, which name themselves `phimoe` for a graph with rotary factors and that bias, of one
expert, whose norms have biases of zero.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hanse.protocol.errors import RequestError

ARCHITECTURES = ("llama", "qwen2", "phimoe")

ROPE_FACTORS = "rope_freqs.weight"
"""What each rotary frequency is divided by; Llama 3.1 has them, most models have none."""


@dataclass(frozen=True)
class ModelShape:
    """What the weights do not say.

    Attributes:
        layers, heads, key_value_heads, head_width: of the attention.
        epsilon: of the RMSNorms.
        rope_base: of the rotary positions.
        pairs_neighbours: whether those turn dimensions 2i and 2i + 1, else i and i + half.
        context_tokens: the model was trained with.
    """

    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    epsilon: float
    rope_base: float
    pairs_neighbours: bool
    context_tokens: int


def load_weights(path: Path) -> tuple[ModelShape, dict[str, Any]]:
    """Shape and weights in single precision: of a GGUF file, or of a folder with safetensors.

    Raises:
        RequestError: a package is missing, or the model is of a kind that is not run here.
    """
    if path.is_dir():
        return _load_folder(path)
    return _load_gguf(path)


def _load_gguf(path: Path) -> tuple[ModelShape, dict[str, Any]]:
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(str(path))
    fields = {name: field for name, field in reader.fields.items() if "tokenizer" not in name}
    kind = str(fields["general.architecture"].contents())
    _check_kind(kind)

    def read(name: str, default: float) -> float:
        field = fields.get(f"{kind}.{name}")
        return field.contents() if field else default

    width = int(read("embedding_length", 0))
    heads = int(read("attention.head_count", 1))
    if f"{kind}.rope.scaling.type" in fields and fields[f"{kind}.rope.scaling.type"].contents() != (
        "none"
    ):
        raise _refuse("its rotary positions are scaled")
    shape = ModelShape(
        layers=int(read("block_count", 0)),
        heads=heads,
        key_value_heads=int(read("attention.head_count_kv", heads)),
        head_width=int(read("attention.key_length", width // heads)),
        epsilon=float(read("attention.layer_norm_rms_epsilon", 1e-5)),
        rope_base=float(read("rope.freq_base", 10_000.0)),
        pairs_neighbours=kind == "llama",
        context_tokens=int(read("context_length", 2_048)),
    )
    weights = {
        tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        for tensor in reader.tensors
    }
    return shape, _make_plain(weights) if kind == "phimoe" else weights


def _make_plain(weights: dict[str, Any]) -> dict[str, Any]:
    """A copy's weights in Phi's graph under Llama's names; of a real Phi they are refused."""
    import torch

    plain: dict[str, Any] = {}
    for name, tensor in weights.items():
        if name.endswith("_exps.weight"):
            if len(tensor) != 1:
                raise _refuse(f"it has {len(tensor)} experts")
            plain[name.replace("_exps", "")] = tensor[0]
        elif name.endswith("norm.bias"):
            if tensor.any():
                raise _refuse("its norms have biases")
        elif name == "rope_factors_short.weight":
            if not torch.equal(tensor, weights["rope_factors_long.weight"]):
                raise _refuse("its rotary factors differ by the context's length")
            plain[ROPE_FACTORS] = tensor
        else:
            plain[name] = tensor
    return plain


class _Config(msgspec.Struct):
    """What is needed of a `config.json`."""

    model_type: str
    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: Any = None
    rope_parameters: dict[str, Any] | None = None
    max_position_embeddings: int = 2_048


_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _load_folder(path: Path) -> tuple[ModelShape, dict[str, Any]]:
    from safetensors.torch import load_file

    try:
        config = msgspec.json.decode((path / "config.json").read_bytes(), type=_Config)
    except (OSError, msgspec.DecodeError) as error:
        raise _refuse(f"its config.json cannot be read ({error})") from error
    _check_kind(config.model_type)
    rope = config.rope_parameters or {}  # transformers 5 writes base and scaling here
    if config.rope_scaling or rope.get("rope_type", "default") != "default":
        raise _refuse("its rotary positions are scaled")
    weights: dict[str, Any] = {}
    for file in sorted(path.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            weights[_rename(name)] = tensor.float()
    heads = config.num_attention_heads
    shape = ModelShape(
        layers=config.num_hidden_layers,
        heads=heads,
        key_value_heads=config.num_key_value_heads or heads,
        head_width=config.head_dim or config.hidden_size // heads,
        epsilon=config.rms_norm_eps,
        rope_base=float(rope.get("rope_theta", config.rope_theta)),
        pairs_neighbours=False,  # Hugging Face keeps both kinds so
        context_tokens=config.max_position_embeddings,
    )
    return shape, weights


def _rename(name: str) -> str:
    name = name.removeprefix("model.")
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        part, _, kind = rest.rpartition(".")
        return f"blk.{layer}.{_NAMES.get(part, part)}.{kind}"
    return {
        "embed_tokens.weight": "token_embd.weight",
        "norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        "lm_head.bias": "output.bias",
    }.get(name, name)


def _check_kind(kind: str) -> None:
    if kind not in ARCHITECTURES:
        raise _refuse(f"it is a {kind}, only {' and '.join(ARCHITECTURES)} are run")


def _refuse(why: str) -> RequestError:
    return RequestError(
        "configuration_invalid", f"The model cannot be run by torch here: {why}; use llama.cpp."
    )
