"""What a transcription's process costs: loading, a request's way there and back, being cancelled.

    make bench-audio            one JSON object a case on standard output

With the packaged Whisper and one thread. `in_this_process` hears the same audio without a pipe.
`cancel` ends requests in the middle of a window: `stop_ms` until the process is gone, by wall
clock; `after_cancel_ms` is the processor time it took from then on; `reload_s` until the next one
can hear; `whole_window_ms` what the window would have taken to its end.
"""

import asyncio
import json
import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import msgspec

from hanse.engines import EngineRequest
from hanse.engines.audio import listener
from hanse.engines.audio.listener import Ask, Heard
from hanse.engines.whisper_engine import Settings, WhisperEngine
from tests.engines.test_listening import LONG_S, begin, make_request, read_ended_s, until
from tests.engines.test_listening import read_processor_s as read_s

ROUNDS = 9
SHORT_S = 1.0


def tell(**case: Any) -> None:
    """One line."""
    print(json.dumps(case), flush=True)


async def time_answers(engine: WhisperEngine, request: EngineRequest) -> float:
    """The median of ROUNDS, in milliseconds."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await engine.answer(request)
        took.append(1_000 * (time.perf_counter() - began))
    return statistics.median(took)


async def time_counts(engine: WhisperEngine, request: EngineRequest) -> float:
    """As `time_answers`, of counting its seconds: decoding and the way there and back."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await engine.count_tokens(request)
        took.append(1_000 * (time.perf_counter() - began))
    return statistics.median(took)


def time_here(engine: WhisperEngine, request: EngineRequest, wanted: str) -> float:
    """The same by a model in this process."""
    model = listener._load(engine._make_config(engine._find_folder()))
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        heard = listener._answer(model, Ask(file=request.body["file"], response_format=wanted), 600)
        took.append(1_000 * (time.perf_counter() - began))
        assert isinstance(heard, Heard)
    return statistics.median(took)


async def cancel_once(engine: WhisperEngine) -> tuple[float, float, float]:
    """Milliseconds until the process is gone, of its processor then, and seconds to reload."""
    task, pid = await begin(engine)
    ended_s, used_s = read_ended_s(), read_s(pid)
    began = time.perf_counter()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: not Path(f"/proc/{pid}").exists())
    stop_ms = 1_000 * (time.perf_counter() - began)
    after_ms = 1_000 * max(0.0, read_ended_s() - ended_s - used_s)
    await until(lambda: bool(engine.pids))
    return stop_ms, after_ms, engine.load_s


def read_memory_mb(pid: int) -> float:
    """What it holds resident now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def measure() -> None:
    """All cases."""
    engine = WhisperEngine(Settings(threads=1))
    await engine.start()
    [pid] = engine.pids
    tell(
        case="load",
        load_s=round(engine.load_s, 2),
        processor_s=round(read_s(pid), 2),
        rss_mb=round(read_memory_mb(pid)),
        broker_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024),
    )
    for seconds in (SHORT_S, LONG_S, 250.0):
        request = make_request(seconds)
        tell(
            case="request",
            audio_s=seconds,
            file_kib=len(request.body["file"]) // 1_024,
            answer_ms=round(await time_answers(engine, request), 1) if seconds < 250 else None,
            count_ms=round(await time_counts(engine, request), 2),
            frame_ms=round(time_frame(request), 2),
            rss_mb=round(read_memory_mb(pid)),
        )
    stops = [await cancel_once(engine) for _ in range(ROUNDS)]
    stop_ms, after_ms, reload_s = (sorted(column) for column in zip(*stops, strict=True))
    tell(
        case="cancel",
        stop_ms_p50=round(statistics.median(stop_ms), 1),
        stop_ms_max=round(stop_ms[-1], 1),
        after_cancel_ms_max=round(after_ms[-1], 1),
        reload_s_p50=round(statistics.median(reload_s), 2),
        reload_s_max=round(reload_s[-1], 2),
    )
    for seconds in (SHORT_S, LONG_S):
        request = make_request(seconds)
        tell(
            case="in_this_process",
            audio_s=seconds,
            answer_ms=round(time_here(engine, request, "json"), 1),
            count_ms=round(time_here(engine, request, ""), 2),
        )
    await engine.close()


def time_frame(request: EngineRequest) -> float:
    """Milliseconds of this process to pack a request."""
    ask = msgspec.convert({"file": request.body["file"]}, Ask)
    began = time.perf_counter()
    for _ in range(ROUNDS):
        listener.frame(ask)
    return 1_000 * (time.perf_counter() - began) / ROUNDS


if __name__ == "__main__":
    asyncio.run(measure())
