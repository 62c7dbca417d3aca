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

from hanse.gateway import GatewaySettings, open_api_keys, serve_gateway
from hanse.protocol.errors import RequestError
from hanse.store import open_sqlite
from tests.gateway.gateway_parts import MemoryMarket, run_gateway_here, until

ROOT = Path(__file__).parents[2]


async def start(database: Path, drain_s: float, **settings: object):
    """A gateway, and its port; the settings stand in a file beside the database."""
    path = database.with_suffix(".json")
    path.write_text(json.dumps({"port": 0, "drain_s": drain_s, **settings}))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.gateway.drain_process", str(database), str(path),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
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


async def ask(port: int, key: str, model: str) -> bytes:
    """A whole answer over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    messages = [{"role": "user", "content": "x"}]
    body = json.dumps({"model": model, "messages": messages}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_a_successor_takes_new_requests_while_the_old_one_finishes_its_streams(tmp_path):
    key = await create_key(tmp_path / "gateway.db")
    database = tmp_path / "gateway.db"
    shared = {"shared_port": True, "canned_text": "canned"}
    old, port = await start(database, 30.0, **shared)
    reader, writer = await open_stream(port, key)
    new, same = await start(database, 30.0, **{**shared, "port": port})
    assert same == port
    old.send_signal(signal.SIGTERM)
    refused = 0
    for _ in range(60):  # some reach the old one's socket before it is closed
        try:
            answer = await ask(port, key, "unserved")
        except ConnectionError:
            refused += 1
            continue
        assert answer.startswith(b"HTTP/1.1 200 ")
    assert refused <= 1  # what waited in the socket at the moment when it was closed
    assert old.returncode is None
    old.send_signal(signal.SIGUSR1)  # its stream may go on
    rest = await asyncio.wait_for(reader.read(), 5)
    assert rest.rstrip().endswith(b"0")
    assert b"[DONE]" in rest
    assert await asyncio.wait_for(old.wait(), 10) == 0
    assert (await ask(port, key, "unserved")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    new.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(new.wait(), 10) == 0


async def test_without_a_shared_port_a_second_gateway_is_refused(tmp_path):
    await create_key(tmp_path / "gateway.db")
    first, port = await start(tmp_path / "gateway.db", 0.1)
    with pytest.raises(IndexError):  # it ends without a word on its standard output
        await start(tmp_path / "gateway.db", 0.1, port=port, shared_port=True)
    first.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(first.wait(), 10) == 0


async def test_settings_are_read_anew_at_sighup_and_a_mistake_changes_nothing(tmp_path):
    key = await create_key(tmp_path / "gateway.db")
    process, port = await start(tmp_path / "gateway.db", 0.1)
    assert (await ask(port, key, "unserved")).startswith(b"HTTP/1.1 503 ")
    path = tmp_path / "gateway.json"

    async def reload(text: str, said: bytes) -> None:
        path.write_text(text)
        process.send_signal(signal.SIGHUP)
        told = b""
        async with asyncio.timeout(5):
            while said not in told:
                told = await process.stderr.readline()

    good = {"port": 0, "drain_s": 0.1, "canned_text": "Come back later."}
    await reload(json.dumps(good), b"changed: canned_text")
    answer = await ask(port, key, "unserved")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"hanse-provider: canned" in answer
    assert b"Come back later." in answer
    await reload('{"silence_s": -1}', b"silence_s is -1")
    await reload("{", b"stay as they are")
    assert (await ask(port, key, "unserved")).startswith(b"HTTP/1.1 200 ")
    await reload(json.dumps({**good, "port": 1}), b"take a restart, and stay as they are: port")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0


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


async def test_a_gateway_whose_loop_has_ended_drains_and_says_why():
    class Defective(MemoryMarket):
        async def read_money(self):
            raise ZeroDivisionError("what nobody foresaw")

    database = await open_sqlite(":memory:")
    keys = await open_api_keys(database, time.time)
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(10):
            await serve_gateway(GatewaySettings(port=0), Defective(), keys)
    await database.close()
