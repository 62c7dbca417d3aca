"""A recorder that does not answer: the draws of all other answers go on."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hanse.cli.auditing.watch_running import get_prover
from hanse.cli.buying.wallet import get_database_path
from hanse.cli.network import save_network
from hanse.cli.recording.patience import ANSWER_S, PAUSE_S, SLOW_S, Patience
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError
from hanse.settlement.records.submission_book import open_submission_book
from hanse.store import open_database
from tests.cli.test_network import NETWORK
from tests.protocol.made_messages import DOMAIN
from tests.settlement.trace_parts import make_request

NOT_RECORDED = b'{"proofs":[null]}'
ANSWERS = 5

Ask = Callable[[], Any]


class Clock:
    """Seconds that a test moves on top of those that pass."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s


@asynccontextmanager
async def recorders(asked: Counter[str]) -> AsyncIterator[tuple[str, str]]:
    """Base URLs of one that never answers, and of one that says it has no record."""
    stop = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked["silent"] += 1
        await stop.wait()
        writer.close()

    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked["quick"] += 1
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-length: {len(NOT_RECORDED)}\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode() + NOT_RECORDED)
        await writer.drain()
        writer.close()

    servers = [await asyncio.start_server(one, "127.0.0.1", 0) for one in (never, at_once)]
    try:
        silent, quick = (f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}" for one in servers)
        yield silent, quick
    finally:
        stop.set()
        for server in servers:
            server.close()


async def test_one_that_does_not_answer_is_asked_once_for_all_that_wait(tmp_path: Path) -> None:
    asked, clock = Counter[str](), Clock()
    session = Session(home=tmp_path)
    database = await open_database(get_database_path(session, "user"))
    await open_submission_book(database)
    await database.close()
    async with recorders(asked) as urls:
        network = msgspec.structs.replace(NETWORK, recorders=urls)
        save_network(tmp_path, network)
        patience = Patience(answer_s=0.5, slow_s=0.3, clock=clock)
        prove = get_prover(session, network, "user", DOMAIN, patience)
        assert prove is not None
        reasons = []
        for number in range(1, ANSWERS + 1):
            with pytest.raises(RequestError) as caught:  # undecided: the next look asks again
                await prove(make_request(number)[1], {})
            assert caught.value.code == "not_found"
            reasons.append(caught.value.message)
        assert asked == {"silent": 1, "quick": ANSWERS}, "the others are asked as before"
        assert f"recorder {urls[0]}: no answer (TimeoutError)" in reasons[0]
        assert all("left alone for now" in reason for reason in reasons[1:])
        clock.ahead_s += PAUSE_S + 1
        with pytest.raises(RequestError):
            await prove(make_request(1)[1], {})
        assert asked["silent"] == 2, "not for ever"


def test_a_slow_recorder_takes_a_tenth_of_the_time_at_most() -> None:
    now = 0.0
    patience, waited = Patience(clock=lambda: now), 0.0
    while now < 1_000:
        for _ in range(100):  # answers that wait
            if patience.may_ask("http://slow.test"):
                with patience.asking("http://slow.test"):
                    now += ANSWER_S
                    waited += ANSWER_S
        now += 0.5
    assert waited <= 1_000 / 10
    for _ in range(100):
        assert patience.may_ask("http://quick.test")
        with patience.asking("http://quick.test"):
            now += SLOW_S
