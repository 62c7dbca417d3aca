"""Models as they are shown: documents for programs, tables for people."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hanse.cli.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hanse.models.inspecting import Description
    from hanse.models.tensors import Tensor

TEMPLATE_CHARACTERS = 400
"""Of a chat template in the table; `--json` has all of it."""


def describe_to_document(description: "Description", tensors: Sequence["Tensor"]) -> dict[str, Any]:
    """The JSON document of `hanse models inspect`."""
    document = asdict(description)
    document["bits_per_weight"] = document.pop("bits_per_weight_x100") / 100
    if tensors:
        document["tensors"] = [
            {"name": t.name, "shape": t.shape, "dtype": t.dtype, "size_bytes": t.size_bytes}
            for t in tensors
        ]
    return document


def render_description(
    output: Output, description: "Description", tensors: Sequence["Tensor"]
) -> "RenderableType":
    """What people read of `hanse models inspect`."""
    from rich.console import Group

    template = description.chat_template
    if len(template) > TEMPLATE_CHARACTERS:
        template = f"{template[:TEMPLATE_CHARACTERS]} ... ({len(template)} characters)"
    shape = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in description.shape.items())
    fields = output.fields(
        (
            ("architecture", description.architecture),
            ("shape", shape or "not stated"),
            ("weights", f"{description.weights:,}"),
            (
                "stored",
                f"{format_bytes(description.size_bytes)}, {description.quantisation}, "
                f"{description.bits_per_weight_x100 / 100:.2f} bits a weight",
            ),
            ("output head", "the embedding table" if description.is_head_tied else "its own"),
            ("tokenizer", f"{description.tokenizer}; {description.vocabulary or 'unknown'} tokens"),
            ("licence", description.licence or "not stated"),
            ("chat template", template or "none"),
        )
    )
    types = output.table(
        ("type", "tensors>", "weights>", "bytes>"),
        [(t.dtype, t.tensors, t.weights, t.size_bytes) for t in description.types],
    )
    parts: list[RenderableType] = [fields, types]
    if tensors:
        rows = [(t.name, " x ".join(map(str, t.shape)), t.dtype, t.size_bytes) for t in tensors]
        parts.append(output.table(("tensor", "shape", "type", "bytes>"), rows))
    return Group(*parts)


def format_bytes(size_bytes: int) -> str:
    """Bytes in the unit that people read."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} bytes"
