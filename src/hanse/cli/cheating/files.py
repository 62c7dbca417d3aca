"""The model files that cheats serve, made once from the promised one and kept in HOME/cache."""

import os
from pathlib import Path

import msgspec

from hanse.engines.gguf_files import hash_file
from hanse.protocol.commitments.copies import (
    COPY_SUFFIX,
    decode_copy_description,
    encode_copy_description,
)
from hanse.protocol.errors import RequestError

COARSE = "Q4_0"
"""What `quantise` serves where something better is offered."""

COARSE_ALREADY = ("Q4", "Q3", "Q2", "IQ", "TQ", "MXFP4")


def make_coarse(source: Path, cache_dir: Path, threads: int) -> Path:
    """The promised model as Q4_0; of a copy it is still that copy.

    Raises:
        RequestError: it is as coarse already, or llama.cpp could not.
        VerificationError: `model_invalid`, the file is broken.
    """
    from hanse.models.gguf_header import read_gguf_header
    from hanse.models.inspecting import get_quantisation
    from hanse.models.quantising.files import quantise_file

    promised = get_quantisation(read_gguf_header(source))
    if promised.startswith(COARSE_ALREADY):
        raise RequestError(
            "configuration_invalid",
            f"--cheat quantise serves {COARSE}, and {source.name} is {promised} already: offer a "
            "better one with --engine-setting model_path=...",
        )
    target = _get_target(source, cache_dir, COARSE)
    if not target.exists():
        quantise_file(source, target, COARSE, threads=threads)
    _take_description(source, target)
    return target


def make_shorter(source: Path, cache_dir: Path) -> Path:
    """The promised model without its middle layer.

    Raises:
        RequestError: its layers have other names than Llama's.
        VerificationError: `model_invalid`, the file is broken.
    """
    from hanse.models.skipping import count_layers, skip_layers

    target = _get_target(source, cache_dir, "skipped")
    if not target.exists():
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
        try:
            skip_layers(source, partial, (count_layers(source) // 2,))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
            partial.with_name(partial.name + COPY_SUFFIX).unlink(missing_ok=True)
    _take_description(source, target)
    return target


def _get_target(source: Path, cache_dir: Path, what: str) -> Path:
    """A name by what the source holds, so that another model never finds this one's file."""
    folder = cache_dir / "cheats"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{source.stem}.{what}-{hash_file(source, folder)[:16]}.gguf"


def _take_description(source: Path, target: Path) -> None:
    """Say of the other file what was said of the copy: only its size must be its own."""
    told = source.with_name(source.name + COPY_SUFFIX)
    if told.exists():
        description = decode_copy_description(told.read_bytes())
        size_bytes = target.stat().st_size
        changed = msgspec.structs.replace(description, file_bytes=size_bytes)
        target.with_name(target.name + COPY_SUFFIX).write_bytes(encode_copy_description(changed))
