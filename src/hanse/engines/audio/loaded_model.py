"""What the audio engines share: whole answers, and a model in this process with work in threads.

    class HibariEngine(LoadedModel):
        def __init__(self, settings):
            super().__init__(settings.parallel)

An engine sets `_model` and `_files` as it starts, and answers with what `_get_model` gives.
"""

from collections.abc import AsyncGenerator
from typing import Any

from hanse.engines.audio.threaded_work import ThreadedWork
from hanse.engines.base import Chunk, EngineRequest, ModelFile
from hanse.protocol.errors import RequestError, TransientError


class WholeAnswers:
    """An engine that streams nothing."""

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """Not offered."""
        raise RequestError("unsupported_parameter", "stream is not offered here.", param="stream")
        yield  # makes this a generator, as the interface has it


class LoadedModel(WholeAnswers):
    """See the module; `hanse.engines.base.Engine` says what each method promises."""

    def __init__(self, parallel: int) -> None:
        self._work = ThreadedWork(parallel)
        self._model: Any = None
        self._files: tuple[ModelFile, ...] = ()

    @property
    def active(self) -> int:
        """Requests being worked on now."""
        return self._work.active

    async def close(self) -> None:
        """Let go of the model; requests at work end by themselves."""
        self._model = None

    async def healthy(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    def _get_model(self) -> Any:
        if self._model is None:
            raise TransientError("engine_unavailable", "The engine is not running.")
        return self._model
