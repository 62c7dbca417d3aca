"""What an audit costs beside the answer, and what the proof costs the engine that carries it."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.bench_proving import UnprovenCopy, measure, read_cpu_s
from hanse.auditor.calibrating.noise import rescore
from hanse.auditor.calibrating.prompts import make_request
from hanse.auditor.calibrating.serving import serve_all
from hanse.auditor.opened_model import OpenedModel
from hanse.engines.llama_engine import LlamaEngine, Settings
from hanse.protocol.commitments.fingerprints import FINGERPRINT_BYTES
from hanse.settlement.openings.kept_form import encode_kept

ANSWERS, TOKENS, ROUNDS, USERS = 8, 128, 5, 8
ROOT_BYTES = 32


async def measure_cost(copy: Path, model: OpenedModel, cache_dir: Path) -> dict[str, Any]:
    """Processor time of an audit over its answer's, and the engine's with and without its proof."""
    settings = Settings(
        cache_dir=str(cache_dir),
        model_path=str(copy),
        parallel=USERS,
        context_tokens=1_024,
        threads=1,
        embeddings=False,
    )
    proving, silent = LlamaEngine(settings), UnprovenCopy(settings)
    try:
        await proving.start()
        await silent.start()
        share, kept = await _compare_audit(proving, model)
        slower = []
        for _ in range(ROUNDS):
            with_proof = await measure(proving, USERS, 48)
            without = await measure(silent, USERS, 48)
            slower.append(_sum_ms(with_proof) / _sum_ms(without) - 1)
    finally:
        await proving.close()
        await silent.close()
    return {
        "prover_overhead": round(statistics.median(slower), 4),
        "audit_cost_over_generation": round(share, 4),
        "bytes_per_token": round(kept, 2),
        "bytes_per_token_of_fingerprint": FINGERPRINT_BYTES,
        "bytes_per_request_on_the_wire": ROOT_BYTES,
        "network_cost_at_1_percent": round(share / 100, 5),
    }


def _sum_ms(found: dict[str, float]) -> float:
    """Processor time of a token, server's and ours; wall-clock time tells of the machine's load."""
    return found["server_ms_per_token"] + found["own_ms_per_token"]


async def _compare_audit(engine: LlamaEngine, model: OpenedModel) -> tuple[float, float]:
    """An audit's processor time over its answer's, and bytes that a broker keeps of a token."""
    assert engine.pid is not None
    questions = [make_request(number, TOKENS) for number in range(ANSWERS)]
    began = read_cpu_s(engine.pid)
    answers = await serve_all(engine, questions, 1)
    generated = read_cpu_s(engine.pid) - began
    began = time.process_time()
    await asyncio.to_thread(lambda: [rescore(answer, model) for answer in answers])
    share = (time.process_time() - began) / generated
    kept = sum(len(encode_kept(answer.entries)) for answer in answers)
    return share, kept / sum(len(answer.entries) for answer in answers)
