"""An engine round another one that passes everything on; a cheat overrides what it changes."""

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


class PassingEngine:
    """`hanse.engines.base.Engine` says what each method promises."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """The inner engine's."""
        return self._inner.name

    @property
    def capabilities(self) -> Capabilities:
        """The inner engine's."""
        return self._inner.capabilities

    async def start(self, progress: Progress | None = None) -> None:
        """Start the inner engine."""
        await self._inner.start(progress)

    async def close(self) -> None:
        """Close the inner engine."""
        await self._inner.close()

    async def healthy(self) -> bool:
        """Whether the inner engine is."""
        return await self._inner.healthy()

    async def describe_model(self) -> ModelDescription:
        """The inner engine's model."""
        return await self._inner.describe_model()

    async def answer(self, request: EngineRequest) -> Answer:
        """By the inner engine."""
        return await self._inner.answer(request)

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """By the inner engine."""
        return self._inner.stream(request)

    async def count_tokens(self, request: EngineRequest) -> int:
        """By the inner engine."""
        return await self._inner.count_tokens(request)
