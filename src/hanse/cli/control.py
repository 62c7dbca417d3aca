"""How one command asks another that is running: `hanse settle` asks `hanse provider start`.

A receipt key may only be used by one process at a time, since its transactions are numbered. So a
running broker holds a lock on its folder, and takes questions on a loopback port that the file
control.json (mode 0600) names together with a random token. One line of JSON there, one line back.

    with hold_folder(folder): ...                     # refused while another process has it
    async with serve_control(folder, answer): ...     # answer(question) -> document
    document = await ask_control(folder, {"do": "settle"})
"""

import asyncio
import hmac
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from hanse.protocol.errors import HanseError, TransientError
from hanse.protocol.nesting import is_nested_too_deep
from hanse.store import folder_lock

LOCK_HOLDER = "process"
"""Whose lock it is in `hanse.store.folder_lock`; a broker has one of its own beside it."""

CONTROL_NAME = "control.json"

LINE_BYTES_MAX = 1024 * 1024
"""One question or answer; the largest is a settlement of 200 claims, about 60 kB."""

QUESTION_TIME_S = 10.0
"""For a question to arrive after its connection opened."""

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Be the only command that works with this folder, which is made if it is not there.

    Raises:
        RequestError: `configuration_invalid` if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder_lock.hold_folder(folder, LOCK_HOLDER):
        yield


def is_held(folder: Path) -> bool:
    """Whether another process has the folder now."""
    return folder_lock.is_held(folder, LOCK_HOLDER)


@asynccontextmanager
async def serve_control(folder: Path, answer: Answer) -> AsyncIterator[None]:
    """Take questions while the block runs."""
    token = secrets.token_urlsafe(32)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(QUESTION_TIME_S):
                line = await reader.readline()
            if is_nested_too_deep(line):
                return
            question = json.loads(line)
            if not hmac.compare_digest(str(question.pop("token")).encode(), token.encode()):
                return
            document = await _answer(answer, question)
            writer.write(json.dumps(document).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # whoever it was cannot be answered
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=LINE_BYTES_MAX)
    port = server.sockets[0].getsockname()[1]
    file = folder / CONTROL_NAME
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"port": port, "token": token}, stream)
    try:
        async with server:
            yield
    finally:
        file.unlink(missing_ok=True)


async def ask_control(folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Ask the process that works with this folder.

    Raises:
        TransientError: `provider_unreachable` if it does not answer.
        HanseError: what it answered with.
    """
    try:
        found = json.loads((folder / CONTROL_NAME).read_text("utf-8"))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(found["port"]), limit=LINE_BYTES_MAX
        )
        try:
            line = json.dumps({"token": found["token"], **question})
            writer.write(line.encode() + b"\n")
            await writer.drain()
            document = json.loads(await reader.readline())
        finally:
            writer.close()
    except (OSError, ValueError, KeyError, TypeError):
        raise TransientError(
            "provider_unreachable",
            f"the process that works with {folder} takes no questions now; "
            "it may be starting or stopping",
        ) from None
    if not isinstance(document, dict):
        raise TransientError("provider_unreachable", "the answer is not an object")
    error = document.get("error")
    if error:
        raise HanseError(error["code"], error["message"], details=error.get("hanse"))
    return document


async def _answer(answer: Answer, question: dict[str, Any]) -> dict[str, Any]:
    try:
        return await answer(question)
    except HanseError as error:
        return error.to_openai()
