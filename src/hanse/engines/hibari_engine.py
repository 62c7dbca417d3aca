"""Engine `hibari`: English speech from text, by the 7.9 MB voice inside the package hibari-tts.

A unit is a character of `input`. The same text at the same speed gives the same audio, byte for
byte. Work runs in threads of this process; a request that is cancelled stops at the next sentence,
which takes some 20 ms of one core.

Install it with `pip install 'hanse[audio]'`; the voice comes inside the package.
"""

import asyncio
import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from hanse.engines.audio.codec import encode_audio
from hanse.engines.audio.fields import SPEECH_CHARS_MAX
from hanse.engines.audio.loaded_model import LoadedModel
from hanse.engines.audio.model_folder import describe_folder, load_library
from hanse.engines.base import (
    Answer,
    Capabilities,
    EngineRequest,
    ModelDescription,
    Operation,
    Progress,
)
from hanse.engines.parameters import check_request
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import FinishReason, Usage

VOICE = "heart"
"""The voice inside the package; the others would be downloaded, which no engine does."""

SPEED_MIN, SPEED_MAX = 0.5, 2.0
"""What the voice was made for."""

RATE_HZ = 24_000


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `hibari`.

    Attributes:
        model: the name that is offered.
        threads: processor threads of one request.
        parallel: requests at once; more wait.
    """

    model: str = "hibari"
    threads: int = 1
    parallel: int = 1


class HibariEngine(LoadedModel):
    """See the module; `hanse.engines.base.Engine` says what each method promises."""

    name = "hibari"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.parallel)
        self._settings = settings

    @cached_property
    def capabilities(self) -> Capabilities:
        """Speech; the context is in characters."""
        return Capabilities(
            operations=frozenset({Operation.SPEECH}),
            context_tokens=SPEECH_CHARS_MAX,
            output_tokens_max=1,
            parallel=self._settings.parallel,
            seed=False,
        )

    async def start(self, progress: Progress | None = None) -> None:
        """Load the voice and hash its files."""
        if progress:
            progress("loading the voice", None)
        library = await asyncio.to_thread(load_library, "hibari")
        await asyncio.to_thread(load_library, "av")
        self._model = await asyncio.to_thread(library.Hibari, threads=self._settings.threads)
        spec = importlib.util.find_spec("hibari")
        assert spec is not None
        assert spec.origin is not None
        assets = Path(spec.origin).parent / "assets"
        self._files = await asyncio.to_thread(describe_folder, assets)
        if progress:
            progress("ready", 1.0)

    async def describe_model(self) -> ModelDescription:
        """The package's assets."""
        return ModelDescription(
            model=self._settings.model,
            quantisation="unknown",
            files=self._files,
            source="the voice in hibari-tts, distilled from Kokoro-82M",
        )

    async def answer(self, request: EngineRequest) -> Answer:
        """The audio, in the format asked for."""
        fields = check_request(request, self.capabilities)
        _check_voice(fields)
        model = self._get_model()
        text, speed = fields["input"], fields["speed"]
        try:
            parts = await self._work.collect(lambda: model.stream(text, speed=speed, seed=0))
        except (IndexError, KeyError, ValueError) as error:  # a number of 4,096 digits, say
            raise RequestError(
                "invalid_request",
                "input holds something that this voice cannot read.",
                param="input",
            ) from error
        if not any(len(part) for part in parts):
            raise RequestError("invalid_request", "input holds nothing to say.", param="input")
        wanted = fields["response_format"]
        [body] = await self._work.collect(lambda: [_join(parts, wanted)])
        return Answer(body, Usage(input_tokens=len(text)), FinishReason.STOP)

    async def count_tokens(self, request: EngineRequest) -> int:
        """Characters."""
        return len(check_request(request, self.capabilities)["input"])


def open_engine(settings: Settings) -> HibariEngine:
    """For `hanse.engines.registry`."""
    return HibariEngine(settings)


def _check_voice(fields: dict[str, Any]) -> None:
    if fields["voice"] != VOICE:
        raise RequestError(
            "unsupported_parameter", f"voice: this model has one voice, {VOICE}.", param="voice"
        )
    if not SPEED_MIN <= fields["speed"] <= SPEED_MAX:
        raise RequestError(
            "unsupported_parameter",
            f"speed is {fields['speed']}, this voice speaks at {SPEED_MIN} to {SPEED_MAX}.",
            param="speed",
        )


def _join(parts: list[Any], wanted: str) -> bytes:
    import numpy as np

    return encode_audio(np.concatenate(parts), RATE_HZ, wanted)
