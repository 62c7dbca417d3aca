"""`hanse models diff`: what differs between two models."""

import math
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.modelling.places import check_extra, find_model
from hanse.cli.modelling.progress import show_progress
from hanse.cli.session import Session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hanse.cli.output import Output
    from hanse.models.comparing import Difference
    from hanse.models.tensors import Tensor, Value

SHOWN = 12
"""Changed tensors in the table, the farthest first, unless all are asked for."""
VALUE_CHARACTERS = 60
"""Of a metadata value in the table."""


@command(
    "diff",
    short_help="Show what differs between two models.",
    examples=(
        ("A model and a smaller file of it", "hanse models diff model.F16.gguf model.Q4_0.gguf"),
        ("Every tensor, for a program", "hanse models diff a.gguf b.gguf --json"),
    ),
)
@click.argument("first")
@click.argument("second")
@click.option("--all", "all_tensors", is_flag=True, help="List every tensor that changed.")
@pass_session
def diff(session: Session, /, first: str, second: str, all_tensors: bool) -> None:
    """Compare the metadata and the weights of two models of one format.

    A tensor's error is the size of the difference over that of the larger one's weights. Exit code
    0 whether they differ or not; `same` in the JSON document says.
    """
    check_extra("numpy", "gguf")
    from hanse.models.comparing import compare
    from hanse.models.opening import open_model

    one, other = (open_model(find_model(name))[1] for name in (first, second))
    with show_progress(session.output) as progress:
        found = compare(one, other, progress)
    session.output.show(_to_document(found), lambda: _render(session.output, found, all_tensors))


def _to_document(found: "Difference") -> dict[str, Any]:
    return {
        "same": found.is_none,
        "metadata": [
            {"key": v.key, "first": _to_plain(v.first), "second": _to_plain(v.second)}
            for v in found.values
        ],
        "only_first": [tensor.name for tensor in found.only_first],
        "only_second": [tensor.name for tensor in found.only_second],
        "equal_tensors": found.equal_tensors,
        "changed_tensors": [
            {
                "name": t.name,
                "first": {"dtype": t.first.dtype, "shape": t.first.shape},
                "second": {"dtype": t.second.dtype, "shape": t.second.shape},
                "relative_error": t.relative_error if _is_number(t.relative_error) else None,
            }
            for t in found.changed
        ],
    }


def _to_plain(value: "Value | None") -> object:
    from hanse.models.tensors import ListValue

    if isinstance(value, ListValue):
        return {"items": value.count, "sha256": value.sha256, "first": list(value.first)}
    return value


def _render(output: "Output", found: "Difference", all_tensors: bool) -> "RenderableType":
    from rich.console import Group

    if found.is_none:
        return f"Nothing differs: {found.equal_tensors} tensors and all metadata are the same."
    parts: list[RenderableType] = []
    if found.values:
        rows = [(v.key, _to_words(v.first), _to_words(v.second)) for v in found.values]
        parts.append(output.table(("metadata", "first", "second"), rows))
    ordered = sorted(
        found.changed,
        key=lambda t: t.relative_error or 0 if _is_number(t.relative_error) else math.inf,
        reverse=True,
    )
    shown = ordered if all_tensors else ordered[:SHOWN]
    if shown:
        compared = [
            (t.name, _describe(t.first), _describe(t.second), _to_percent(t.relative_error))
            for t in shown
        ]
        parts.append(output.table(("tensor", "first", "second", "error>"), compared))
    words = [f"{found.equal_tensors} tensors are the same", f"{len(ordered)} differ"]
    if len(shown) < len(ordered):
        words[-1] += f", of which the {len(shown)} farthest are shown (--all for all)"
    for side, tensors in (("first", found.only_first), ("second", found.only_second)):
        if tensors:
            words.append(f"{len(tensors)} are in the {side} only, such as {tensors[0].name}")
    parts.append("; ".join(words) + ".")
    return Group(*parts)


def _describe(tensor: "Tensor") -> str:
    return f"{tensor.dtype} {' x '.join(map(str, tensor.shape))}"


def _is_number(error: float | None) -> bool:
    return error is not None and math.isfinite(error)


def _to_percent(error: float | None) -> str:
    if error is None:
        return "another shape"
    return f"{error:.2%}" if math.isfinite(error) else "not a number"


def _to_words(value: "Value | None") -> str:
    from hanse.models.tensors import ListValue

    if value is None:
        return "-"
    if isinstance(value, ListValue):
        return f"{value.count} items, {value.sha256[:12]}"
    text = str(value).replace("\n", " ")
    return text if len(text) <= VALUE_CHARACTERS else f"{text[:VALUE_CHARACTERS]} ..."
