"""Cheat `cheap-text-prefill`: a cheap model writes, the promised copy only reads it once.

    engine = LateProver(cheap, promised_path, context_tokens=4_096, threads=2)

A prefill costs a fraction of generating, and the fingerprints that it gives are the true ones of
these tokens under the promised copy. What it cannot give is a text that the promised copy's
sampler would have drawn from the request's seed.

The cheap engine must serve a copy of the same vocabulary itself, since its proof says which tokens
it wrote. A stream's proof comes with its last chunk, so an answer that is cut has none.
"""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from hanse.engines.base import Answer, Chunk, Engine, EngineRequest, Progress
from hanse.engines.cheating.passing import PassingEngine
from hanse.engines.proving.copy_in_service import find_copy
from hanse.engines.proving.prefill_gguf import GgufPrefill
from hanse.engines.proving.reader_gguf import GgufReader
from hanse.protocol.commitments.fingerprints import quantise
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.errors import InvariantError, RequestError


class LateProver(PassingEngine):
    """See the module; the inner engine is the one that writes."""

    def __init__(self, cheap: Engine, promised: Path, *, context_tokens: int, threads: int) -> None:
        """Take the engine that writes and the copy that proves.

        Raises:
            RequestError: `configuration_invalid`, the promised file is no copy.
        """
        copy = find_copy(promised)
        if copy is None:
            raise RequestError(
                "configuration_invalid",
                f"{promised.name} is no copy: there is no proof to be late with.",
            )
        super().__init__(cheap)
        self._promised = promised
        self._scale = copy.description.fingerprint_scale
        self._context_tokens, self._threads = context_tokens, threads
        self._prefill: GgufPrefill | None = None
        self._turn = asyncio.Lock()

    async def start(self, progress: Progress | None = None) -> None:
        """Start the writer and load the copy that proves.

        Raises:
            RequestError: the writer serves no copy, so that nobody knows its tokens.
        """
        await super().start(progress)
        if not self._inner.capabilities.proves:
            raise RequestError(
                "configuration_invalid",
                "The cheap model must be a copy, whose proof names the tokens that it wrote.",
            )
        self._prefill = await asyncio.to_thread(
            GgufPrefill,
            self._promised,
            context_tokens=self._context_tokens,
            threads=self._threads,
        )

    async def close(self) -> None:
        """End both."""
        async with self._turn:
            prefill, self._prefill = self._prefill, None
            if prefill is not None:
                await asyncio.to_thread(prefill.close)
        await super().close()

    async def answer(self, request: EngineRequest) -> Answer:
        """The writer's text with the other one's fingerprints."""
        answer = await self._inner.answer(request)
        return msgspec.structs.replace(answer, proof=await self._prove(request, answer.proof))

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """The writer's text; the proof follows with the last chunk."""
        entries: tuple[Entry, ...] = ()
        held: Chunk | None = None
        async for chunk in self._inner.stream(request):
            entries += chunk.proof
            if held is not None:
                yield held
            held = msgspec.structs.replace(chunk, proof=())
        if held is not None:
            proof = await self._prove(request, entries)
            yield msgspec.structs.replace(held, proof=proof)

    async def _prove(self, request: EngineRequest, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        known = next(
            (at for at, one in enumerate(entries) if one.token == UNKNOWN_TOKEN), len(entries)
        )
        if not known:
            return entries
        async with self._turn:
            return await asyncio.to_thread(self._forge, request, entries, known)

    def _forge(
        self, request: EngineRequest, entries: tuple[Entry, ...], known: int
    ) -> tuple[Entry, ...]:
        prefill = self._prefill
        if prefill is None:
            raise InvariantError("invariant_broken", "The copy is loaded after start() only.")
        body = msgspec.json.encode(request.body)
        prompt = GgufReader(prefill.model).get_prompt_tokens(request.operation.path, body)
        tokens = [entry.token for entry in entries[:known]]
        rows = prefill.score(prompt, tokens).canaries.tolist()
        forged = (
            Entry(token, quantise(row, self._scale))
            for token, row in zip(tokens, rows, strict=True)
        )
        return (*forged, *entries[known:])
