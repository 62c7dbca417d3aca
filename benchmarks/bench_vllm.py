"""vLLM's proof by its real server: `make bench-vllm` (half an hour; ANSWERS=16 is a look).

A copy of the packaged model is made for vLLM and, of the same order, as GGUF. A real vLLM serves
it on the processor, in float32 and in bfloat16 as cards do; engine `upstream` asks it for answers
of all kinds, one and eight at once; and audits of llama.cpp and torch recompute them. On standard
output a JSON line for each way of serving and each auditor:

    answers, tokens   that were compared; `left_out` did not fit their audit, `absent` have no
                      fingerprint, `canaries` are tokens that nobody may see
    fingerprint/4 ..  of honest answers: median, the largest, and the threshold that follows
    greedy            share of tokens of answers at temperature 0 that lie far below the best
    others            the smallest statistic of the same answers held against another quantisation
                      and another provider's copy, over the threshold: above 2 is a cheat

and one of what the proof costs: processor time a token of the server, asked for it and not, in
turns, eight at once; `ours` is this process's.

`--record FILE` writes what vLLM was asked and what it answered, for `tests/engines/recorded`.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from benchmarks.load import get_cpu_s
from benchmarks.vllm_side import CONTEXT_TOKENS, Vllm, run_vllm, write_base
from hanse.auditor.calibrating.noise import Sample, rescore, take
from hanse.auditor.calibrating.prompts import make_request
from hanse.auditor.calibrating.serving import Served, serve_all
from hanse.auditor.opened_model import open_model
from hanse.engines import Operation, open_engine
from hanse.engines.proving.copy_in_service import read_copy
from hanse.engines.proving.openai_proof import OpenAIProof
from hanse.models.copies import CopyOrder, rebase
from hanse.models.copies.folders import rebase_folder
from hanse.models.copies.rebasing import get_description_path
from hanse.protocol.commitments.fingerprints import ABSENT
from hanse.verification.audits.bounds import find_upper_bound
from hanse.verification.audits.calibration import MARGIN_PPM
from hanse.verification.audits.statistics import FINGERPRINT, GREEDY

MASTER, ROOT = bytes(range(32)), "0x" + "11" * 32
OWN, OTHER = (CopyOrder(MASTER, ROOT, "0x" + pair * 20) for pair in ("aa", "bb"))
DTYPES = ("float32", "bfloat16")
CONCURRENT = (1, 8)
QUANTILE, CONFIDENCE = 0.95, 0.95
ROUNDS, OVERHEAD_ANSWERS = 5, 8
PPM = 1_000_000


@dataclass(frozen=True)
class Files:
    """What is served, and what auditors hold: the same weights, and two that are others."""

    folder: Path
    gguf: Path
    others: dict[str, Path]


@dataclass(frozen=True)
class Way:
    """How answers were served, and how long they took."""

    dtype: str
    concurrent: int
    seconds: float
    served: Sequence[Served]


def make_files(folder: Path) -> Files:
    """Base, copies."""
    base = write_base(folder)
    made = folder.with_name("copy")
    rebase_folder(base, made, OWN, "BF16")
    gguf, other = folder.with_name("own.gguf"), folder.with_name("other.gguf")
    rebase(base, gguf, OWN, "BF16")
    rebase(base, other, OTHER, "BF16")
    others = {"another copy": other}
    for quantisation in ("Q8_0", "Q4_0"):
        path = others[f"{quantisation} of the same copy"] = folder.with_name(f"{quantisation}.gguf")
        rebase(base, path, OWN, quantisation)
    return Files(made, gguf, others)


async def serve(url: str, files: Files, dtype: str, answers: int, tokens: int) -> list[Way]:
    """Honest answers, one and several at once."""
    engine, ways, done = open_engine("upstream", _get_settings(url, files)), [], 0
    await engine.start()
    try:
        for concurrent in CONCURRENT:
            questions = [make_request(done + at, tokens) for at in range(answers // 2)]
            started = time.monotonic()
            served = await serve_all(engine, questions, concurrent)
            ways.append(Way(dtype, concurrent, time.monotonic() - started, served))
            print(f"{dtype}, {concurrent} at once: {answers // 2} answers", file=sys.stderr)
            done += answers // 2
    finally:
        await engine.close()
    return ways


def _get_settings(url: str, files: Files) -> dict[str, Any]:
    return {
        "base_url": url,
        "model": "audited",
        "upstream_model": "m",
        "continuous_usage": True,
        "context_tokens": CONTEXT_TOKENS,
        "copy_description": str(get_description_path(files.folder)),
    }


def audit(ways: Sequence[Way], model: Path, runtime: str) -> tuple[str, Sample]:
    """All answers of these ways through one auditor."""
    sample = Sample()
    with open_model(model, runtime, threads=2, context_tokens=CONTEXT_TOKENS) as opened:
        for way in ways:
            for served in way.served:
                take(sample, served, rescore(served, opened))
        return opened.auditor.prefill.runtime, sample


def report(ways: Sequence[Way], files: Files, runtime: str) -> dict[str, Any]:
    """One line."""
    name, sample = audit(ways, files.gguf, runtime)
    entries = [entry for way in ways for served in way.served for entry in served.entries]
    line: dict[str, Any] = {
        "served": f"vLLM 0.32.0 cpu {ways[0].dtype}, BF16 weights, {CONCURRENT} at once",
        "audited": name,
        "answers": len(sample.statistics),
        "tokens": sample.tokens,
        "left_out": sample.misfits,
        "absent": sum(entry.fingerprint == ABSENT for entry in entries),
        "canaries": sum(entry.token in _get_canaries(files) for entry in entries),
        "tokens_per_s": {
            way.concurrent: round(sum(len(s.entries) for s in way.served) / way.seconds, 1)
            for way in ways
        },
    }
    limits = {}
    for statistic in (*FINGERPRINT, GREEDY):
        values = sorted(one[statistic] for one in sample.statistics if statistic in one)
        bound = find_upper_bound(values, QUANTILE, CONFIDENCE) if values else None
        if bound is not None:
            limits[statistic] = -(-bound * MARGIN_PPM // PPM)
        if values:
            line[statistic] = {
                "answers": len(values),
                "median": values[len(values) // 2] / PPM,
                "largest": values[-1] / PPM,
                "threshold": limits[statistic] / PPM if statistic in limits else None,
            }
    if runtime == "llama":
        line["others"] = {
            what: _get_smallest(audit(ways, path, runtime)[1], limits)
            for what, path in files.others.items()
        }
    return line


def _get_canaries(files: Files) -> frozenset[int]:
    return read_copy(get_description_path(files.folder)).canaries


def _get_smallest(sample: Sample, limits: dict[str, int]) -> dict[str, float]:
    """How far above its threshold the least suspicious answer is."""
    found = {}
    for statistic in FINGERPRINT:
        values = [one[statistic] for one in sample.statistics if statistic in one]
        if values and statistic in limits:
            found[statistic] = round(min(values) / limits[statistic], 2)
    return found


async def measure_overhead(vllm: Vllm, files: Files, rounds: int, tokens: int) -> dict[str, Any]:
    """Processor time a token with the proof and without."""
    plain = _get_settings(vllm.url, files)
    ways = {"plain": {**plain, "copy_description": ""}, "proving": plain}
    spent: dict[str, list[float]] = {"plain": [], "proving": [], "ours, plain": [], "ours": []}
    engines = {name: open_engine("upstream", settings) for name, settings in ways.items()}
    for engine in engines.values():
        await engine.start()
    for at in range(rounds + 1):
        for name, engine in engines.items():
            asked = [make_request(100 * at + one, tokens) for one in range(OVERHEAD_ANSWERS)]
            before, own = get_cpu_s([vllm.pid]), time.process_time()
            served = await serve_all(engine, asked, max(CONCURRENT))
            count = sum(one.usage.output_tokens for one in served)
            if at:  # the first round warms up
                spent[name].append((get_cpu_s([vllm.pid]) - before) / count * 1e3)
                ours = "ours" if name == "proving" else "ours, plain"
                spent[ours].append((time.process_time() - own) / count * 1e3)
    for engine in engines.values():
        await engine.close()
    middle = {name: statistics.median(values) for name, values in spent.items()}
    shares = [
        with_ / without - 1 for with_, without in zip(spent["proving"], spent["plain"], strict=True)
    ]
    return {
        "case": "overhead",
        "ms_a_token": {name: round(value, 3) for name, value in middle.items()},
        "overhead": round(statistics.median(shares), 4),
        "rounds": [round(share, 3) for share in shares],
    }


async def record(url: str, files: Files) -> dict[str, Any]:
    """What this engine asks and a real vLLM answers: a character of several tokens, the end."""
    path = get_description_path(files.folder)
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = {"stream": True, "stream_options": options}
    emoji = {"model": "m", "max_tokens": 6, "temperature": 0, "messages": _say("Say 🎉")}
    text = {"model": "m", "max_tokens": 3, "temperature": 1, "seed": 5, "prompt": "The harbour of"}
    end = {"model": "m", "max_tokens": 40, "temperature": 0, "messages": _say("Is 2 above 1?")}
    asked = [
        (Operation.CHAT, emoji | stream),
        (Operation.CHAT, emoji),
        (Operation.COMPLETION, text | stream),
        (Operation.CHAT, end | stream),
    ]
    exchanges = []
    async with aiohttp.ClientSession() as session:
        for operation, body in asked:
            OpenAIProof(read_copy(path), operation, body, None)
            async with session.post(f"{url}/{operation}", json=body) as answer:
                told = await answer.text()
            exchanges.append({"operation": operation.value, "asked": body, "answer": told})
    return {
        "server": "vLLM 0.32.0, processor, float32",
        "description": msgspec.json.decode(path.read_bytes()),
        "exchanges": exchanges,
    }


def _say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def main(answers: int, tokens: int, dtypes: Sequence[str], target: str) -> None:
    """Everything, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-vllm-") as name:
        base = Path(name) / "base"
        base.mkdir()
        files = await asyncio.to_thread(make_files, base)
        for dtype in dtypes:
            async with run_vllm(files.folder, dtype) as vllm:
                if target:
                    document = json.dumps(await record(vllm.url, files), indent=1)
                    await asyncio.to_thread(Path(target).write_text, document + "\n")
                    return
                ways = await serve(vllm.url, files, dtype, answers, tokens)
                print(json.dumps(await measure_overhead(vllm, files, ROUNDS, tokens)), flush=True)
            for runtime in ("llama", "torch"):
                line = await asyncio.to_thread(report, ways, files, runtime)
                print(json.dumps(line | {"start_s": round(vllm.started_s, 1)}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=120, help="of each dtype")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="both if not said")
    parser.add_argument("--record", default="", metavar="FILE")
    options = parser.parse_args()
    asyncio.run(main(options.answers, options.tokens, options.dtype or DTYPES, options.record))
