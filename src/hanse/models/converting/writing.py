"""Writes the GGUF file of a folder with safetensors, one tensor at a time.

Llama's queries and keys are laid out anew: Hugging Face rotates the two halves of a head, llama.cpp
neighbouring numbers. Qwen2's stay, since its graph rotates halves too. Vectors stay float32.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.models.converting.config import ModelConfig, read_config
from hanse.models.converting.tokenizing import Vocabulary, read_vocabulary
from hanse.models.gguf_header import read_gguf_header
from hanse.models.manifest import find_licence, get_name
from hanse.models.opening import open_model
from hanse.models.quantising.calling import run_job
from hanse.models.quantising.costs import OWN_TEXT
from hanse.models.quantising.worker import TokeniseJob
from hanse.models.tensors import Header, Progress, Tensor
from hanse.models.weights import read_weights
from hanse.protocol.errors import RequestError, VerificationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
"""Hugging Face's name below `model.layers.<n>.` -> GGUF's below `blk.<n>.`."""
SKIPPED = "rotary_emb.inv_freq"
"""Old files carry these; they follow from the settings."""
FILE_TYPES = {"F32": 0, "F16": 1}


def convert_folder(
    folder: Path, target: Path, progress: Progress | None = None, dtype: str = "F16"
) -> None:
    """Write the model in `folder` as the GGUF file `target`; it appears whole or not at all.

    Raises:
        RequestError: `model_unsupported`, with what is not known here.
        VerificationError: `model_invalid`, the folder is broken or contradicts itself.
    """
    files, header = open_model(folder)
    if header.format != "safetensors" or not folder.is_dir():
        raise RequestError("model_unsupported", f"{folder} is no folder with safetensors.")
    by_name = {path.name: path for path in files.paths}
    if "tokenizer.json" not in by_name:
        raise RequestError(
            "model_unsupported",
            f"{folder.name} has no tokenizer.json; save it with transformers' fast tokenizer.",
        )
    config = read_config(folder / "config.json")
    named = name_tensors(header, config)
    vocabulary = read_vocabulary(by_name["tokenizer.json"], config.vocabulary)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        _write(partial, folder, header, config, vocabulary, named, dtype, progress)
        read_gguf_header(partial)
        _verify_tokens(partial, by_name["tokenizer.json"])
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def name_tensors(header: Header, config: ModelConfig) -> dict[str, Tensor]:
    """Every tensor under GGUF's name, all that must be there and none besides.

    Raises:
        RequestError: `model_unsupported`, a tensor of which nothing is known here.
        VerificationError: `model_invalid`, one is missing or has another shape.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in header.tensors.items():
        if name.endswith(SKIPPED):
            continue
        found[_rename(name, config.layers)] = tensor
    if config.is_tied:
        found.pop("output.weight", None)
    expected = _plan_shapes(config, has_biases="blk.0.attn_q.bias" in found)
    for name, shape in expected.items():
        if name not in found:
            raise VerificationError("model_invalid", f"The model has no tensor for {name}.")
        if found[name].shape != shape:
            raise VerificationError(
                "model_invalid",
                f"{found[name].name} has the shape {found[name].shape}, config.json says {shape}.",
            )
    besides = sorted(found.keys() - expected.keys())
    if besides:
        raise RequestError(
            "model_unsupported",
            f"No conversion of the tensor {found[besides[0]].name!r}: nothing here knows it.",
        )
    return {name: found[name] for name in expected}


def _rename(name: str, layers: int) -> str:
    if name in WHOLE:
        return WHOLE[name]
    parts = name.split(".", 3)
    if parts[:2] == ["model", "layers"] and len(parts) == 4 and parts[3] in LAYER:
        number = int(parts[2]) if parts[2].isdecimal() and len(parts[2]) < 5 else layers
        if number < layers:
            return f"blk.{number}.{LAYER[parts[3]]}"
    raise RequestError(
        "model_unsupported", f"No conversion of the tensor {name!r}: nothing here knows it."
    )


def _plan_shapes(config: ModelConfig, has_biases: bool) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the model must have."""
    width, inner = config.width, config.heads * config.head_width
    keys = config.kv_heads * config.head_width
    planned: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.vocabulary, width)}
    for layer in range(config.layers):
        block = f"blk.{layer}."
        for name, shape in (
            ("attn_norm", (width,)),
            ("attn_q", (inner, width)),
            ("attn_k", (keys, width)),
            ("attn_v", (keys, width)),
            ("attn_output", (width, inner)),
            ("ffn_norm", (width,)),
            ("ffn_gate", (config.feed_forward, width)),
            ("ffn_up", (config.feed_forward, width)),
            ("ffn_down", (width, config.feed_forward)),
        ):
            planned[f"{block}{name}.weight"] = shape
        if has_biases:
            planned |= {
                f"{block}attn_q.bias": (inner,),
                f"{block}attn_k.bias": (keys,),
                f"{block}attn_v.bias": (keys,),
            }
    planned["output_norm.weight"] = (width,)
    if not config.is_tied:
        planned["output.weight"] = (config.vocabulary, width)
    return planned


def _write(
    partial: Path,
    folder: Path,
    header: Header,
    config: ModelConfig,
    vocabulary: Vocabulary,
    named: dict[str, Tensor],
    dtype: str,
    progress: Progress | None,
) -> None:
    import numpy as np
    from gguf import GGUFWriter

    writer: Any = GGUFWriter(str(partial), config.architecture)
    writer.add_name(get_name(header, folder))
    if licence := find_licence(header, folder):
        writer.add_license(licence)
    _write_settings(writer, config)
    writer.add_file_type(FILE_TYPES[dtype])
    _write_vocabulary(writer, folder, vocabulary)
    if config.rope_factors:
        shape = (len(config.rope_factors),)
        writer.add_tensor_info("rope_freqs.weight", shape, np.dtype(np.float32), 4 * shape[0])
    for name, tensor in named.items():
        kind = np.dtype(np.float32 if len(tensor.shape) == 1 or dtype == "F32" else np.float16)
        size_bytes = kind.itemsize * math.prod(tensor.shape)
        writer.add_tensor_info(name, tensor.shape, kind, size_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for index, values in enumerate(_iterate_values(config, named, dtype)):
        if progress:
            progress(f"writing {dtype}", index / len(named))
        writer.write_tensor_data(np.ascontiguousarray(values))
    writer.close()


def _write_settings(writer: Any, config: ModelConfig) -> None:
    from gguf import RopeScalingType

    writer.add_block_count(config.layers)
    writer.add_context_length(config.context_tokens)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.feed_forward)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_vocab_size(config.vocabulary)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_rope_dimension_count(config.head_width)
    if config.head_width * config.heads != config.width:
        writer.add_key_length(config.head_width)
        writer.add_value_length(config.head_width)
    if config.rope_linear != 1:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_linear)


def _write_vocabulary(writer: Any, folder: Path, vocabulary: Vocabulary) -> None:
    """Tokens by our reading; merges, special tokens and the chat template by the gguf package's."""
    from gguf import SpecialVocab

    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.kinds))
    if vocabulary.scores:
        writer.add_token_scores(list(vocabulary.scores))
        writer.add_add_space_prefix(vocabulary.adds_space)
    try:
        special = SpecialVocab(folder, load_merges=vocabulary.model == "gpt2", n_vocab=None)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise VerificationError(
            "model_invalid", f"The tokenizer's settings cannot be read: {error}."
        ) from error
    special.add_to_gguf(writer, quiet=True)


def _iterate_values(
    config: ModelConfig, named: dict[str, Tensor], dtype: str
) -> "Iterator[NDArray[Any]]":
    """Every tensor as it is stored, in the order in which they were announced."""
    import numpy as np

    if config.rope_factors:
        yield np.array(config.rope_factors, dtype=np.float32)
    for name, tensor in named.items():
        values = read_weights(tensor)
        if config.architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
            values = _pair_neighbours(values, config.head_width)
        if len(tensor.shape) > 1 and dtype == "F16":
            with np.errstate(over="ignore"):
                stored = values.astype(np.float16)
            if not np.isfinite(stored).all():
                raise RequestError(
                    "model_unsupported",
                    f"{tensor.name} holds {float(np.abs(values).max())}, which F16 cannot.",
                )
            yield stored
        else:
            yield values


def _pair_neighbours(values: "NDArray[np.float32]", head_width: int) -> "NDArray[np.float32]":
    """The two halves of each head's rows, interleaved."""
    rows, rest = values.shape[0], values.shape[1:]
    halves = values.reshape(rows // head_width, 2, head_width // 2, *rest)
    return halves.swapaxes(1, 2).reshape(rows, *rest)


def _verify_tokens(path: Path, tokenizer: Path) -> None:
    """Hold llama.cpp's tokens of our text against Hugging Face's.

    Raises:
        RequestError: `model_unsupported`, they differ.
    """
    from tokenizers import Tokenizer

    text = OWN_TEXT.read_text()
    try:
        reading = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # the package raises no narrower one
        raise VerificationError(
            "model_invalid", f"tokenizer.json cannot be read: {error}."
        ) from error
    wanted = reading.encode(text, add_special_tokens=False).ids
    got = run_job(TokeniseJob(model=str(path), texts=(text,)))["tokens"][0]
    if got != wanted:
        at = next(
            (i for i, pair in enumerate(zip(got, wanted, strict=False)) if pair[0] != pair[1]), -1
        )
        raise RequestError(
            "model_unsupported",
            f"llama.cpp would read text otherwise than this tokenizer: {len(got)} tokens against "
            f"{len(wanted)} of our text, first at {at}.",
        )
