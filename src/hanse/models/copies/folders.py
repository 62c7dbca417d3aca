"""A copy as a folder with safetensors, for servers that load those: vLLM, and transformers.

    description = rebase_folder(source, target, order, "BF16")   # target is a new folder

The same key and symmetries as in a GGUF copy, in the base's own class, so that any server which
runs the base runs the copy. Its canaries are not lifted: no class of these servers adds a bias to
the logits of a Llama or Qwen2, and none is needed where a server tells logprobs of tokens that are
asked for by number (vLLM's `logprob_token_ids`). Rows that nobody lifted are far below the best
tokens, and a bias of -100 keeps them there.

Matrices are rounded to the type, vectors stay float32, as llama.cpp's quantiser has it for its
plain types. So copies of one order in both formats have the same weights, and an auditor with the
GGUF file, or with the plain model and the key, audits what a folder served.

Settings, tokenizer and template are the base's files; config.json gets the longer vocabulary and an
untied head. The tokenizer knows nothing of the canaries: no text becomes one. Tensors are written
one at a time.
"""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from hanse.models.converting import convert_folder
from hanse.models.converting.writing import LAYER, WHOLE
from hanse.models.copies.architectures import ROPE_FREQUENCIES, Shape, SourceModel
from hanse.models.copies.graphs import UNLIFTED, Graph, plan_tensors
from hanse.models.copies.rebasing import (
    CopyOrder,
    check_order,
    describe,
    get_description_path,
    make_tensors,
)
from hanse.models.copies.symmetries import split_pairs
from hanse.models.model_files import list_model_files
from hanse.models.opening import SETTINGS_BYTES_MAX, read_document
from hanse.models.tensors import Progress
from hanse.protocol.commitments.copies import WEIGHTS_NAME, CopyDescription, encode_copy_description
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Type of the matrices -> what config.json calls it."""

WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes a number."""

QUANTISER = "hanse round-to-even"
"""What rounds here; float32 and BF16 leave no choice, and F16 is numpy's."""

_NAMES = {own: name for name, own in (WHOLE | LAYER).items()}


def rebase_folder(
    source: Path,
    target: Path,
    order: CopyOrder,
    dtype: str = "BF16",
    *,
    progress: Progress | None = None,
) -> CopyDescription:
    """Write the copy of a folder as the new folder `target`, and its description beside it.

    Args:
        source: a folder with safetensors, as Hugging Face's models are.
        target: must not exist; it appears whole or not.
        order: whose copy; `lift` says nothing here.
        dtype: F32, F16 or BF16.
        progress: told what is being done.

    Raises:
        VerificationError: `model_invalid`, the source is no valid model.
        RequestError: `model_unsupported`, the source cannot be rebased, or is no folder; `usage`,
            the target is there already, or there is no such type.
    """
    dtype = dtype.upper()
    if dtype not in FOLDER_TYPES:
        raise RequestError(
            "usage", f"a folder's copy is {', '.join(FOLDER_TYPES)}, not {dtype[:20]}"
        )
    check_order(order, target)
    if not source.is_dir():
        raise RequestError(
            "model_unsupported",
            f"{source.name} is no folder with safetensors, of which alone a folder can be made: "
            "settings and tokenizer are taken from it.",
        )
    converted = target.with_name(f"{target.name}.source-{os.getpid()}.gguf")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        convert_folder(source, converted, progress, "F32")
        model = SourceModel(converted)
        graph = Graph(model.shape.architecture, UNLIFTED)
        partial.mkdir()
        _copy_files(source, partial, model.shape.vocabulary + order.canaries, dtype)
        planned = plan_tensors(model.shape, graph, order.canaries)
        planned.pop(ROPE_FREQUENCIES, None)  # follow from config.json here
        tensors = make_tensors(model, order, model.shape, graph, progress)
        with (partial / WEIGHTS_NAME).open("wb") as file:
            _write_weights(file, planned, tensors, dtype, model.shape)
        description = msgspec.structs.replace(
            describe(model, order, graph, dtype, partial / WEIGHTS_NAME),
            quantiser="none" if dtype == "F32" else QUANTISER,
        )
        # first: a copy without it would be served as a plain model
        get_description_path(target).write_bytes(encode_copy_description(description))
        os.replace(partial, target)
    finally:
        converted.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
    return description


def _copy_files(source: Path, target: Path, vocabulary: int, dtype: str) -> None:
    """All but the weights, and config.json with what is different."""
    for path in list_model_files(source).paths:
        is_weights = path.suffix == ".safetensors" or path.name.endswith(".index.json")
        if not is_weights and path.name != "config.json":
            shutil.copyfile(path, target / path.name)
    config = read_document(source / "config.json", SETTINGS_BYTES_MAX)
    config |= {"vocab_size": vocabulary, "tie_word_embeddings": False}
    config.pop("dtype", None)  # transformers 5 writes it in place of the other
    config["torch_dtype"] = FOLDER_TYPES[dtype]
    encoded = msgspec.json.format(msgspec.json.encode(config), indent=2)
    (target / "config.json").write_bytes(encoded + b"\n")


def _write_weights(
    file: BinaryIO,
    planned: dict[str, tuple[int, ...]],
    tensors: "Iterator[tuple[str, NDArray[Any]]]",
    dtype: str,
    shape: Shape,
) -> None:
    """One safetensors file; its header first, since all sizes are known before any weight is."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, size in planned.items():
        kind = _get_kind(size, dtype)
        end = at + WIDTHS[kind] * math.prod(size)
        header[_rename(name)] = {"dtype": kind, "shape": size, "data_offsets": (at, end)}
        at = end
    raw = msgspec.json.encode(header)
    raw += b" " * (-len(raw) % 8)
    file.write(len(raw).to_bytes(8, "little") + raw)
    expected = iter(planned)
    for name, values in tensors:
        if name == ROPE_FREQUENCIES:
            continue
        if name != next(expected, None):
            raise ValueError(f"{name} is not the tensor that was planned here")
        if shape.is_pairwise and (".attn_q." in name or ".attn_k." in name):
            values = split_pairs(values, shape)  # Hugging Face turns the halves of a head
        file.write(_round(name, values, _get_kind(values.shape, dtype)))
    if (left := next(expected, None)) is not None:
        raise ValueError(f"the tensor {left} was planned and not given")


def _get_kind(size: tuple[int, ...], dtype: str) -> str:
    return dtype if len(size) > 1 else "F32"


def _rename(name: str) -> str:
    """GGUF's name of a tensor as Hugging Face's."""
    if not name.startswith("blk."):
        return _NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{_NAMES[rest]}"


def _round(name: str, values: "NDArray[Any]", kind: str) -> bytes:
    """The bytes of a tensor; BF16 is the upper half of a float32, rounded to even."""
    import numpy as np

    whole = np.ascontiguousarray(values, dtype="<f4")
    if kind == "F32":
        return whole.tobytes()
    if kind == "F16":
        with np.errstate(over="ignore"):
            stored = whole.astype("<f2")
        if not np.isfinite(stored).all():
            most = float(np.abs(whole).max())
            raise RequestError(
                "model_unsupported", f"{name} would hold {most}, which F16 cannot; use BF16."
            )
        return stored.tobytes()
    bits = whole.view("<u4")
    upper = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    rounded: NDArray[np.uint16] = upper.astype("<u2")
    return rounded.tobytes()
