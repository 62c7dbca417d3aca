"""A model file, ready to audit with: prefill, reader, and what it says of itself in evidence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hanse.cli.modelling.places import check_extra, find_model
from hanse.engines.gguf_files import describe_file
from hanse.engines.proving.copy_in_service import find_copy
from hanse.protocol.commitments.copies import CopyDescription
from hanse.protocol.commitments.fingerprints import SCALE
from hanse.verification.audits.answers import Auditor
from hanse.verification.evidence.statement import Model

RUNTIMES = ("llama", "torch")
"""What a prefill can run in."""


@dataclass(frozen=True)
class OpenedModel:
    """One model file in one runtime.

    Attributes:
        auditor: what audits with it.
        path: of the file.
        copy: what it says of itself; None of a plain model.
    """

    auditor: Auditor
    path: Path
    copy: CopyDescription | None

    def describe(self, manifest_root: str, cache_dir: Path) -> Model:
        """For evidence. A plain file is of the manifest that the caller names."""
        cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file_hash = "0x" + describe_file(self.path, cache_dir).sha256.removeprefix("0x")
        copy = self.copy
        if copy is None:
            return Model(manifest_root, file_hash, "", 0, "", SCALE)
        return Model(
            copy.base_root,
            file_hash,
            copy.provider,
            copy.epoch,
            copy.key_commitment,
            copy.fingerprint_scale,
        )


@contextmanager
def open_model(
    name: str, runtime: str, *, threads: int, context_tokens: int
) -> Iterator[OpenedModel]:
    """Load a model; the memory is free again at the end.

    Args:
        name: a GGUF file, or `packaged`.
        runtime: one of RUNTIMES.
        threads: processor threads.
        context_tokens: longest prompt and answer.

    Raises:
        RequestError: `configuration_invalid`: what is missing, or why the file cannot be used.
    """
    check_extra("cyllama", "numpy", *(["torch"] if runtime == "torch" else []))
    from hanse.engines.proving.loaded_gguf import load_gguf
    from hanse.engines.proving.prefill_gguf import GgufPrefill
    from hanse.engines.proving.reader_gguf import GgufReader

    path = find_model(name)
    copy = find_copy(path)
    description = copy.description if copy else None
    scale = description.fingerprint_scale if description else SCALE
    if runtime == "llama":
        prefill = GgufPrefill(path, context_tokens=context_tokens, threads=threads)
        try:
            yield OpenedModel(Auditor(prefill, GgufReader(prefill.model), scale), path, description)
        finally:
            prefill.close()
        return
    from hanse.engines.proving.prefill_torch import TorchPrefill

    vocabulary = load_gguf(path)  # llama.cpp reads template and vocabulary for torch too
    try:
        other = TorchPrefill(path, context_tokens=context_tokens, threads=threads)
        yield OpenedModel(Auditor(other, GgufReader(vocabulary), scale), path, description)
    finally:
        vocabulary.close()
