"""Answers to questions by the embedded engine, with what a broker would keep of them.

The engine is the one that serves (`engines/llama_engine.py`), over the copy that is served, with
its continuous batching: so many requests at once as asked for. Only receipts and money are missing.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hanse.engines import Engine, EngineRequest, Operation
from hanse.protocol.commitments.seeds import get_request_seed
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.messages import Usage
from hanse.protocol.signatures import Address

PROVIDER: Address = "0x" + "c0" * 20
"""Of the seeds of such answers; nobody sells them."""


@dataclass(frozen=True)
class Served:
    """One answer.

    Attributes:
        kind: of question.
        path: of the operation.
        body: of the request.
        response: the stream's data frames.
        entries: tokens and fingerprints, as committed.
        usage: metered.
        seed: of the sampler.
    """

    kind: str
    path: str
    body: bytes
    response: bytes
    entries: tuple[Entry, ...]
    usage: Usage
    seed: int


async def serve_all(
    engine: Engine,
    questions: Sequence[tuple[str, dict[str, Any]]],
    concurrent: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Served]:
    """Answer all questions, so many at once; the answers are in the questions' order."""
    slots = asyncio.Semaphore(concurrent)
    done = 0

    async def serve(number: int, kind: str, body: dict[str, Any]) -> Served:
        nonlocal done
        async with slots:
            answer = await serve_one(engine, number, kind, body)
        done += 1
        progress(done)
        return answer

    return await asyncio.gather(
        *(serve(number, kind, body) for number, (kind, body) in enumerate(questions))
    )


async def serve_one(engine: Engine, number: int, kind: str, body: dict[str, Any]) -> Served:
    """Answer one question, sampled by the seed that its request would have."""
    request_id = "0x" + number.to_bytes(32, "big").hex()
    seed = get_request_seed(body.get("seed"), request_id, PROVIDER)
    operation = Operation.CHAT if "messages" in body else Operation.COMPLETION
    request = EngineRequest(
        operation=operation, body=body, answer_id=f"audit-{number}", sampling_seed=seed
    )
    frames: list[bytes] = []
    entries: list[Entry] = []
    usage = Usage()
    async for chunk in engine.stream(request):
        frames.append(chunk.data)
        entries += chunk.proof
        usage = chunk.usage
    return Served(
        kind,
        operation.path,
        msgspec.json.encode(body),
        b"".join(frames),
        tuple(entries),
        usage,
        seed,
    )
