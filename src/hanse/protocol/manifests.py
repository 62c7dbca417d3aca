"""The manifest of a model: its files by hash, and the root that an offer names.

    {"hanse_manifest": 1, "model": ..., "files": [{"name", "size_bytes", "sha256"}, ...],
     "root": "0x...", ...}

The root is the Merkle root (`hanse.protocol.merkle`) over `name NUL sha256 of the file` of the
files by name. So it binds names and bytes and nothing else: architecture, licence, source and such
are what the author says. What is written is canonical JSON: keys sorted, no white space, integers
only, UTF-8; the same manifest is the same bytes everywhere.

Source: `docs/models.md`, section "Manifest"; offers name the root since decision 7.
"""

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from hanse.protocol import merkle
from hanse.protocol.errors import VerificationError
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import ZERO_HASH, Hash32, to_bytes, to_hex

MANIFEST_BYTES_MAX = 2**20
"""Of a manifest as JSON: a file takes about 150 bytes."""
FILES_MAX = 1_024
"""Files of a model. DeepSeek-V3 has 163 of weights, and 20 is much for a smaller one."""
NAME_BYTES_MAX = 200
"""Of a file's name: file systems take 255, and a partial file's ending has to fit."""
SIZE_BYTES_MAX = 2**43
"""Of a file: eight terabytes, above what any model has in all."""
TEXT_CHARACTERS_MAX = 512
"""Of a descriptive field."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+\-]*")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


class ManifestFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: its name, its size, SHA-256 of its bytes in hex without prefix."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's files and what its author says of it.

    Attributes:
        hanse_manifest: version of this form.
        model: a name for people.
        format: of the weights.
        architecture: such as `llama` (GGUF) or `LlamaForCausalLM` (safetensors).
        quantisation: such as `Q4_0` or `BF16`; a mix by its usual name, such as `Q4_K_M`.
        weights: parameters of the model.
        licence: SPDX identifier, or the author's own words; empty if nobody said.
        source: where it came from, for people.
        derived_from: root of the manifest of which this model was made; zero if of none.
        files: sorted by name.
        root: over the files.
    """

    hanse_manifest: Literal[1] = 1
    model: str
    format: Literal["gguf", "safetensors"]
    architecture: str
    quantisation: str
    weights: int
    licence: str = ""
    source: str = ""
    derived_from: Hash32 = ZERO_HASH
    files: tuple[ManifestFile, ...]
    root: Hash32


def get_manifest_root(files: Iterable[tuple[str, str]]) -> Hash32:
    """The root over (name, SHA-256 in hex) of a model's files, in any order; zero for none."""
    ordered = sorted(files)
    if not ordered:
        return ZERO_HASH
    values = [name.encode() + b"\x00" + _digest_bytes(sha256) for name, sha256 in ordered]
    return to_hex(merkle.get_root(values))


def get_file_proof(manifest: Manifest, name: str) -> merkle.InclusionProof:
    """Why the file of this name belongs to the root: for whoever fetches a single file.

    Raises:
        KeyError: the manifest has no such file.
    """
    names = [file.name for file in manifest.files]
    if name not in names:
        raise KeyError(name)
    values = [f.name.encode() + b"\x00" + _digest_bytes(f.sha256) for f in manifest.files]
    return merkle.get_proof(values, names.index(name))


def is_file_name(name: str) -> bool:
    """Whether a file of a model may be called so, on every system: no path, no dots in front."""
    return (
        _NAME.fullmatch(name) is not None
        and len(name) <= NAME_BYTES_MAX
        and not name.endswith(".")
        and _RESERVED.fullmatch(name) is None
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical JSON."""
    return msgspec.json.encode(manifest, order="sorted")


def decode_manifest(data: bytes) -> Manifest:
    """A manifest from outside, checked in every field, its root computed anew.

    Raises:
        VerificationError: `model_invalid`, the message says what is wrong.
    """
    if len(data) > MANIFEST_BYTES_MAX:
        raise _refuse(f"it has {len(data)} bytes, at most {MANIFEST_BYTES_MAX} are read")
    if is_nested_too_deep(data):
        raise _refuse("it is nested too deep")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refuse(str(error)) from None
    verify_manifest(manifest)
    return manifest


def verify_manifest(manifest: Manifest) -> None:
    """Hold a manifest against the limits and against its own root.

    Raises:
        VerificationError: `model_invalid`.
    """
    if not 1 <= len(manifest.files) <= FILES_MAX:
        raise _refuse(f"it lists {len(manifest.files)} files, 1 to {FILES_MAX} can be")
    names = [file.name for file in manifest.files]
    if names != sorted(set(names)) or len({name.lower() for name in names}) != len(names):
        raise _refuse("its files are not sorted by name, or one stands twice")
    for file in manifest.files:
        _verify_file(file)
    for field in ("model", "architecture", "quantisation", "licence", "source"):
        text = getattr(manifest, field)
        if len(text) > TEXT_CHARACTERS_MAX or not text.isprintable():
            raise _refuse(f"{field} is longer than {TEXT_CHARACTERS_MAX} or not printable")
    if not 0 <= manifest.weights <= SIZE_BYTES_MAX:
        raise _refuse(f"it claims {manifest.weights} weights")
    if re.fullmatch(r"0x[0-9a-f]{64}", manifest.derived_from) is None:
        raise _refuse("derived_from is no root")
    root = get_manifest_root((file.name, file.sha256) for file in manifest.files)
    if root != manifest.root:
        raise _refuse(f"its files lead to the root {root}, it names {manifest.root[:70]}")


def _verify_file(file: ManifestFile) -> None:
    if not is_file_name(file.name):
        raise _refuse(f"{file.name[:NAME_BYTES_MAX]!r} is no file name that can be taken")
    if not 0 <= file.size_bytes <= SIZE_BYTES_MAX:
        raise _refuse(f"{file.name} has {file.size_bytes} bytes")
    if re.fullmatch(r"[0-9a-f]{64}", file.sha256) is None:
        raise _refuse(f"the SHA-256 of {file.name} is not 64 hex digits")


def _digest_bytes(sha256: str) -> bytes:
    return to_bytes(sha256) if sha256.startswith("0x") else bytes.fromhex(sha256)


def _refuse(reason: str) -> VerificationError:
    return VerificationError("model_invalid", f"The manifest is refused: {reason}.")
