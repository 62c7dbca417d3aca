"""Makes the files of `hanse models quantise`: a GGUF source where there is none, then each type."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hanse.models.converting import convert_folder
from hanse.models.manifest import make_manifest
from hanse.models.opening import open_model
from hanse.models.quantising.files import name_target, quantise_file
from hanse.models.tensors import Progress
from hanse.protocol.errors import RequestError
from hanse.protocol.manifests import encode_manifest

PLAIN = ("F32", "F16", "BF16")
"""Types of which nothing was lost yet."""


@dataclass(frozen=True)
class MadeFile:
    """One file that was written, and its root."""

    path: Path
    quantisation: str
    root: str


@dataclass(frozen=True)
class MadeFiles:
    """What was written, of which source (its GGUF file, its root), and what to say about it."""

    source: Path
    root: str
    files: tuple[MadeFile, ...]
    note: str


def make_files(
    path: Path, types: Sequence[str], folder: Path, threads: int, progress: Progress
) -> MadeFiles:
    """Write each type of the model at `path` into `folder`, each with its manifest beside it.

    Raises:
        RequestError: `usage`, a file is there already; `model_unsupported`, these safetensors
            cannot be converted.
        VerificationError: `model_invalid`, the model is broken.
    """
    files, header = open_model(path)
    stem = files.paths[0] if header.format == "gguf" else Path(path.resolve().name)
    targets = [folder / name_target(Path(stem.name), name) for name in types]
    converted = folder / name_target(Path(stem.name), "F16")
    first = [converted] if header.format == "safetensors" else []
    present = [target.name for target in (*first, *targets) if target.exists()]
    if present:
        raise RequestError(
            "usage", f"{present[0]} is there already; remove it, or name another --output."
        )
    original, _ = make_manifest(path, progress=progress)
    source, note, made = header.paths[0], "", []
    if header.format == "safetensors":
        source = converted
        convert_folder(path, source, progress)
        made.append(_write_manifest(source, original.root, "F16", progress))
    elif original.quantisation not in PLAIN:
        note = (
            f"The source is {original.quantisation} already: what it lost stays lost, and the "
            "costs shown are on top of that."
        )
    for name, target in zip(types, targets, strict=True):
        if target == source:
            continue
        quantise_file(source, target, name, threads=threads, progress=progress)
        made.append(_write_manifest(target, original.root, name, progress))
    return MadeFiles(source, original.root, tuple(made), note)


def _write_manifest(target: Path, root: str, name: str, progress: Progress) -> MadeFile:
    manifest, _ = make_manifest(target, derived_from=root, progress=progress)
    path = target.with_suffix(".json")
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(encode_manifest(manifest) + b"\n")
    os.replace(partial, path)
    return MadeFile(target, name, manifest.root)
