"""Makes smaller files of a GGUF model with llama.cpp's own quantiser.

The quantiser is deterministic: the same source, type and version of llama.cpp give the same bytes,
so two providers that quantise one model offer the same root. Mixes such as `Q4_K_M` keep some
tensors finer; rows that no block of 256 divides (SmolLM2's 576) fall back to blocks of 32.
"""

import os
import re
from pathlib import Path

from hanse.models.gguf_header import read_gguf_header
from hanse.models.opening import open_model
from hanse.models.quantising.calling import run_job
from hanse.models.quantising.worker import QuantiseJob
from hanse.models.tensors import Progress
from hanse.protocol.errors import RequestError

OFFERED = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K",
)  # fmt: skip
"""Types that need no importance matrix, the finest first."""

USUAL = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")
"""What is made where nothing is said."""

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def find_type(text: str) -> str:
    """The offered type that is meant by `text`.

    Raises:
        RequestError: `usage`, none is.
    """
    name = ALIASES.get(text.upper(), text.upper())
    if name not in OFFERED:
        raise RequestError(
            "usage", f"{text} is no type that can be made here; these can: {', '.join(OFFERED)}."
        )
    return name


def name_target(source: Path, quantisation: str) -> str:
    """`model.Q8_0.gguf` as `Q4_0` is `model.Q4_0.gguf`; parts of a split file make one."""
    name = re.sub(r"-\d{5}-of-\d{5}$", "", source.name.removesuffix(".gguf"))
    stem, _, last = name.rpartition(".")
    return f"{stem if stem and last.upper() in OFFERED else name}.{quantisation}.gguf"


def quantise_file(
    source: Path,
    target: Path,
    quantisation: str,
    *,
    threads: int,
    progress: Progress | None = None,
) -> None:
    """Write `target`; it appears whole or not at all.

    Raises:
        RequestError: `usage`, the target is there already; `unprocessable`, llama.cpp could not.
        VerificationError: `model_invalid`, the source is broken.
    """
    _, header = open_model(source)
    if target.exists():
        raise RequestError(
            "usage", f"{target} is there already; remove it, or name another --output."
        )
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    expected = max(1, header.size_bytes)

    def watch() -> None:
        # llama.cpp says nothing on its way, but its file grows
        if progress and partial.exists():
            progress(f"quantising to {quantisation}", min(0.99, partial.stat().st_size / expected))

    if progress:
        progress(f"quantising to {quantisation}", 0.0)
    try:
        job = QuantiseJob(
            source=str(source), target=str(partial), quantisation=quantisation, threads=threads
        )
        run_job(job, watch=watch)
        read_gguf_header(partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    if progress:
        progress(f"quantising to {quantisation}", 1.0)
