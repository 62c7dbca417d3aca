"""`hanse up` stays while something can be bought: a provider's end is told, the last one's ends it.

The children are real processes that do nothing; the network round them is only their table, since
that is all that staying looks at.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hanse.cli.local_network import ChildProcess
from hanse.cli.output import Output
from hanse.cli.up import _stay
from hanse.protocol.errors import TransientError
from tests.network.market import until

NAMES = ("recorder", "lubeck", "hamburg", "gateway")


@dataclass
class Children:
    """What `_stay` looks at of a network, and how a test ends one of them."""

    processes: dict[str, ChildProcess]
    output: Output = field(default_factory=Output)
    notes: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        told = self

        class Told(Output):
            def event(self, document: dict[str, Any], text: str) -> None:
                told.events.append(document)
                told.notes.append(text)

        self.output = Told()

    async def end(self, name: str, code: int = 0) -> None:
        process = self.processes[name].process
        assert process.stdin is not None
        process.stdin.write(f"{code}\n".encode())
        process.stdin.close()
        await process.wait()


@pytest.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    made = Children({})
    for name in NAMES:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-c", "raise SystemExit(int(input()))"),
            stdin=asyncio.subprocess.PIPE,
        )
        log = tmp_path / f"{name}.log"
        made.processes[name] = ChildProcess(name, "http://127.0.0.1:1", process, log)
    yield made
    for child in made.processes.values():
        if child.process.returncode is None:
            child.process.kill()
        await child.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_one_provider_and_the_recorder_may_end_and_the_market_goes_on(children, number):
    staying = asyncio.create_task(_stay(children, children.output))
    await children.end("lubeck", 3)
    await until(lambda: children.notes, 10, "the provider's end is told")
    (note,) = children.notes
    log = children.processes["lubeck"].log_path
    assert f"lubeck ended with 3 (log: {log}); recorder, hamburg, gateway go on" in note
    assert "hanse up" in note, "and how to have it back"
    ended = {"process": "lubeck", "exit_code": 3, "log": str(log)}
    assert children.events == [{"ended": [ended], "left": ["recorder", "hamburg", "gateway"]}]
    await children.end("recorder")
    await until(lambda: len(children.notes) == 2, 10, "the recorder's end is told too")
    assert "hamburg, gateway go on" in children.notes[1]
    assert not staying.done()
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(staying, 10) is None


@pytest.mark.parametrize(
    ("ended", "last"), [((), "gateway"), (("lubeck",), "hamburg"), (("hamburg",), "lubeck")]
)
async def test_without_a_gateway_or_any_provider_it_ends_and_says_what_to_read(
    children, ended, last
):
    staying = asyncio.create_task(_stay(children, children.output))
    for name in ended:
        await children.end(name)
        await until(lambda: children.notes, 10, "the first end is told")
        assert not staying.done()
    await children.end(last, 9)
    with pytest.raises(TransientError) as caught:
        await asyncio.wait_for(staying, 10)
    assert f"{last} ended with 9 (log: {children.processes[last].log_path})" in caught.value.message
    assert "`hanse up` resumes it" in caught.value.message
    assert len(children.notes) == len(ended)
