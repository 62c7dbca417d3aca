"""Which files a model consists of; what does not belong into a model from a stranger is refused.

A model is one GGUF file, the parts of a split one, or a folder with safetensors and its JSON files.
Pickles run code when they are opened, and modules beside a model run code when someone trusts them,
so a folder with either is refused by name, not skipped: whoever publishes it can leave them out. A
symbolic link may lead out of the folder, to a file that was never part of the model.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.manifests import FILES_MAX, is_file_name

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npz", ".npy", ".t7")
"""Endings under which weights are stored as pickled objects, or may be."""
CODE = (".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe", ".bat")
WANTED = (".gguf", ".safetensors", ".json", ".jinja", ".model", ".txt", ".md")
"""What belongs to a model: weights, settings, tokenizer, templates, vocabulary, card."""
WANTED_NAMES = ("LICENSE", "LICENCE", "NOTICE")
ENTRIES_MAX = 4_096
"""Entries of a folder that are looked at."""

_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class ModelFiles:
    """A model's files.

    Attributes:
        folder: in which they lie.
        paths: the files, by name.
        left_out: names beside them that are no part of the model.
    """

    folder: Path
    paths: tuple[Path, ...]
    left_out: tuple[str, ...]


def list_model_files(path: Path) -> ModelFiles:
    """The files of the model at `path`, a file or a folder.

    Raises:
        RequestError: `not_found`, there is nothing.
        VerificationError: `model_invalid`, a file is there that no model should have.
    """
    if path.is_dir():
        return _list_folder(path)
    if not path.is_file():
        raise RequestError("not_found", f"There is no model at {path}.")
    if path.suffix not in (".gguf", ".safetensors"):
        reason = _find_reason(path.name) or "it is neither .gguf nor .safetensors"
        raise VerificationError("model_invalid", f"{path.name} is refused: {reason}.")
    return ModelFiles(path.parent, _list_parts(path), ())


def _list_folder(folder: Path) -> ModelFiles:
    paths, left_out = [], []
    inside = folder.resolve()
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    if len(entries) > ENTRIES_MAX:
        raise VerificationError(
            "model_invalid",
            f"{folder.name} has {len(entries)} entries, at most {ENTRIES_MAX} are looked at.",
        )
    for entry in entries:
        path = folder / entry.name
        reason = _find_reason(entry.name)
        if entry.is_symlink() and not path.resolve().is_relative_to(inside):
            reason = "it is a link out of the folder (copy the folder by `cp -rL` to import it)"
        if reason:
            raise VerificationError("model_invalid", f"{entry.name} is refused: {reason}.")
        if not entry.is_file() or not _is_wanted(entry.name):
            left_out.append(entry.name)
        elif not is_file_name(entry.name):
            raise VerificationError(
                "model_invalid", f"{entry.name!r} is no name that a manifest takes."
            )
        else:
            paths.append(path)
    if len(paths) > FILES_MAX:
        raise VerificationError(
            "model_invalid", f"{folder.name} has {len(paths)} files, at most {FILES_MAX} are taken."
        )
    return ModelFiles(folder, tuple(paths), tuple(left_out))


def _list_parts(path: Path) -> tuple[Path, ...]:
    """All parts of a split GGUF file, of which any may be named."""
    split = _SPLIT.fullmatch(path.name)
    if split is None:
        return (path,)
    stem, count = split[1], int(split[3])
    if not 1 <= count <= FILES_MAX:
        raise VerificationError("model_invalid", f"{path.name} claims to be one of {count} parts.")
    parts = [path.with_name(f"{stem}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
    absent = [part.name for part in parts if not part.is_file()]
    if absent:
        raise VerificationError(
            "model_invalid", f"Of {count} parts {len(absent)} are missing, first {absent[0]}."
        )
    return tuple(parts)


def _find_reason(name: str) -> str:
    """Why a file of this name is refused; empty if it is not."""
    lower = name.lower()
    if lower.endswith(PICKLES):
        return "it may hold pickled objects, which run code when they are opened; use safetensors"
    if lower.endswith(CODE):
        return "it is a program, and models here are data"
    return ""


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and (
        name.lower().endswith(WANTED) or name.upper().startswith(WANTED_NAMES)
    )
