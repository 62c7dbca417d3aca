"""Whoever serves: the embedded engine, torch, and cheats on top of the former."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.audit_cheats import BY_FILE, Q4_0, claim, forge, without_system
from benchmarks.auditing.llama_side import GgufMany
from benchmarks.auditing.plan import Job
from benchmarks.auditing.questions import Question
from benchmarks.auditing.torch_side import Order, TorchMany
from hanse.auditor.calibrating.noise import get_engine_settings
from hanse.auditor.calibrating.serving import PROVIDER, Served, serve_one
from hanse.engines import Engine, Operation, open_engine
from hanse.protocol.commitments.seeds import get_request_seed
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.messages import Usage
from hanse.verification.audits.coverage import get_chain
from hanse.verification.audits.prefill import Reader

Numbered = tuple[int, Question]
"""A question with the number that its request id is made of."""


@dataclass
class Tools:
    """What a lane has loaded: files, a reader, and the models that it needs."""

    files: dict[str, Path]
    cache_dir: Path
    reader: Reader
    scale: float
    torch: TorchMany
    llama: GgufMany


class LlamaServer:
    """The embedded engine over one file under one load, honest or with a cheat."""

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job, self._tools = job, tools
        self._engine: Engine | None = None
        self._cache4: GgufMany | None = None

    async def start(self) -> None:
        job, tools = self._job, self._tools
        path = tools.files[BY_FILE[job.part] if job.is_cheat else "own"]
        self._engine = open_engine("llama", get_engine_settings(path, job.load, tools.cache_dir))
        await self._engine.start()
        if job.part == "kv4":
            self._cache4 = GgufMany(
                path, context_tokens=2_048, threads=job.load.threads, cache_type=Q4_0
            )

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()
        if self._cache4 is not None:
            self._cache4.close()

    async def serve(self, questions: Sequence[Numbered]) -> list[Served]:
        assert self._engine is not None
        engine, slots = self._engine, asyncio.Semaphore(self._job.load.concurrent)
        is_dropped = self._job.part == "drop-system"

        async def answer(some: Sequence[Numbered]) -> list[Served]:
            async with slots:  # one after the other, so that the prompt's cache is theirs
                return [
                    await serve_one(
                        engine, number, kind, without_system(body) if is_dropped else body
                    )
                    for number, (kind, body) in some
                ]

        is_few = len(questions) < self._job.samplers * self._job.load.concurrent
        size = 1 if is_few else self._job.samplers
        parts = [questions[at : at + size] for at in range(0, len(questions), size)]
        found = await asyncio.gather(*(answer(part) for part in parts))
        served = [one for part in found for one in part]
        return await asyncio.to_thread(self._cheat, served, questions)

    def _cheat(self, served: Sequence[Served], questions: Sequence[Numbered]) -> list[Served]:
        reader, scale = self._tools.reader, self._tools.scale
        if self._job.part == "drop-system":
            pairs = zip(served, questions, strict=True)
            return [claim(one, body, reader) for one, (_, (_, body)) in pairs]
        if self._job.part == "kv4":
            return [forge(one, self._cache4, reader, scale) for one in served]
        if self._job.part == "cheap-text-prefill":
            return [forge(one, self._tools.llama, reader, scale) for one in served]
        return list(served)


class TorchServer:
    """torch, so many answers at once."""

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job, self._tools = job, tools

    async def start(self) -> None:
        import torch

        torch.set_num_threads(self._job.load.threads)

    async def close(self) -> None:
        """Nothing is kept."""

    async def serve(self, questions: Sequence[Numbered]) -> list[Served]:
        return await asyncio.to_thread(self._serve, questions)

    def _serve(self, questions: Sequence[Numbered]) -> list[Served]:
        size, served = self._job.load.concurrent, []
        for start in range(0, len(questions), size):
            served += self._serve_together(questions[start : start + size])
        return served

    def _serve_together(self, questions: Sequence[Numbered]) -> list[Served]:
        orders = []
        for number, (_, body) in questions:
            request_id = "0x" + number.to_bytes(32, "big").hex()
            raw = msgspec.json.encode(body)
            prompt = tuple(self._tools.reader.get_prompt_tokens(Operation.CHAT.path, raw))
            seed = get_request_seed(None, request_id, PROVIDER)
            orders.append(Order(prompt, get_chain(body), seed, body["max_tokens"]))
        written = self._tools.torch.write(orders, self._tools.scale)
        return [
            self._pack(question, order, entries)
            for (_, question), order, entries in zip(questions, orders, written, strict=True)
        ]

    def _pack(self, question: Question, order: Order, entries: tuple[Entry, ...]) -> Served:
        """As a broker would deliver it: the text in a frame, the tokens metered."""
        kind, body = question
        text = self._tools.reader.get_text([entry.token for entry in entries])
        frame = {"choices": [{"index": 0, "delta": {"content": text.decode(errors="ignore")}}]}
        response = b"data: " + msgspec.json.encode(frame) + b"\n\ndata: [DONE]\n\n"
        usage = Usage(len(order.prompt), 0, len(entries))
        raw = msgspec.json.encode(body)
        return Served(kind, Operation.CHAT.path, raw, response, entries, usage, order.seed)


def make_server(job: Job, tools: Tools) -> LlamaServer | TorchServer:
    """Whoever serves a job."""
    return LlamaServer(job, tools) if job.served_by == "llama" else TorchServer(job, tools)
