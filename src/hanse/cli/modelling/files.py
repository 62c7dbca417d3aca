"""`hanse models import`, `verify`, `inspect`: what needs nothing but the files' headers."""

import os
from pathlib import Path
from typing import Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.modelling.places import find_model
from hanse.cli.modelling.progress import show_progress
from hanse.cli.session import Session


@command(
    "import",
    short_help="Check a model and write its manifest.",
    examples=(
        ("A download, and where it is from",
         "hanse models import model.gguf --source mirror.example -o model.json"),
        ("A folder as Hugging Face has it", "hanse models import ./Qwen2.5-0.5B -o qwen.json"),
    ),
)  # fmt: skip
@click.argument("model")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write the manifest to. [default: standard output]",
)
@click.option("--name", default="", help="The model's name. [default: its own, or the file's]")
@click.option("--licence", default="", help="Its licence. [default: what the model claims]")
@click.option("--source", default="", help="Where it came from, for people.")
@pass_session
def import_model(
    session: Session, /, model: str, target: Path | None, name: str, licence: str, source: str
) -> None:
    """Check a GGUF file or a folder with safetensors, and write its manifest.

    Exit code 8 if the model is broken, or if its folder holds what runs code (pickles, programs) or
    leads out of itself. The root is what an offer of this model names. Licence and source are the
    author's word: the root binds names and bytes only.
    """
    from hanse.models.manifest import make_manifest
    from hanse.protocol.manifests import encode_manifest

    with show_progress(session.output) as progress:
        manifest, left_out = make_manifest(
            find_model(model), model=name, licence=licence, source=source, progress=progress
        )
    data = encode_manifest(manifest)
    if left_out:
        session.output.note(f"Not part of the model: {', '.join(left_out)}.")
    if target is not None:
        partial = target.with_name(target.name + ".partial")
        partial.write_bytes(data + b"\n")
        os.replace(partial, target)
    import msgspec

    output = session.output
    rows = [(file.name, file.size_bytes, file.sha256) for file in manifest.files]
    fields = (
        ("model", f"{manifest.model}, {manifest.architecture}, {manifest.quantisation}"),
        ("licence", manifest.licence or "not stated"),
        ("root", manifest.root),
    )

    def render() -> Any:
        if target is None:
            return data.decode()
        from rich.console import Group

        return Group(output.fields(fields), output.table(("file", "bytes>", "sha256"), rows))

    output.show(msgspec.json.decode(data), render)


@command(
    "verify",
    short_help="Hold a model's files against its manifest.",
    examples=(
        ("Files beside the manifest", "hanse models verify model.json"),
        ("Files elsewhere", "hanse models verify model.json --folder /srv/models"),
    ),
)
@click.argument("manifest", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the files are. [default: where the manifest is]",
)
@click.option("--root", default="", help="The root that the manifest must have, as an offer says.")
@pass_session
def verify(session: Session, /, manifest: Path, folder: Path | None, root: str) -> None:
    """Check that every file of MANIFEST is there and has the bytes that were listed.

    Exit code 8 if one does not, or if the manifest's own root is not that of its files.
    """
    from hanse.models.manifest import read_manifest, verify_files, verify_root

    read = read_manifest(manifest)
    if root:
        verify_root(read, root)
    with show_progress(session.output) as progress:
        verify_files(read, folder or manifest.parent, progress)
    document = {
        "verified": True,
        "root": read.root,
        "files": len(read.files),
        "bytes": str(sum(file.size_bytes for file in read.files)),
    }
    session.output.show(
        document,
        lambda: f"{len(read.files)} files are those of the manifest; its root is {read.root}.",
    )


@command(
    "inspect",
    short_help="Show what a model is.",
    examples=(
        ("The packaged model", "hanse models inspect packaged"),
        ("With all its tensors, for a program", "hanse models inspect model.gguf --tensors --json"),
    ),
)
@click.argument("model")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@pass_session
def inspect(session: Session, /, model: str, tensors: bool) -> None:
    """Show architecture, sizes, tokenizer, chat template and licence, from the headers alone.

    Nothing of the model is run, and no weight is read.
    """
    from hanse.cli.modelling.views import describe_to_document, render_description
    from hanse.models.inspecting import describe
    from hanse.models.manifest import find_licence, find_template
    from hanse.models.opening import open_model

    path = find_model(model)
    files, header = open_model(path)
    description = describe(header, find_licence(header, path), find_template(files))
    listed = tuple(header.tensors.values()) if tensors else ()
    session.output.show(
        describe_to_document(description, listed),
        lambda: render_description(session.output, description, listed),
    )
