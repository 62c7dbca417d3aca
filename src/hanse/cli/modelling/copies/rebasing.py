"""`hanse models rebase`: a provider's own copy of a model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.modelling.copies.master_keys import make_master, read_master
from hanse.cli.modelling.places import check_extra, find_model
from hanse.cli.modelling.progress import show_progress
from hanse.cli.session import Session

if TYPE_CHECKING:
    from hanse.models.copies import CopyOrder
    from hanse.models.tensors import Progress
    from hanse.protocol.commitments.copies import CopyDescription


@command(
    "rebase",
    short_help="Make a provider's own copy of a model.",
    examples=(
        ("The packaged model for one provider",
         "hanse models rebase packaged --provider 0x5f0c... --new-master master.key -o copy.gguf"),
        ("Its next copy, at 4 bits",
         "hanse models rebase packaged --provider 0x5f0c... --master master.key --epoch 1 -t Q4_0"
         " -o copy1.gguf"),
        ("One for vLLM, of a folder with safetensors",
         "hanse models rebase ./SmolLM2 --provider 0x5f0c... --master master.key -t BF16 --folder"
         " -o ./copy"),
    ),
)  # fmt: skip
@click.argument("model")
@click.option("--provider", required=True, metavar="ADDRESS", help="Whom the copy is for.")
@click.option(
    "--master",
    "master_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the master key that all copies are made from: 64 hex digits.",
)
@click.option(
    "--new-master",
    "new_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw a master key and write it to this new file first.",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The copy's file; its description and manifest are put beside it.",
)
@click.option(
    "-t",
    "--type",
    "quantisation",
    help="Type, as of `quantise`. [default: Q8_0, of a folder BF16]",
)
@click.option("--epoch", type=click.IntRange(0), default=0, help="Which of this provider's copies.")
@click.option("--canaries", type=click.IntRange(1, 20), default=16, help="Rows of the fingerprint.")
@click.option(
    "--lift",
    type=click.FloatRange(0, 60),
    default=56.0,
    help="How far the canaries' logits are lifted; 0 for a copy without a proof.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Threads. [default: one a core]")
@click.option(
    "--folder",
    "is_folder",
    is_flag=True,
    help="Of a folder make a folder with safetensors, for vLLM: F32, F16 or BF16, and no lift.",
)
@pass_session
def rebase(
    session: Session,
    /,
    model: str,
    provider: str,
    master_path: Path | None,
    new_path: Path | None,
    target: Path,
    threads: int | None,
    **choices: Any,
) -> None:
    """Make a copy of MODEL that computes the same and is bound to one provider.

    The weights are rebased by exact symmetries drawn from a key, and the vocabulary gains a few
    rows, the canaries, whose logits are a fingerprint of every token. Stock llama.cpp serves the
    file, and vLLM the folder. The same master key, model, provider and epoch give the same bytes.

    Copies are bound to their provider, tamper-evident and attributable. Their weights are not
    secret: `hanse models attack` shows how fast the change falls to whoever has the base.
    """
    check_extra("numpy", "gguf", "cyllama")
    from hanse.models.copies import CopyOrder
    from hanse.models.manifest import make_manifest
    from hanse.protocol.errors import RequestError
    from hanse.protocol.manifests import encode_manifest
    from hanse.protocol.signatures import parse_address

    if (master_path is None) == (new_path is None):
        raise RequestError("usage", "say either --master FILE or --new-master FILE")
    address = parse_address(provider, "provider")
    source = find_model(model)
    if target.exists():
        raise RequestError("usage", f"{target} is there already; remove it or name another one.")
    if not target.parent.is_dir():  # before a master key is drawn for nothing
        raise RequestError("usage", f"There is no folder {target.parent}; make it first.")
    with show_progress(session.output) as progress:
        base, _ = make_manifest(source, progress=progress)
        master = read_master(master_path) if master_path else make_master(new_path or Path())
        order = CopyOrder(
            master=master,
            base_root=base.root,
            provider=address,
            epoch=choices["epoch"],
            canaries=choices["canaries"],
            lift=choices["lift"],
        )
        description = _make_copy(
            source, target, order, choices, threads or os.cpu_count() or 1, progress
        )
        own, _ = make_manifest(target, derived_from=base.root, progress=progress)
    beside = target.with_name(f"{target.name if target.is_dir() else target.stem}.json")
    beside.write_bytes(encode_manifest(own) + b"\n")
    import msgspec

    fields = (
        ("copy", f"{target}, {description.quantisation}, {description.file_bytes:,} bytes"),
        ("root", own.root),
        ("offered as", f"{base.root}, the root of its base"),
        ("bound to", f"{address}, epoch {description.epoch}"),
        ("canaries", _describe_canaries(target, description)),
        ("served as", description.served_as),
    )
    session.output.show(
        {"path": str(target), "root": own.root, "description": msgspec.to_builtins(description)},
        lambda: session.output.fields(fields),
    )


def _make_copy(
    source: Path,
    target: Path,
    order: "CopyOrder",
    choices: dict[str, Any],
    threads: int,
    progress: "Progress",
) -> "CopyDescription":
    from hanse.models.copies import rebase as make_file
    from hanse.models.copies.folders import rebase_folder
    from hanse.models.copies.lifting import check_lift

    dtype = choices["quantisation"]
    if choices["is_folder"]:
        return rebase_folder(source, target, order, dtype or "BF16", progress=progress)
    description = make_file(
        source, target, order, dtype or "Q8_0", threads=threads, progress=progress
    )
    return check_lift(target, description, threads=threads, progress=progress)


def _describe_canaries(copy: Path, description: "CopyDescription") -> str:
    from hanse.models.copies.architectures import SourceModel
    from hanse.models.copies.graphs import UNLIFTED, choose_graph

    ids = f"{description.canary_ids[0]} to {description.canary_ids[-1]}, never to be sampled; "
    margin = description.lift_margin
    if margin is not None:
        return (
            f"{ids}lifted by {description.lift:g}, {margin.smallest:.1f} to {margin.largest:.1f} "
            f"above all tokens at {margin.positions} positions"
        )
    if copy.is_dir():
        return f"{ids}not lifted: vLLM tells their logits by number"
    if description.carrier == UNLIFTED:
        reason = choose_graph(SourceModel(copy).shape).reason
        return f"{ids}not lifted, so that servers sell this copy without a proof: {reason}"
    return f"{ids}not lifted, as asked, so that servers sell this copy without a proof"
