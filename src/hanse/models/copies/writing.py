"""Writes a copy: metadata and vocabulary of the base with the canaries added, then the tensors.

The tensors come one at a time, so that a model larger than memory can be written; the file is
float32, and llama.cpp's own quantiser makes the served one of it (`hanse.models.quantising`).
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.models.copies.architectures import Shape, SourceModel
from hanse.models.copies.canaries import CANARY_TEXT
from hanse.models.copies.graphs import Graph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Named = tuple[str, NDArray[np.float32]]

UNUSED = 5
"""Token type in GGUF: never made from text, never shown."""

SCORE = -1e9
"""Of a canary in SentencePiece vocabularies: the last choice of all."""


def write_tensors(
    source: SourceModel,
    target: Path,
    served: Shape,
    graph: Graph,
    planned: Mapping[str, tuple[int, ...]],
    tensors: "Iterator[Named]",
) -> None:
    """Write the float32 file; `tensors` gives every planned one, in that order."""
    import numpy as np
    from gguf import GGUFWriter

    rows = planned["token_embd.weight"][0]
    writer: Any = GGUFWriter(str(target), graph.name)
    _write_metadata(source, writer, served, graph, rows - source.shape.vocabulary)
    for name, shape in planned.items():
        size_bytes = 4 * int(np.prod(shape))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    expected = iter(planned.items())
    for name, values in tensors:
        if (name, values.shape) != next(expected):
            raise ValueError(f"{name} of {values.shape} is not the tensor that was planned here")
        writer.write_tensor_data(np.ascontiguousarray(values, dtype=np.float32))
    if left := next(expected, None):
        raise ValueError(f"the tensor {left[0]} was planned and not given")
    writer.close()


def get_quantiser() -> str:
    """What quantises here, with its version."""
    return f"cyllama {version('cyllama')}"


def _write_metadata(
    source: SourceModel, writer: Any, served: Shape, graph: Graph, canaries: int
) -> None:
    """The base's metadata under the served architecture's name, and the longer vocabulary."""
    from gguf import GGUFValueType

    texts = [CANARY_TEXT.format(index) for index in range(canaries)]
    added: dict[str, list[Any]] = {
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [UNUSED] * canaries,
        "tokenizer.ggml.scores": [SCORE] * canaries,
    }
    own = f"{source.shape.architecture}."
    skipped = ("general.architecture", "general.file_type", "general.quantization_version")
    for key, field in source.reader.fields.items():
        if key.startswith("GGUF.") or key in skipped:
            continue
        value = field.contents()
        if key in added:
            value = [*value, *added[key]]
        if key == f"{own}vocab_size":
            value += canaries
        if key == f"{own}attention.head_count":
            value = served.heads
        if key.startswith(own):
            key = f"{graph.name}.{key.removeprefix(own)}"
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, field.types[0], inner)
    for key, value in graph.settings.items():
        writer.add_uint32(f"{graph.name}.{key}", value)
    writer.add_file_type(0)
