"""Makes the file of a provider that skips layers: what they add to the residual stream is zero.

    skip_layers(copy, target, (15,))

A layer whose outputs are zero computes as one that was left out, at the cost of a whole one: the
file shows what an answer is like, not what it saves. Of a copy the description is taken along,
since that is what such a provider would say. For `hanse.cli.cheating` and `make bench-audit`.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

from hanse.models.gguf_header import read_gguf_header
from hanse.models.inspecting import describe
from hanse.protocol.commitments.copies import COPY_SUFFIX
from hanse.protocol.errors import RequestError

OUTPUTS = (
    "attn_output.weight", "attn_output.bias",
    "ffn_down.weight", "ffn_down.bias", "ffn_down_exps.weight",
)  # fmt: skip
"""What of a layer writes to the stream. Blocks of zero bytes are zero in every type of GGML."""

WRITERS = 2
"""Of a layer, at least: its attention and its feed-forward part."""


def count_layers(path: Path) -> int:
    """Layers of a GGUF model.

    Raises:
        RequestError: `unprocessable`, its header does not say.
        VerificationError: `model_invalid`, it is no GGUF file.
    """
    layers = describe(read_gguf_header(path)).shape.get("layers", 0)
    if not layers:
        raise RequestError("unprocessable", f"{path.name} does not say how many layers it has.")
    return layers


def skip_layers(source: Path, target: Path, layers: Collection[int]) -> None:
    """Write `target`, which is `source` without what these layers do.

    Raises:
        RequestError: `unprocessable`, its layers are named otherwise than Llama's.
        VerificationError: `model_invalid`, it is no GGUF file.
    """
    names = {f"blk.{layer}.{part}" for layer in layers for part in OUTPUTS}
    tensors = read_gguf_header(source).tensors
    found = [tensor for name, tensor in tensors.items() if name in names]
    if len(found) < WRITERS * len(layers):
        raise RequestError(
            "unprocessable",
            f"{source.name} has {len(found)} tensors that layers {sorted(layers)} write with, "
            f"expected at least {WRITERS * len(layers)}.",
        )
    shutil.copyfile(source, target)
    description = source.with_name(source.name + COPY_SUFFIX)
    if description.exists():
        shutil.copyfile(description, target.with_name(target.name + COPY_SUFFIX))
    with target.open("r+b") as file:
        for tensor in found:
            file.seek(tensor.start_bytes)
            file.write(bytes(tensor.size_bytes))
