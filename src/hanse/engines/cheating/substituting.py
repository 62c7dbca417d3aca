"""Cheats that promise one model and answer by another.

    engine = Substitute(open_engine("llama", promised), open_engine("llama", served))

The promised engine runs only long enough to be described: its manifest, its quantisation, its
proofs and its limits go into the offer. After that every request goes to the other one.
"""

from collections.abc import AsyncGenerator

from hanse.engines.base import (
    Answer,
    Capabilities,
    Chunk,
    Engine,
    EngineRequest,
    ModelDescription,
    Progress,
)
from hanse.protocol.errors import InvariantError


class Substitute:
    """See the module; `hanse.engines.base.Engine` says what each method promises."""

    def __init__(self, promised: Engine, served: Engine) -> None:
        self._promised, self._served = promised, served
        self._described: tuple[Capabilities, ModelDescription] | None = None

    @property
    def name(self) -> str:
        """That of the promised engine."""
        return self._promised.name

    @property
    def capabilities(self) -> Capabilities:
        """What was promised."""
        return self._get_described()[0]

    async def start(self, progress: Progress | None = None) -> None:
        """Have the promised model described, then start the one that answers."""
        try:
            await self._promised.start(progress)
            self._described = (
                self._promised.capabilities,
                await self._promised.describe_model(),
            )
        finally:
            await self._promised.close()
        await self._served.start(progress)

    async def close(self) -> None:
        """End the one that answers."""
        await self._served.close()

    async def healthy(self) -> bool:
        """Whether the one that answers does."""
        return await self._served.healthy()

    async def describe_model(self) -> ModelDescription:
        """The promised model."""
        return self._get_described()[1]

    async def answer(self, request: EngineRequest) -> Answer:
        """By the other model."""
        return await self._served.answer(request)

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """By the other model."""
        return self._served.stream(request)

    async def count_tokens(self, request: EngineRequest) -> int:
        """By the other model."""
        return await self._served.count_tokens(request)

    def _get_described(self) -> tuple[Capabilities, ModelDescription]:
        if self._described is None:
            raise InvariantError("invariant_broken", "The model is known after start() only.")
        return self._described
