"""The end of an answer is waited for as long as it takes, up to its limit and no longer."""

import asyncio

import pytest

from hanse.provider.http import CallerStalledError, send_within

END = {"type": "http.response.body", "body": b"x"}


class Connection:
    """Takes a message in so many steps, each of them when `go` is set; notes how that ended."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.ended = ""

    async def send(self, message) -> None:
        try:
            for _ in range(self.steps):
                self.begun.set()
                await self.go.wait()
                await asyncio.sleep(0)
            assert message is END
            self.ended = "sent"
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # what ends it may take a step of its own
            self.ended = "cancelled"
            raise


async def test_what_need_not_wait_is_sent_whatever_the_limit():
    connection = Connection(0)
    await send_within(connection.send, END, -1.0)
    assert connection.ended == "sent"


async def test_what_waits_is_waited_for():
    connection = Connection(3)
    sending = asyncio.create_task(send_within(connection.send, END, 30.0))
    await connection.begun.wait()
    connection.go.set()
    await sending
    assert connection.ended == "sent"


async def test_what_never_goes_on_is_given_up():
    connection = Connection(1)
    with pytest.raises(CallerStalledError):
        await send_within(connection.send, END, 0.01)
    assert connection.ended == "cancelled"


async def test_a_cancellation_reaches_what_waits():
    connection = Connection(1)
    sending = asyncio.create_task(send_within(connection.send, END, 30.0))
    await connection.begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert connection.ended == "cancelled"


async def test_an_error_is_its_own():
    async def send(message):
        await asyncio.sleep(0)
        raise ConnectionResetError(message["type"])

    with pytest.raises(ConnectionResetError, match=r"http\.response\.body"):
        await send_within(send, END, 30.0)
