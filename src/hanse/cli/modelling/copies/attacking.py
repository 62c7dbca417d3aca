"""`hanse models attack`: what a copy's change of basis hides from whoever has the base."""

from pathlib import Path

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.modelling.places import check_extra, find_model
from hanse.cli.modelling.progress import show_progress
from hanse.cli.session import Session


@command(
    "attack",
    short_help="Undo a copy with its public base at hand.",
    examples=(("What does a copy hide", "hanse models attack copy.gguf --base packaged"),),
)
@click.argument("copy", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--base", required=True, help="The model that it was made of (GGUF).")
@pass_session
def attack(session: Session, /, copy: Path, base: str) -> None:
    """Run the best attack that we know against COPY, without any key, and print what it recovers.

    Expect everything: copies bind a model to a provider, they hide nothing. What the attack does
    not take away is the rounding, by which `hanse models trace` names the leaker.
    """
    check_extra("numpy", "gguf")
    import msgspec

    from hanse.models.copies.architectures import SourceModel
    from hanse.models.copies.leaks.attacking import attack as undo
    from hanse.models.copies.weight_files import WeightFile

    with show_progress(session.output) as progress:
        found = undo(SourceModel(find_model(base)), WeightFile(copy), progress).recovered
    fields = (
        ("vocabulary", f"{found.tokens_matched:.1%} of unseen tokens matched with the base's"),
        ("rotation", f"recovered; residue {found.rotation_residual:.2%}, about the rounding"),
        ("hidden units", f"{found.hidden_matched:.1%} matched"),
        ("heads", f"{found.heads_matched:.1%} matched"),
        ("weights", f"brought back to {found.weights_error:.2%} of the base's"),
        ("canary rows", f"{found.canaries_found} found, in the base's coordinates"),
        ("took", f"{found.seconds:.1f} s, {found.layers} layers"),
    )
    session.output.show(msgspec.to_builtins(found), lambda: session.output.fields(fields))
