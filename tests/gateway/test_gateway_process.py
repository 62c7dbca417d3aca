"""A gateway in a process of its own: signals, restarts, a taken port."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from hanse.gateway import GatewaySettings, open_api_keys
from hanse.protocol.errors import RequestError
from hanse.store import open_sqlite
from tests.gateway.gateway_parts import MemoryMarket, run_gateway_here, until

ROOT = Path(__file__).parents[2]


async def start(database: Path, drain_s: float):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.gateway.drain_process", str(database), str(drain_s),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    return process, int(line.split()[1])


async def create_key(database: Path) -> str:
    opened = await open_sqlite(database)
    _, text = await (await open_api_keys(opened, time.time)).create("test")
    await opened.close()
    return text


async def open_stream(port: int, key: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    messages = [{"role": "user", "content": "x"}]
    body = json.dumps({"model": "memory-chat", "messages": messages, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await asyncio.wait_for(reader.readuntil(b"w0"), 5)
    return reader, writer


async def ask_health(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_sigterm_drains_tells_and_ends_well(tmp_path):
    key = await create_key(tmp_path / "gateway.db")
    process, port = await start(tmp_path / "gateway.db", drain_s=1.0)
    reader, writer = await open_stream(port, key)
    assert (await ask_health(port)).startswith(b"HTTP/1.1 200 ")
    process.send_signal(signal.SIGTERM)
    deadline_s = time.monotonic() + 0.9
    answer = b""
    while b" 503 " not in answer and time.monotonic() < deadline_s:
        answer = await ask_health(port)
    assert b'"draining"' in answer
    assert b"retry-after" in answer.lower()
    rest = await asyncio.wait_for(reader.read(), 5)  # the stream had its second, then was cut
    assert b'data: {"error"' in rest
    assert b'"draining"' in rest
    assert b"[DONE]" not in rest
    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert await process.stdout.read() == b"closed\n"
    writer.close()


async def test_a_second_signal_does_not_wait(tmp_path):
    key = await create_key(tmp_path / "gateway.db")
    process, port = await start(tmp_path / "gateway.db", drain_s=1_000.0)
    _, writer = await open_stream(port, key)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        while b" 503 " not in await ask_health(port):
            pass
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 15) == 0
    writer.close()


async def test_keys_work_after_a_kill_and_are_private_on_disk(tmp_path):
    path = tmp_path / "gateway.db"
    key = await create_key(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    process, port = await start(path, drain_s=0.1)
    _, writer = await open_stream(port, key)
    process.kill()
    await process.wait()
    writer.close()
    process, port = await start(path, drain_s=0.1)
    _, writer = await open_stream(port, key)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    writer.close()


async def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"cannot listen on 127.0.0.1 port {port}") as caught:
            async with run_gateway_here(MemoryMarket(), GatewaySettings(port=port)):
                pass
        assert caught.value.code == "configuration_invalid"


async def test_small_frames_do_not_wait_for_the_other_ends_acknowledgement():
    async with run_gateway_here(MemoryMarket()) as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        await until(lambda: gateway.server.server_state.connections)
        [connection] = gateway.server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        writer.close()
