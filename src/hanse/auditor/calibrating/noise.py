"""Honest noise measured between a serving and an auditing runtime, and thresholds out of it.

Answers are served by the embedded engine, or by a server that is asked by its URL (vLLM), under
several loads, and run through the auditing runtime. Tokens that do not fit their answer are left
out and counted: an audit would not judge them either.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from hanse.auditor.calibrating.prompts import make_request
from hanse.auditor.calibrating.serving import Served, serve_all
from hanse.auditor.opened_model import OpenedModel
from hanse.engines import Engine, open_engine
from hanse.models.tensors import Progress
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.errors import RequestError
from hanse.verification.audits.alignment import align
from hanse.verification.audits.calibration import Calibration, Conditions, make_calibration
from hanse.verification.audits.coverage import get_chain
from hanse.verification.audits.judging import get_statistics
from hanse.verification.audits.measuring import POSITIONS_AUDITED_MAX, Measured, Task, measure
from hanse.verification.audits.sampling import Chain
from hanse.verification.audits.statistics import SAMPLING, SORTED

BATCH = 64
"""Answers that are served before they are audited; memory holds no more of them."""


@dataclass(frozen=True)
class Load:
    """How answers are served: processor threads, and how many at once."""

    threads: int
    concurrent: int


@dataclass(frozen=True)
class Upstream:
    """A server that serves the copy already, asked by engine `upstream`.

    Attributes:
        base_url: of its API, with the version.
        model: its name there.
        description: `.copy.json` of what it serves.
        served_by: what runs there, in its operator's words, such as `vllm 0.32.0 H100 bf16`.
    """

    base_url: str
    model: str
    description: Path
    served_by: str


@dataclass(frozen=True)
class Questions:
    """How many answers, how long, and how long the longer prompts (0 for short ones only)."""

    answers: int
    output_tokens: int
    prompt_tokens: int = 0


@dataclass
class Sample:
    """What was measured.

    Attributes:
        statistics: of each honest answer.
        misfits: answers that were left out, by reason.
        labels: what they were made under.
        longest: prompt and answer, in tokens.
        longest_answer: alone.
        tokens: that were compared.
    """

    statistics: list[dict[str, int]] = field(default_factory=list)
    misfits: dict[str, int] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    longest: int = 0
    longest_answer: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Rescored:
    """One served answer beside the auditor's numbers."""

    served: Served
    entries: tuple[Entry, ...]
    measured: Measured
    chain: Chain
    prompt_tokens: tuple[int, ...]


def rescore(served: Served, model: OpenedModel) -> Rescored | tuple[str, ...]:
    """Run one served answer through the auditor's model; the reasons if it does not fit."""
    auditor = model.auditor
    found = align(
        auditor.reader, served.path, served.body, served.response, served.entries, served.usage
    )
    if found.reasons or not found.count:
        return found.reasons or ("nothing_told",)
    entries = served.entries[: min(found.count, POSITIONS_AUDITED_MAX)]
    chain = get_chain(msgspec.json.decode(served.body))
    tokens = tuple(entry.token for entry in entries)
    task = Task(found.prompt_tokens, tokens, chain, served.seed, auditor.scale)
    return Rescored(served, entries, measure(auditor.prefill, task), chain, found.prompt_tokens)


async def measure_noise(
    model: OpenedModel,
    served: Path | Upstream,
    order: Questions,
    loads: Sequence[Load],
    cache_dir: Path,
    progress: Progress,
) -> Sample:
    """Serve honest answers under each load in turn and measure how far the auditor's lie apart."""
    answers = order.answers
    sample, done = Sample(), 0
    shares = [answers // len(loads) + (at < answers % len(loads)) for at in range(len(loads))]
    for load, share in zip(loads, shares, strict=True):
        engine = _open_engine(served, load, cache_dir)
        await engine.start()
        try:
            for numbers in _split(range(done, done + share)):
                questions = [
                    make_request(number, order.output_tokens, order.prompt_tokens)
                    for number in numbers
                ]
                told = f"{load.concurrent} at once, {load.threads} threads"
                for answer in await serve_all(engine, questions, load.concurrent):
                    take(sample, answer, rescore(answer, model))
                    done += 1
                    progress(told, done / answers)
        finally:
            await engine.close()
        sample.labels.add(f"concurrent={load.concurrent}")
        if isinstance(served, Path):  # another server's threads are not set from here
            sample.labels.add(f"threads={load.threads}")
    return sample


def calibrate(
    sample: Sample,
    model: OpenedModel,
    manifest_root: str,
    quantisation: str,
    quantile: float,
    confidence: float,
    upstream: Upstream | None = None,
) -> Calibration:
    """Thresholds; raises RequestError `unprocessable` if the sample does not carry the quantile.

    What an upstream serves has no thresholds of draws: they would be those of a sampler that is
    not replayed, which every text passes.
    """
    served_by = f"upstream {upstream.served_by}" if upstream else _get_embedded()
    left_out = (SAMPLING, SORTED) if upstream else ()
    statistics = [
        {name: value for name, value in one.items() if name not in left_out}
        for one in sample.statistics
    ]
    conditions = Conditions(
        manifest_root,
        quantisation,
        served_by,
        model.auditor.prefill.runtime,
        sample.longest,
        sample.longest_answer,
        tuple(sorted(sample.labels)),
    )
    try:
        return make_calibration(conditions, statistics, quantile, confidence)
    except RequestError as error:
        if not sample.misfits:
            raise
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(sample.misfits.items()))
        raise RequestError(
            error.code, f"{error.message}. Answers that no audit would judge were left out: {told}"
        ) from error


def _get_embedded() -> str:
    return f"llama xllamacpp-{version('xllamacpp')} cpu"


def _open_engine(served: Path | Upstream, load: Load, cache_dir: Path) -> Engine:
    if isinstance(served, Path):
        return open_engine("llama", get_engine_settings(served, load, cache_dir))
    settings = {
        "base_url": served.base_url,
        "model": "audited",
        "upstream_model": served.model,
        "parallel": load.concurrent,
        "continuous_usage": True,
        "copy_description": str(served.description),
    }
    return open_engine("upstream", settings)


def get_engine_settings(path: Path, load: Load, cache_dir: Path) -> dict[str, Any]:
    """Settings of `llama` that serves this file under this load."""
    return {
        "cache_dir": str(cache_dir),
        "model": "audited",
        "model_path": str(path),
        "threads": load.threads,
        "parallel": load.concurrent,
        "embeddings": False,
    }


def take(sample: Sample, served: Served, found: Rescored | tuple[str, ...]) -> None:
    """Add one answer to a sample, or the reason why it is left out."""
    if not isinstance(found, Rescored):
        for reason in found:
            sample.misfits[reason] = sample.misfits.get(reason, 0) + 1
        return
    statistics = get_statistics(found.entries, found.measured, found.chain)
    sample.statistics.append(dict(statistics))
    sample.labels.add(served.kind)
    if served.usage.cached_tokens:
        sample.labels.add("cache")
    sample.longest = max(sample.longest, len(found.prompt_tokens) + len(found.entries))
    sample.longest_answer = max(sample.longest_answer, len(found.entries))
    sample.tokens += len(found.entries)


def _split(numbers: Iterable[int]) -> Iterator[list[int]]:
    whole = list(numbers)
    for start in range(0, len(whole), BATCH):
        yield whole[start : start + BATCH]
