"""`hanse models quantise`: smaller files, each with a manifest, and what they cost."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.modelling.places import check_extra, find_model
from hanse.cli.modelling.progress import show_progress
from hanse.cli.session import Session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hanse.cli.output import Output
    from hanse.models.quantising.costs import FileCost

TOKENS_DEFAULT = 1_024
TOKENS_MAX = 65_536
"""Of the text; the source's distributions take 200 kB a token and more."""


@command(
    "quantise",
    short_help="Make smaller files, and measure what they cost.",
    examples=(
        ("The usual types of the packaged model, with a plot",
         "hanse models quantise packaged -o ./models --plot sizes.svg"),
        ("One type of a folder with safetensors", "hanse models quantise ./Qwen2.5-0.5B -t Q4_K_M"),
        ("On a text of one's own",
         "hanse models quantise model.gguf -t Q8_0 -t Q4_0 --text chats.txt --tokens 4096"),
    ),
)  # fmt: skip
@click.argument("model")
@click.option(
    "-t",
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Type to make, several times for several. [default: Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0]",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    help="Folder to write to. [default: this one]",
)
@click.option(
    "--text",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What the models read to be measured. [default: a short text of our own]",
)
@click.option(
    "--tokens",
    type=click.IntRange(128, TOKENS_MAX),
    default=TOKENS_DEFAULT,
    help="Tokens of it, at most.",
)
@click.option("--measure/--no-measure", default=True, help="Run the files over the text.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw size against loss into this SVG file too.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Threads. [default: one a core]")
@pass_session
def quantise(
    session: Session,
    /,
    model: str,
    types: tuple[str, ...],
    folder: Path,
    text: Path | None,
    tokens: int,
    measure: bool,
    plot: Path | None,
    threads: int | None,
) -> None:
    """Make smaller GGUF files of MODEL, each with a manifest that names what it was made of.

    Safetensors are written as GGUF first (Llama family and Qwen2). Every file is then held against
    its source over a text: perplexity, mean KL, how often the likeliest token is the same, memory,
    and tokens a second on this machine as busy as it is now.
    """
    check_extra("numpy", "gguf", "cyllama")
    from hanse.cli.modelling.making import make_files
    from hanse.models.quantising.costs import measure_files, read_text
    from hanse.models.quantising.files import USUAL, find_type

    wanted = [find_type(name) for name in dict.fromkeys(types or USUAL)]
    words = read_text(text) if measure else ""
    count = threads or os.cpu_count() or 1
    folder.mkdir(parents=True, exist_ok=True)
    with show_progress(session.output) as progress:
        made = make_files(find_model(model), wanted, folder, count, progress)
        costs = (
            measure_files(
                [made.source, *(f.path for f in made.files if f.path != made.source)],
                text=words,
                tokens_max=tokens,
                threads=count,
                progress=progress,
            )
            if measure
            else []
        )
    if made.note:
        session.output.note(made.note)
    document: dict[str, Any] = {
        "source_root": made.root,
        "files": [
            {
                "path": str(file.path),
                "quantisation": file.quantisation,
                "size_bytes": file.path.stat().st_size,
                "root": file.root,
            }
            for file in made.files
        ],
    }
    if costs:
        document |= {"threads": count, "costs": [_to_document(cost) for cost in costs]}
    if plot is not None and len(costs) > 1:
        _write_plot(plot, costs, model)
    session.output.show(document, lambda: _render(session.output, made.files, costs))


def _to_document(cost: "FileCost") -> dict[str, Any]:
    import msgspec

    return {
        "quantisation": cost.quantisation,
        "size_bytes": cost.size_bytes,
        "bits_per_weight": cost.bits_per_weight_x100 / 100,
        **msgspec.to_builtins(cost.score),
    }


def _render(
    output: "Output", files: Sequence[Any], costs: Sequence["FileCost"]
) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    if not costs:
        rows = [(file.path, file.path.stat().st_size, file.root) for file in files]
        return output.table(("file", "bytes>", "root"), rows)
    from hanse.cli.modelling.plots import draw_text
    from hanse.cli.modelling.views import format_bytes

    columns = (
        "type", "size>", "bits>", "perplexity>", "KL>", "KL 99 %>", "same top>", "memory>",
        "read tok/s>", "write tok/s>",
    )  # fmt: skip
    table = output.table(
        columns,
        [
            (
                cost.quantisation + (" (source)" if index == 0 else ""),
                format_bytes(cost.size_bytes),
                f"{cost.bits_per_weight_x100 / 100:.2f}",
                f"{cost.score.perplexity:.2f} ± {cost.score.perplexity_error:.2f}",
                f"{cost.score.kl:.4f} ± {cost.score.kl_error:.4f}" if index else "",
                f"{cost.score.kl_p99:.3f}" if index else "",
                f"{cost.score.same_top:.1%}" if index else "",
                format_bytes(cost.score.memory_bytes),
                f"{cost.score.prompt_tokens_per_s:.0f}",
                f"{cost.score.answer_tokens_per_s:.0f}",
            )
            for index, cost in enumerate(costs)
        ],
        title=f"over {costs[0].score.tokens} tokens",
    )
    points = _to_points(costs)
    return Group(table, Text(draw_text(points))) if points else table


def _to_points(costs: Sequence["FileCost"]) -> list[Any]:
    """What can be drawn: a file that differs from its source at all."""
    from hanse.cli.modelling.plots import Point

    return [
        Point(cost.quantisation, cost.size_bytes / 1e6, cost.score.kl)
        for cost in costs[1:]
        if cost.score.kl > 0
    ]


def _write_plot(path: Path, costs: Sequence["FileCost"], model: str) -> None:
    from hanse.cli.modelling.plots import draw_svg

    points = _to_points(costs)
    if points:
        name = Path(model).name
        title = f"{name}: size and loss over {costs[0].score.tokens} tokens"
        path.write_text(draw_svg(points, title))
