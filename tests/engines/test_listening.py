"""The processes of engine `whisper`, with its real model: they stop at once, and others follow."""

import asyncio
import io
import os
import resource
import signal
import sys
import wave
from pathlib import Path

import pytest
import pytest_asyncio

from hanse.engines import EngineRequest, Operation, open_engine
from hanse.engines.child_process import OPENMP, make_environment
from hanse.engines.whisper_engine import WhisperEngine
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.messages import Usage
from tests.engines.conftest import wait_until

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
LONG_S = 60
"""Two windows of audio: 0.15 s of processor time to prepare them, then half a second for each."""

AT_WORK_S = 0.25
"""Processor time after which a process is in the middle of the first window of LONG_S."""

STOPPED_S = 0.1
"""Processor time that a cancelled request may take still; the rest of its window takes more."""


def make_request(seconds: float) -> EngineRequest:
    """Transcribe a harsh tone, of which the model makes what it can."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(b"\0\x40\0\xc0" * int(4_000 * seconds))
    body = {"model": "whisper-tiny.en", "file": buffer.getvalue()}
    return EngineRequest(operation=Operation.TRANSCRIPTION, body=body, answer_id="x")


def read_processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def read_environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def read_ended_s() -> float:
    """Processor time of all our children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def is_idle(pid: int) -> bool:
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "S" for stat in stats)


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def begin(engine: WhisperEngine) -> tuple[asyncio.Task, int]:
    """A long request, and the process that is in the middle of a window of it."""
    used = {pid: read_processor_s(pid) for pid in engine.pids}
    task = asyncio.create_task(engine.answer(make_request(LONG_S)))
    busy: list[int] = []

    def is_at_work() -> bool:
        busy[:] = [p for p, s in used.items() if read_processor_s(p) - s >= AT_WORK_S]
        return bool(busy)

    await until(is_at_work)
    return task, busy[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The packaged model, in a folder from which a file can be taken away."""
    found = open_engine("whisper", {})
    assert isinstance(found, WhisperEngine)
    folder = tmp_path_factory.mktemp("model")
    for path in found._find_folder().iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ear(folder):
    engine = open_engine("whisper", {"model_dir": str(folder), "threads": 1, "spares": 1})
    assert isinstance(engine, WhisperEngine)
    await engine.start()
    await until(lambda: len(engine.pids) == 2)
    yield engine
    await engine.close()


async def test_a_cancelled_request_takes_no_more_processor_time(ear):
    task, pid = await begin(ear)
    [spare] = set(ear.pids) - {pid}
    ended_s, at_cancel_s = read_ended_s(), read_processor_s(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(1.0):
        await until(lambda: not Path(f"/proc/{pid}").exists())
    assert read_ended_s() - ended_s - at_cancel_s < STOPPED_S
    assert ear.active == 0
    heard = await ear.answer(make_request(1))
    assert heard.usage == Usage(input_tokens=1)
    assert spare in ear.pids
    await until(lambda: len(ear.pids) == 2)
    assert pid not in ear.pids
    await until(lambda: all(is_idle(process) for process in ear.pids))
    assert 0 < ear.load_s < 30


async def test_a_process_that_dies_fails_its_request_and_the_next_one_works(ear):
    task, pid = await begin(ear)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(TransientError) as caught:
        await task
    assert caught.value.code == "engine_unavailable"
    assert caught.value.retry_after_s
    assert (await ear.answer(make_request(1))).usage == Usage(input_tokens=1)


async def test_a_process_is_given_none_of_our_secrets(ear):
    given = make_environment({"PATH": "/bin", "HANSE_PASSWORD": "of our keys"})
    assert given.pop("PATH") == "/bin"
    assert not any(name.startswith("HANSE_") for name in given)
    own = make_environment({"GOMP_SPINCOUNT": "20"})
    assert own == OPENMP | {"GOMP_SPINCOUNT": "20"}, "an operator's own value wins"
    assert make_environment({"OMP_WAIT_POLICY": "ACTIVE"}) == {"OMP_WAIT_POLICY": "ACTIVE"}
    for pid in ear.pids:
        assert b"OMP_WAIT_POLICY=passive" in read_environment(pid)


async def test_without_its_model_it_says_so_and_comes_back_with_it(ear, folder):
    target = (folder / "model.bin").readlink()
    (folder / "model.bin").unlink()
    await until(lambda: len(ear.pids) == 2)
    for pid in ear.pids:
        os.kill(pid, signal.SIGKILL)

    async def is_down() -> bool:
        return not await ear.healthy()

    await wait_until(is_down, 30)
    with pytest.raises(TransientError) as caught:
        await ear.answer(make_request(1))
    assert caught.value.code == "engine_unavailable"
    (folder / "model.bin").symlink_to(target)
    await until(lambda: bool(ear.pids))
    assert await ear.healthy()
    assert (await ear.answer(make_request(1))).usage == Usage(input_tokens=1)


async def test_a_file_that_is_no_model_is_refused_by_name(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"no model" * 100)
    engine = open_engine("whisper", {"model_dir": str(tmp_path)})
    with pytest.raises(RequestError) as caught:
        await engine.start()
    assert caught.value.code == "configuration_invalid"
    assert "could not be loaded" in str(caught.value)


async def test_a_process_that_may_not_take_the_memory_ends_instead(folder):
    engine = open_engine("whisper", {"model_dir": str(folder), "memory_max_mib": 64})
    with pytest.raises((RequestError, TransientError)) as caught:
        await engine.start()
    assert caught.value.code in ("configuration_invalid", "engine_unavailable")


BROKER = """
import asyncio, sys
from hanse.engines import open_engine
async def serve():
    engine = open_engine("whisper", {})
    await engine.start()
    print(*engine.pids, flush=True)
    await asyncio.Event().wait()
asyncio.run(serve())
"""


async def test_no_process_outlives_a_broker_that_is_killed():
    broker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BROKER, stdout=asyncio.subprocess.PIPE
    )
    assert broker.stdout is not None
    [pid] = map(int, (await broker.stdout.readline()).split())
    broker.kill()
    await broker.wait()

    def is_gone() -> bool:
        path = Path(f"/proc/{pid}/stat")
        return not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z"

    async with asyncio.timeout(1.0):
        await until(is_gone)
