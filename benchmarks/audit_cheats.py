"""Cheats that can be made as files or requests, for `benchmarks.bench_audit`.

    files = make_files(folder)            copies of the packaged model, honest and not
    await serve_cheat(name, ...)          answers as that cheat would serve and commit to them

What stands for what, since SmolLM2-135M is the only packaged model of its vocabulary:

    quantise            the provider's own copy, Q4_0 where Q8_0 is offered
    other-copy          Q8_0, another provider's key
    skip-layer          the own copy, one middle layer's output zero
    swap                the own copy, 10 of 30 layers' output zero: a cheaper model's text
    drop-system         the own copy, asked without the system message, billed with it
    kv4                 the own copy; fingerprints by llama.cpp with a 4-bit KV cache, over honest
                        text: what such a server commits to, but for its own choice of tokens
    cheap-text-prefill  text of `swap`, fingerprints by one honest prefill over it
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from hanse.auditor.calibrating.noise import Load, get_engine_settings
from hanse.auditor.calibrating.serving import Served, serve_all
from hanse.auditor.opened_model import OpenedModel
from hanse.engines import open_engine
from hanse.engines.gguf_files import find_packaged_model
from hanse.engines.proving.prefill_gguf import STEP_TOKENS, GgufPrefill
from hanse.models.copies import CopyOrder, rebase
from hanse.models.skipping import skip_layers
from hanse.protocol.commitments.fingerprints import quantise
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.messages import Usage
from hanse.verification.audits.prefill import Reader

Question = tuple[str, dict[str, Any]]

MASTER = b"bench-audit, no secret: 32 bytes"
ROOT = "0x" + "5a" * 32
OWN, OTHER = "0x" + "c0" * 20, "0x" + "c1" * 20
SKIPPED = {"skip-layer": (15,), "swap": tuple(range(8, 28, 2))}
Q4_0 = 2
"""GGML's number of the type."""

BY_FILE = {
    "quantise": "own-q4",
    "other-copy": "other",
    "skip-layer": "skip-layer",
    "swap": "swap",
    "drop-system": "own",
    "kv4": "own",
    "cheap-text-prefill": "swap",
}
"""Cheat -> the file that serves its text."""


def find_files(folder: Path) -> dict[str, Path]:
    """Where the copies are, or will be."""
    return {name: folder / f"{name}.gguf" for name in ("own", "own-q4", "other", *SKIPPED)}


def make_files(folder: Path) -> dict[str, Path]:
    """Write the copies; about a minute on one core."""
    source, files = find_packaged_model(), find_files(folder)
    for name, provider, kind in (
        ("own", OWN, "Q8_0"),
        ("own-q4", OWN, "Q4_0"),
        ("other", OTHER, "Q8_0"),
    ):
        rebase(source, files[name], CopyOrder(MASTER, ROOT, provider), kind, threads=1)
    for name, layers in SKIPPED.items():
        skip_layers(files["own"], files[name], layers)
    return files


async def serve_cheat(
    name: str,
    path: Path,
    questions: Sequence[Question],
    load: Load,
    cache_dir: Path,
    honest: OpenedModel,
) -> list[Served]:
    """What a provider with this cheat would have answered and committed to."""
    asked = list(questions)
    if name == "drop-system":
        asked = [(kind, without_system(body)) for kind, body in questions]
    answers = await serve(path, asked, load, cache_dir)
    reader, scale = honest.auditor.reader, honest.auditor.scale
    if name == "drop-system":
        return [claim(one, body, reader) for one, (_, body) in zip(answers, questions, strict=True)]
    if name == "kv4":
        cache = Kv4Prefill(honest.path, context_tokens=1_024, threads=load.threads)
        try:
            return [forge(one, cache, reader, scale) for one in answers]
        finally:
            cache.close()
    if name == "cheap-text-prefill":
        return [forge(one, honest.auditor.prefill, reader, scale) for one in answers]
    return answers


async def serve(
    path: Path, questions: Sequence[Question], load: Load, cache_dir: Path
) -> list[Served]:
    """Answers by the embedded engine over one file."""
    engine = open_engine("llama", get_engine_settings(path, load, cache_dir))
    await engine.start()
    try:
        return await serve_all(engine, questions, load.concurrent)
    finally:
        await engine.close()


class Kv4Prefill(GgufPrefill):
    """llama.cpp with keys and values in 4 bits, as `--cache-type-k q4_0` serves."""

    def __init__(self, path: Path, *, context_tokens: int, threads: int) -> None:
        super().__init__(path, context_tokens=context_tokens, threads=threads)
        from cyllama.llama import llama_cpp

        params = llama_cpp.LlamaContextParams()
        params.n_ctx = context_tokens
        params.n_batch = params.n_ubatch = STEP_TOKENS
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = Q4_0
        params.flash_attn_type = 1
        self._context.close()
        self._context = llama_cpp.LlamaContext(self.model, params)


def forge(served: Served, prefill: Any, reader: Reader, scale: float) -> Served:
    """The same tokens with fingerprints of another prefill."""
    count = next(
        (at for at, one in enumerate(served.entries) if one.token == UNKNOWN_TOKEN),
        len(served.entries),
    )
    if not count:
        return served
    tokens = [entry.token for entry in served.entries[:count]]
    prompt = reader.get_prompt_tokens(served.path, served.body)
    rows = prefill.score(prompt, tokens).canaries.tolist()
    entries = [Entry(token, quantise(row, scale)) for token, row in zip(tokens, rows, strict=True)]
    return replace(served, entries=(*entries, *served.entries[count:]))


def claim(served: Served, body: dict[str, Any], reader: Reader) -> Served:
    """An answer to a shorter prompt, billed and signed for as one to the whole."""
    encoded = msgspec.json.encode(body)
    tokens = len(reader.get_prompt_tokens(served.path, encoded))
    usage = Usage(tokens, 0, served.usage.output_tokens)
    return replace(served, body=encoded, usage=usage)


def without_system(body: dict[str, Any]) -> dict[str, Any]:
    """A request as a provider reads it that drops system messages."""
    return body | {"messages": [one for one in body["messages"] if one["role"] != "system"]}
