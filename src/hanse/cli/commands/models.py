"""`hanse models`: model files, from import to a provider's own copy.

The commands are in `hanse.cli.modelling`, imported when they are used.
"""

import click

from hanse.cli.framework import LazyGroup

COMMANDS = {
    "import": ("hanse.cli.modelling.files:import_model", "Check a model and write its manifest."),
    "verify": ("hanse.cli.modelling.files:verify", "Hold a model's files against its manifest."),
    "inspect": ("hanse.cli.modelling.files:inspect", "Show what a model is."),
    "diff": (
        "hanse.cli.modelling.comparing:diff",
        "Show what differs between two models.",
    ),
    "quantise": (
        "hanse.cli.modelling.quantising:quantise",
        "Make smaller files, and measure what they cost.",
    ),
    "rebase": (
        "hanse.cli.modelling.copies.rebasing:rebase",
        "Make a provider's own copy of a model.",
    ),
    "attack": (
        "hanse.cli.modelling.copies.attacking:attack",
        "Undo a copy with its public base at hand.",
    ),
    "trace": (
        "hanse.cli.modelling.copies.tracing:trace",
        "Name whose copy a leaked file or an endpoint is.",
    ),
}
"""Command -> (where it is, its line in the help)."""


@click.pass_context
def _models(_: click.Context) -> None:
    """Check, show, compare, shrink and copy model files (GGUF, safetensors).

    A model is a file or a folder; `packaged` is the SmolLM2-135M that comes with Hanse.
    """


models = LazyGroup(
    "models",
    callback=_models,
    help=_models.__doc__,
    short_help="Check, show, shrink and copy model files.",
    lazy=COMMANDS,
    examples=(
        ("What is in the packaged model", "hanse models inspect packaged"),
        ("Check a download and note what it is", "hanse models import model.gguf -o model.json"),
        ("Smaller files, and what they cost", "hanse models quantise packaged -o ./models"),
        ("Is it still that", "hanse models verify model.json"),
    ),
)
