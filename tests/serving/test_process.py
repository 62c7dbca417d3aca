"""A process's loops: what is tried again, what ends it; and its end by a signal or a failure."""

import asyncio
import os
import signal

import pytest

from hanse.protocol.errors import InvariantError, TransientError
from hanse.serving import Loops, run_until_signal


class Recording:
    """A process that notes what is done to it."""

    def __init__(self) -> None:
        self.loops = Loops("test")
        self.done: list[str] = []

    @property
    def failed(self) -> "asyncio.Future[None]":
        return self.loops.failed

    async def stop(self) -> None:
        self.done.append("stopped")
        await self.loops.stop()
        self.loops.close()


async def test_what_may_pass_is_tried_again_and_what_may_not_ends_the_process():
    told: list[str] = []
    loops = Loops("test", lambda: told.append("failed"))
    outcomes = [
        TransientError("chain_unavailable", "gone"),
        None,
        InvariantError("internal_error", "wrong"),
    ]
    done: list[object] = []

    async def work() -> None:
        outcome = outcomes[len(done)]
        done.append(outcome)
        if outcome:
            raise outcome

    loops.repeat(0.001, work)
    with pytest.raises(InvariantError, match="wrong"):
        await asyncio.wait_for(loops.failed, 5)
    assert (done, told) == (outcomes, ["failed"])
    await loops.stop()
    loops.close()


async def test_an_interval_of_nothing_never_runs_and_stopping_fails_nobody():
    loops = Loops("test")
    ran, never = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        ran.set()

    async def refuse() -> None:
        never.set()

    async def forever() -> None:
        await asyncio.Event().wait()

    loops.repeat(0, refuse)
    loops.repeat(0.001, work)
    loops.spawn(forever())
    await asyncio.wait_for(ran.wait(), 5)
    await loops.stop()
    assert not never.is_set()
    assert not loops.failed.done()
    loops.close()
    assert loops.failed.cancelled()


async def test_a_loop_that_ends_is_a_failure():
    loops = Loops("test")

    async def end() -> None:
        return

    loops.spawn(end())
    with pytest.raises(RuntimeError, match="a loop ended"):
        await asyncio.wait_for(loops.failed, 5)
    await loops.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_process_in_order_and_is_no_failure(number):
    process = Recording()

    def be_ready(ready: Recording) -> None:
        ready.done.append("ready")
        os.kill(os.getpid(), number)

    await asyncio.wait_for(run_until_signal(process, be_ready), 5)
    assert process.done == ["ready", "stopped"]


async def test_a_failed_loop_stops_the_process_and_is_raised_after_it():
    process = Recording()

    async def fail() -> None:
        raise InvariantError("internal_error", "wrong")

    process.loops.spawn(fail())
    with pytest.raises(InvariantError, match="wrong"):
        await asyncio.wait_for(run_until_signal(process, lambda ready: None), 5)
    assert process.done == ["stopped"]


async def test_what_goes_on_failing_is_said_once_and_again_when_it_is_something_else(caplog):
    loops, said, ended = Loops("test"), iter("aaabab"), asyncio.Event()
    passing = TransientError("chain_unavailable", "x")

    async def work() -> None:
        word = next(said, "")
        if not word:
            ended.set()
            return
        passing.message = word
        raise passing

    loops.repeat(0.001, work)
    await asyncio.wait_for(ended.wait(), 5)
    await loops.stop()
    loops.close()
    assert [record.args[1] for record in caplog.records] == ["a", "b", "a", "b"]
