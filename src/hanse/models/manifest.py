"""Makes a model's manifest from its files, and holds files against one.

Hashing streams through the files and says how far it is; a model of 200 GB takes minutes. The form
of a manifest, its root and its limits are in `hanse.protocol.manifests`.
"""

import hashlib
import re
from pathlib import Path

from hanse.models.inspecting import get_architecture, get_quantisation
from hanse.models.model_files import ModelFiles
from hanse.models.opening import SETTINGS_BYTES_MAX, open_model, read_document
from hanse.models.tensors import Header, Progress
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.manifests import (
    MANIFEST_BYTES_MAX,
    TEXT_CHARACTERS_MAX,
    Manifest,
    ManifestFile,
    decode_manifest,
    get_manifest_root,
    is_file_name,
    verify_manifest,
)
from hanse.protocol.signatures import ZERO_HASH, Hash32

PIECE_BYTES = 4 * 2**20
"""Read at once: large enough for a disk's full speed."""
TEMPLATE_BYTES_MAX = 2**20
"""Of a chat template; long ones have 40 kB."""
CARD_BYTES_MAX = 65_536
"""Of a README in which the licence is looked for."""


def make_manifest(
    path: Path,
    *,
    model: str = "",
    licence: str = "",
    source: str = "",
    derived_from: Hash32 = ZERO_HASH,
    progress: Progress | None = None,
) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest of the model at `path`, and the names beside it that are no part of it.

    What the caller does not say is taken from the files: the name, and the licence as they claim
    it. The headers are checked first, so that a broken file costs no hashing.

    Raises:
        RequestError: `not_found`; `invalid_request`, a text is too long.
        VerificationError: `model_invalid`, broken or refused files.
    """
    files, header = open_model(path)
    total = sum(file.stat().st_size for file in files.paths)
    done, hashed = 0, []
    for file in files.paths:
        if not is_file_name(file.name):
            raise VerificationError(
                "model_invalid",
                f"{file.name!r} is no name that a manifest takes: letters, digits and ._+- only.",
            )
        size_bytes, sha256 = hash_file(file, done, total, progress)
        hashed.append(ManifestFile(name=file.name, size_bytes=size_bytes, sha256=sha256))
        done += size_bytes
    manifest = Manifest(
        model=model or get_name(header, path),
        format="gguf" if header.format == "gguf" else "safetensors",
        architecture=get_architecture(header),
        quantisation=get_quantisation(header),
        weights=header.weights,
        licence=licence or find_licence(header, path),
        source=source,
        derived_from=derived_from,
        files=tuple(sorted(hashed, key=lambda file: file.name)),
        root=get_manifest_root((file.name, file.sha256) for file in hashed),
    )
    verify_manifest(manifest)
    return manifest, files.left_out


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file from outside.

    Raises:
        RequestError: `not_found`, it cannot be read.
        VerificationError: `model_invalid`.
    """
    try:
        with path.open("rb") as file:
            return decode_manifest(file.read(MANIFEST_BYTES_MAX + 1))
    except OSError as error:
        raise RequestError(
            "not_found", f"The manifest {path} cannot be read: {error.strerror}."
        ) from error


def verify_files(manifest: Manifest, folder: Path, progress: Progress | None = None) -> None:
    """Hold the files in `folder` against the manifest: all are there, and each is the one listed.

    Other files beside them are not looked at. Sizes are compared first, so that a download that
    was cut off is found at once.

    Raises:
        VerificationError: `model_invalid`; the message has both values.
    """
    for listed in manifest.files:
        path = folder / listed.name
        if not path.is_file():
            raise VerificationError("model_invalid", f"{listed.name} is missing in {folder}.")
        size_bytes = path.stat().st_size
        if size_bytes != listed.size_bytes:
            raise VerificationError(
                "model_invalid",
                f"{listed.name} has {size_bytes} bytes, the manifest says {listed.size_bytes}; "
                "fetch it again.",
            )
    total, done = sum(file.size_bytes for file in manifest.files), 0
    for listed in manifest.files:
        size_bytes, sha256 = hash_file(folder / listed.name, done, total, progress)
        if sha256 != listed.sha256:
            raise VerificationError(
                "model_invalid",
                f"{listed.name} hashes to {sha256}, the manifest says {listed.sha256}; "
                "fetch it again.",
            )
        done += size_bytes


def verify_root(manifest: Manifest, root: str) -> None:
    """Hold the manifest's root against one from elsewhere, such as an offer's.

    Raises:
        VerificationError: `model_invalid`.
    """
    if manifest.root != root.lower():
        raise VerificationError(
            "model_invalid", f"The manifest's root is {manifest.root}, it should be {root[:70]}."
        )


def hash_file(
    path: Path, done_bytes: int, total_bytes: int, progress: Progress | None
) -> tuple[int, str]:
    """Size and SHA-256 of what was read of the file, told as part of `total_bytes`."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            size_bytes += len(piece)
            if progress:
                progress(f"hashing {path.name}", (done_bytes + size_bytes) / max(1, total_bytes))
    return size_bytes, digest.hexdigest()


def get_name(header: Header, path: Path) -> str:
    """The model's name for people: what it calls itself, else its file's."""
    own = header.find_text("general.name") or header.find_text("config._name_or_path")
    name = own.rsplit("/", 1)[-1] or path.resolve().name.removesuffix(path.suffix)
    return _to_printable(name)


def find_licence(header: Header, path: Path) -> str:
    """The licence that the model claims: in its metadata, or in its card's first lines."""
    claimed = header.find_text("general.license")
    card = path / "README.md"
    if not claimed and path.is_dir() and card.is_file():
        with card.open("rb") as file:
            text = file.read(CARD_BYTES_MAX).decode(errors="replace")
        found = re.match(r"---\n(?:.*\n)*?license: *([^\n]{1,100})\n", text)
        claimed = found[1].strip("\"' ") if found else ""
    return _to_printable(claimed)


def find_template(files: ModelFiles) -> str:
    """The chat template of a folder: a file of its own, or a text in the tokenizer's settings."""
    by_name = {path.name: path for path in files.paths}
    if path := by_name.get("chat_template.jinja"):
        with path.open("rb") as file:
            return file.read(TEMPLATE_BYTES_MAX).decode(errors="replace")
    if path := by_name.get("tokenizer_config.json"):
        template = read_document(path, SETTINGS_BYTES_MAX).get("chat_template")
        return template if isinstance(template, str) else ""
    return ""


def _to_printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:TEXT_CHARACTERS_MAX]
