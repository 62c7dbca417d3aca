"""One process a folder, and questions only from who can read its token."""

import asyncio
import contextlib
import json
import stat
import sys

import pytest

from hanse.cli.control import ask_control, hold_folder, is_held, serve_control
from hanse.protocol.errors import HanseError, RequestError, TransientError


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    assert not is_held(tmp_path)
    with hold_folder(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(RequestError, match="another process"), hold_folder(tmp_path):
            pass
    assert not is_held(tmp_path)


async def test_a_question_is_answered(tmp_path):
    async def answer(question):
        return {"heard": question}

    async with serve_control(tmp_path, answer):
        file = tmp_path / "control.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert await ask_control(tmp_path, {"do": "settle"}) == {"heard": {"do": "settle"}}
    assert not file.exists()


async def test_an_error_is_handed_on_with_its_code(tmp_path):
    async def answer(question):
        raise RequestError("transaction_failed", "reverted", details={"reason": "stake"})

    async with serve_control(tmp_path, answer):
        with pytest.raises(HanseError) as caught:
            await ask_control(tmp_path, {})
    assert caught.value.code == "transaction_failed"
    assert caught.value.details == {"reason": "stake"}


@pytest.mark.parametrize(
    "line", [b'{"token": "guess", "do": "settle"}\n', b"[]\n", b"nonsense\n", b"{}\n", b""]
)
async def test_who_does_not_know_the_token_gets_nothing_and_moves_nothing(tmp_path, line):
    asked = []

    async def answer(question):
        asked.append(question)
        return {}

    async with serve_control(tmp_path, answer):
        port = json.loads((tmp_path / "control.json").read_text())["port"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(line)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    assert asked == []


async def test_nobody_there_is_said_so(tmp_path):
    with pytest.raises(TransientError, match="takes no questions"):
        await ask_control(tmp_path, {})


@pytest.fixture
def raised_recursion_limit():
    """As py_ecc raises it in every process that opens a keystore: a deep text then ends it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


async def test_attacker_cannot_break_the_control_port_with_nesting_or_a_browser(
    tmp_path, caplog, raised_recursion_limit
):
    async def answer(question):
        return {"done": True}

    hostile = [
        b"[" * 200_000 + b"\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n\r\n{}\n",
        b'{"token": "\\ud800"}\n',
        b'{"token": ' + b"9" * 10_000 + b"}\n",
        b"x" * 2_000_000,
        b"\xff\x00\n",
    ]
    async with serve_control(tmp_path, answer):
        port = json.loads((tmp_path / "control.json").read_text())["port"]
        for data in hostile:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        assert await ask_control(tmp_path, {"do": "x"}) == {"done": True}
    assert not caplog.records
