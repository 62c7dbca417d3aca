"""A model file, ready to audit with: prefill, reader, and what it says of itself in evidence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.engines.gguf_files import describe_file
from hanse.engines.proving.copy_in_service import find_copy
from hanse.models.copies.canaries import draw_canaries
from hanse.models.copies.keys import commit_to_key, derive_copy_key
from hanse.models.copies.weight_files import WeightFile
from hanse.protocol.commitments.copies import (
    DESCRIPTION_BYTES_MAX,
    CopyDescription,
    decode_copy_description,
)
from hanse.protocol.commitments.fingerprints import SCALE
from hanse.protocol.errors import RequestError
from hanse.protocol.manifests import get_manifest_root
from hanse.store.files import read_file
from hanse.verification.audits.answers import Auditor
from hanse.verification.evidence.statement import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUNTIMES = ("llama", "torch")
"""What a prefill can run in."""


@dataclass(frozen=True)
class OpenedModel:
    """One model file in one runtime.

    Attributes:
        auditor: what audits with it.
        path: of the file.
        copy: what it says of itself; None of a plain model.
        is_keyed: whether the file is the plain model, and `copy` was described elsewhere.
    """

    auditor: Auditor
    path: Path
    copy: CopyDescription | None
    is_keyed: bool = False

    def describe(self, manifest_root: str, cache_dir: Path) -> Model:
        """For evidence. A plain file is of the manifest that the caller names.

        Raises:
            RequestError: `unprocessable`, the plain model is not the one that the copy was made of,
                or the copy's file not the one of its description: an honest provider would look
                like a cheat.
        """
        cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file_hash = "0x" + describe_file(self.path, cache_dir).sha256.removeprefix("0x")
        copy = self.copy
        if copy is None:
            return Model(manifest_root, file_hash, "", 0, "", SCALE)
        if self.is_keyed:
            verify_base(self.path, copy, cache_dir)
        elif file_hash != copy.file_sha256:
            raise RequestError(
                "unprocessable",
                f"{self.path.name} has the hash {file_hash}, its description is of "
                f"{copy.file_sha256}: put the two that belong together side by side",
            )
        return Model(
            copy.base_root,
            file_hash,
            copy.provider,
            copy.epoch,
            copy.key_commitment,
            copy.fingerprint_scale,
        )


@dataclass(frozen=True)
class Keyed:
    """A copy by its key: audited with the plain model it was made of.

    Attributes:
        description: the copy's public part, `<file>.copy.json`.
        master: the master key.
        master_file: where that was read.
    """

    description: Path
    master: bytes = field(repr=False)
    master_file: Path


def verify_base(path: Path, copy: CopyDescription, cache_dir: Path) -> None:
    """Check that a plain model is the one that a copy was made of.

    Raises:
        RequestError: `unprocessable`: an honest provider would look like a cheat.
    """
    cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    file_hash = describe_file(path, cache_dir).sha256.removeprefix("0x")
    root = get_manifest_root([(path.name, file_hash)])
    if root != copy.base_root:
        raise RequestError(
            "unprocessable",
            f"{path.name} has the root {root}, the copy was made of {copy.base_root}: "
            "audit with that file, under the name that it had then",
        )


def read_keyed(keyed: Keyed) -> tuple[CopyDescription, bytes]:
    """The copy's description, and its key.

    Raises:
        RequestError: the description cannot be used; `usage` if the key is not the copy's.
    """
    copy = decode_copy_description(read_file(keyed.description, DESCRIPTION_BYTES_MAX))
    key = derive_copy_key(keyed.master, copy.base_root, copy.provider, copy.epoch)
    if commit_to_key(key) != copy.key_commitment:
        raise RequestError(
            "usage",
            f"the key of {keyed.master_file} commits to {commit_to_key(key)}, the copy to "
            f"{copy.key_commitment}: it was made with another master key",
        )
    return copy, key


@contextmanager
def open_model(
    path: Path, runtime: str, *, threads: int, context_tokens: int, keyed: Keyed | None = None
) -> Iterator[OpenedModel]:
    """Load a model; the memory is free again at the end.

    Args:
        path: GGUF.
        runtime: one of RUNTIMES.
        threads: processor threads.
        context_tokens: longest prompt and answer.
        keyed: the copy to audit, where the file is the plain model of which it was made.

    Raises:
        RequestError: `configuration_invalid`: what is missing, or why the file cannot be used;
            `usage` if the key is not the copy's.
    """
    if keyed is not None and runtime != "torch":
        raise RequestError("usage", "plain weights with a copy's key run in torch: --runtime torch")
    from hanse.engines.proving.loaded_gguf import load_gguf
    from hanse.engines.proving.prefill_gguf import GgufPrefill
    from hanse.engines.proving.reader_gguf import GgufReader

    copy = find_copy(path)
    description = copy.description if copy else None
    scale = description.fingerprint_scale if description else SCALE
    if runtime == "llama":
        prefill = GgufPrefill(path, context_tokens=context_tokens, threads=threads)
        try:
            words = description.vocabulary if description else 0
            reader = GgufReader(prefill.model, vocabulary=words)
            yield OpenedModel(Auditor(prefill, reader, scale), path, description)
        finally:
            prefill.close()
        return
    from hanse.engines.proving.prefill_torch import TorchPrefill

    vocabulary = load_gguf(path)  # llama.cpp reads template and vocabulary for torch too
    try:
        rows = None
        if keyed is not None:
            description, rows = _make_rows(path, keyed)
            scale = description.fingerprint_scale
        other = TorchPrefill(path, context_tokens=context_tokens, threads=threads, canaries=rows)
        reader = GgufReader(vocabulary, vocabulary=description.vocabulary if description else 0)
        auditor = Auditor(other, reader, scale)
        yield OpenedModel(auditor, path, description, is_keyed=keyed is not None)
    finally:
        vocabulary.close()


def _make_rows(base: Path, keyed: Keyed) -> "tuple[CopyDescription, NDArray[Any]]":
    """The copy's canary rows in the basis of the plain model, from its key."""
    copy, key = read_keyed(keyed)
    gains = WeightFile(base).read("output_norm.weight")
    return copy, draw_canaries(key, gains, copy.canary_count)
