"""Fast streams are taken together, everything else as it comes: by a clock and by a real peer."""

import asyncio

import pytest

from hanse.http.connection import BUFFER_BYTES_MAX, HttpConnection
from hanse.http.gathering import Gathering
from tests.http.test_client import CHUNKED, OK, calling

GATHER_S = 0.03


class Clock:
    """In place of a loop: a time that is set, and one timer."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: float | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s, callback):
        self.due, self._callback = self.now + delay_s, callback
        return self

    def cancel(self) -> None:
        self.due = None

    def go_to(self, now: float) -> None:
        if self.due is not None and self.due <= now:
            self.now, self.due = self.due, None
            self._callback()
        self.now = now


class Line:
    """In place of a transport: what came while it was left unread."""

    def __init__(self) -> None:
        self.is_read = True

    def pause_reading(self) -> None:
        assert self.is_read
        self.is_read = False

    def resume_reading(self) -> None:
        assert not self.is_read
        self.is_read = True


def make_gathering(clock: Clock, line: Line) -> Gathering:
    return Gathering(clock, GATHER_S, line.pause_reading, line.resume_reading)  # type: ignore[arg-type]


def wait_for_pieces(arrivals_s: list[float]) -> tuple[int, list[float]]:
    """Pieces that a reader gets, and how long each arrival waited for being read."""
    clock, line = Clock(), Line()
    gathering = make_gathering(clock, line)
    found, unread, waited = 0, [], []
    for at in [*(100 + each for each in arrivals_s), 1e6]:
        while clock.due is not None and clock.due <= at:
            clock.go_to(clock.due)
            if unread:
                found += 1
                waited += [clock.now - each for each in unread]
                pieces, unread = len(unread), []
                gathering.note(pieces)
        clock.go_to(at)
        if at < 1e6 and line.is_read:
            found += 1
            waited.append(0.0)
            gathering.note(1)
        elif at < 1e6:
            unread.append(at)
    assert len(waited) == len(arrivals_s)
    return found, waited


@pytest.mark.parametrize(
    ("gap_s", "tokens", "pieces"),
    [
        pytest.param(0.0, 64, 64, id="a burst is over before it could be gathered"),
        pytest.param(0.0001, 64, 64, id="so is one of 6 ms"),
        pytest.param(0.005, 64, 7 + 10, id="200 tokens a second"),
        pytest.param(0.010, 64, 4 + 20, id="100 tokens a second"),
        pytest.param(0.020, 64, 64, id="what comes further apart goes on at once"),
        pytest.param(0.050, 64, 64, id="a slow model"),
    ],
)
def test_pieces(gap_s: float, tokens: int, pieces: int) -> None:
    found, waited = wait_for_pieces([place * gap_s for place in range(tokens)])
    assert abs(found - pieces) <= 1
    assert max(waited) <= GATHER_S + 1e-6
    assert (max(waited) == 0) == (found == tokens)


def test_a_stream_that_becomes_slow_waits_no_more() -> None:
    fast = [place * 0.005 for place in range(40)]
    slow = [fast[-1] + 0.08 * (place + 1) for place in range(10)]
    _, waited = wait_for_pieces(fast + slow)
    assert waited[len(fast) :] == [0.0] * len(slow)


@pytest.mark.parametrize("pace_s", [0.02, 0.025, 0.06])
def test_a_slow_stream_with_hiccups_is_read_as_it_comes(pace_s: float) -> None:
    arrivals = [place * pace_s for place in range(200)]
    for place in range(20, 200, 25):  # two tokens at once, now and then
        arrivals[place] = arrivals[place - 1] + 0.001
    _, waited = wait_for_pieces(arrivals)
    assert max(waited) == 0


def test_the_end_of_a_slow_stream_is_read_as_it_comes() -> None:
    tokens = [place * 0.06 for place in range(20)]
    end = [tokens[-1] + 0.001 * (place + 1) for place in range(3)]  # finish, usage, [DONE]
    _, waited = wait_for_pieces(tokens + end)
    assert max(waited) == 0


def test_stop_reads_on_at_once() -> None:
    clock, line = Clock(), Line()
    gathering = make_gathering(clock, line)
    for place in range(9):
        clock.now = 100 + place * 0.005
        if line.is_read:
            gathering.note(1)
    assert gathering.is_holding
    assert not line.is_read
    gathering.stop()
    assert line.is_read
    assert clock.due is None
    gathering.stop()  # nothing is held any more


def test_what_comes_nevertheless_while_reading_is_paused_changes_nothing() -> None:
    """TLS may have read it already."""
    clock, line = Clock(), Line()
    gathering = make_gathering(clock, line)
    for place in range(9):
        clock.now = 100 + place * 0.005
        gathering.note(1)
    due = clock.due
    clock.now += 0.001
    gathering.note(1)
    assert clock.due == due
    clock.go_to(clock.now + GATHER_S)
    assert line.is_read


async def send_slowly(reader, writer) -> None:
    writer.write(CHUNKED)
    for number in range(80):
        text = b"%02d " % number
        writer.write(b"%x\r\n%s\r\n" % (len(text), text))
        await writer.drain()
        await asyncio.sleep(0.004)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def take(peer, client, gather_s: float) -> list[bytes]:
    response = await client.send("GET", peer.url, {}, b"", silence_s=2.0)
    response.gather(gather_s)
    pieces = []
    while data := await response.read():
        pieces.append(data)
    response.close()
    return pieces


async def test_a_real_stream_comes_whole_in_fewer_pieces_and_its_connection_is_kept() -> None:
    async with calling(send_slowly) as (peer, client):
        gathered = [await take(peer, client, 0.05) for _ in range(2)]
        assert peer.connections == 1
        apart = await take(peer, client, 0.0)
    whole = b"".join(b"%02d " % number for number in range(80))
    assert {b"".join(pieces) for pieces in (*gathered, apart)} == {whole}
    assert max(map(len, gathered)) < len(apart)
    assert gathered[0][0].startswith(b"00 ")
    assert len(gathered[0][0]) <= len(whole) // 4


async def test_hanging_up_while_gathering_reaches_the_peer() -> None:
    async with calling(send_slowly) as (peer, client):
        response = await client.send("GET", peer.url, {}, b"", silence_s=2.0)
        response.gather(10.0)
        for _ in range(3):
            await response.read()
        response.close()
        async with asyncio.timeout(5):
            await peer.left.wait()


async def test_finishing_while_gathering_keeps_the_connection() -> None:
    async def end_late(reader, writer) -> None:
        writer.write(CHUNKED)
        for _ in range(30):
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.004)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with calling(end_late) as (peer, client):
        for _ in range(2):
            response = await client.send("GET", peer.url, {}, b"", silence_s=2.0)
            response.gather(0.02)
            got = b""
            while len(got) < 30:
                got += await response.read()
            response.finish()
            await asyncio.sleep(0.1)
        assert peer.connections == 1


async def test_a_connection_whose_answer_was_left_unread_serves_the_next() -> None:
    """More came, with the end of the answer, than is held for a reader."""

    async def send_much(reader, writer) -> None:
        text = b"x" * (BUFFER_BYTES_MAX + 1_000)
        writer.write(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text))
        await writer.drain()

    async with calling(send_much, OK) as (peer, client):
        response = await client.send("GET", peer.url, {}, b"", silence_s=2.0)
        connection = response._connection
        for _ in range(200):
            if connection._is_complete:
                break
            await asyncio.sleep(0.01)
        assert connection._is_paused
        response.close()
        following = await client.send("GET", peer.url, {}, b"", silence_s=2.0)
        assert await following.read() == b"ok"
        following.close()
        assert peer.connections == 1


async def test_over_tls_nothing_is_gathered() -> None:
    """There, what was not taken when the other side closes without saying so is lost."""

    class Secured:
        def get_extra_info(self, name):
            return object() if name == "ssl_object" else None

        def abort(self):
            pass

    loop = asyncio.get_running_loop()
    connection = HttpConnection(loop, 1.0, lambda *_: None, lambda *_: None)
    connection.connection_made(Secured())
    connection.gather(GATHER_S)
    assert connection._gathering is None
