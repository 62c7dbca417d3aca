"""What only engine `llama` has: a process that can die."""
# ruff: noqa: ASYNC220, ASYNC240 - files in /proc and a short-lived parent process

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hanse.engines import Chunk, Operation
from hanse.engines.llama.process import RESTARTS_MAX
from hanse.engines.llama_engine import LlamaEngine
from hanse.protocol.errors import RequestError, TransientError
from tests.engines.conftest import MODELS_DIR, open_llama, wait_until
from tests.engines.test_contract import make_chat, make_completion

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


async def test_killed_amid_a_stream_then_back(llama: LlamaEngine) -> None:
    stream = llama.stream(make_completion(max_tokens=400, logit_bias={"2": -100}))
    delivered = (await anext(stream)).usage.output_tokens
    assert delivered >= 1
    whole = asyncio.create_task(llama.answer(make_completion(max_tokens=400)))
    old_pid = llama.pid
    assert old_pid is not None
    os.kill(old_pid, signal.SIGKILL)
    with pytest.raises(TransientError) as caught:
        await _drain(stream)
    assert caught.value.code == "engine_unavailable"
    with pytest.raises(TransientError):
        await whole

    async def is_back() -> bool:
        return llama.pid != old_pid and await llama.healthy()

    await wait_until(is_back, 20.0)
    answer = await llama.answer(make_chat(max_tokens=3))
    assert answer.usage.output_tokens == 3


async def _drain(stream: AsyncIterator[Chunk]) -> None:
    async for _ in stream:
        pass


async def test_a_request_while_it_is_down_is_transient() -> None:
    engine = open_llama()
    with pytest.raises(TransientError):
        await engine.count_busy_slots()
    await engine.start()
    await engine.close()
    with pytest.raises(TransientError):
        await engine.answer(make_chat(max_tokens=1))
    assert not await engine.healthy()
    assert engine.pid is None


async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from hanse.engines import open_engine\n"
        "async def main():\n"
        f"    engine = open_engine('llama', {{'cache_dir': {str(MODELS_DIR)!r}}})\n"
        "    await engine.start()\n"
        "    print(engine.pid, engine._process.socket_path, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, _ = (await asyncio.to_thread(parent.stdout.readline)).split()
    arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    parent.kill()
    await asyncio.to_thread(parent.wait)
    parent.stdout.close()

    async def is_gone() -> bool:
        try:
            state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    await wait_until(is_gone, 3.0)
    # Only the module's name: neither the key nor the model is for other users' `ps`.
    assert arguments[1:-1] == [b"-m", b"hanse.engines.llama.server"]


async def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 64)
    engine = open_llama(model_path=str(broken), cache_dir=str(tmp_path))
    with pytest.raises((RequestError, TransientError)) as caught:
        await engine.start()
    assert "model" in caught.value.message or "process" in caught.value.message
    assert engine.pid is None

    missing = open_llama(model_path=str(tmp_path / "none.gguf"), cache_dir=str(tmp_path))
    with pytest.raises(RequestError) as refused:
        await missing.start()
    assert refused.value.param == "model_path"


async def test_the_socket_is_closed_to_others(llama: LlamaEngine) -> None:
    assert llama._process is not None
    folder = Path(llama._process.socket_path).parent
    assert folder.stat().st_mode & 0o077 == 0


async def test_progress_is_told() -> None:
    seen: list[str] = []
    engine = open_llama(embeddings=False)
    await engine.start(lambda what, part: seen.append(what))
    assert seen[-1] == "ready"
    assert "loading the model" in seen
    assert Operation.EMBEDDINGS not in engine.capabilities.operations
    with pytest.raises(RequestError) as caught:
        await engine.answer(make_chat(embeddings_of="x"))
    assert caught.value.param == "embeddings_of"
    await engine.close()


async def test_description_is_of_the_requantised_file(llama: LlamaEngine) -> None:
    described = await llama.describe_model()
    assert described.quantisation == "Q4_0"
    (file,) = described.files
    assert file.size_bytes == Path(file.path).stat().st_size
    # Requantising is deterministic: every provider has this hash in its manifest.
    assert file.sha256 == "c624c2bea4349b36453448197f53b3935a96da7934904c124a612716c348a8ff"


async def test_leaving_while_the_prompt_is_read_stops_it(llama: LlamaEngine) -> None:
    # 3,500 tokens take several seconds to read.
    stream = llama.stream(make_chat("ship " * 3_500, max_tokens=5))
    call = asyncio.ensure_future(anext(stream))

    async def is_busy() -> bool:
        return await llama.count_busy_slots() > 0

    async def is_idle() -> bool:
        return not await is_busy()

    await wait_until(is_busy, 5.0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await wait_until(is_idle, 20.0)
    # Told in tokens, so that a busy machine does not matter: the prompt was not read to its end.
    read = [slot.get("n_prompt_tokens", 0) for slot in await llama.fetch_slots()]
    assert 0 < max(read) < 3_000


async def test_it_gives_up_after_too_many_deaths() -> None:
    engine = open_llama(embeddings=False)
    await engine.start()
    for _ in range(RESTARTS_MAX + 1):

        async def is_up() -> bool:
            return await engine.healthy()

        await wait_until(is_up, 20.0)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)

        async def is_down() -> bool:
            return not await engine.healthy()

        await wait_until(is_down, 5.0)
    assert engine._process is not None
    watcher = engine._process._watcher
    assert watcher is not None

    async def has_given_up() -> bool:
        return watcher.done()

    await wait_until(has_given_up, 5.0)
    with pytest.raises(TransientError):
        await engine.answer(make_chat(max_tokens=1))
    await engine.close()


async def test_prompt_cache_is_metered_apart(llama: LlamaEngine) -> None:
    request = make_chat("A prompt that nobody else sends: quite long indeed.", max_tokens=2)
    first = (await llama.answer(request)).usage
    again = (await llama.answer(request)).usage
    assert again.cached_tokens > first.cached_tokens
    assert first.input_tokens + first.cached_tokens == again.input_tokens + again.cached_tokens


async def test_slots_that_do_not_divide_a_step_evenly_and_fewer_choices_than_slots() -> None:
    engine = open_llama(parallel=3, choices_max=2, shared_cache=False)
    try:
        await engine.start()
        assert (await engine.answer(make_chat(max_tokens=2))).usage.output_tokens == 2
        several = await engine.answer(make_chat(max_tokens=2, n=2))
        assert (several.usage.output_tokens, several.usage.cached_tokens) == (4, 0)
        with pytest.raises(RequestError) as caught:
            await engine.answer(make_chat(max_tokens=2, n=3))
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "n")
    finally:
        await engine.close()
