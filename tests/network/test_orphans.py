"""A network whose parent is killed: nothing of ours stays behind, and the next one starts."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import pytest

from hanse.chain.localnode import LocalNode
from hanse.cli.local_network import LocalNetwork
from tests.network.market import BLOCK_TIME_S, ROOT, plan, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

PLANS = [plan("lubeck", model="echo-a")]


def make_network(home: Path, anvil_cache: Path) -> LocalNetwork:
    network = LocalNetwork(home, PLANS)
    network.node = LocalNode(
        home / "chain", block_time_s=BLOCK_TIME_S, cache_folder=anvil_cache, confirmations=2
    )
    return network


async def start_all(network: LocalNetwork) -> None:
    """A process of each kind."""
    await network.start_recorder()
    await network.start_providers()
    await network.start_gateway()


async def stay(home: Path, anvil_cache: Path) -> None:
    """The parent that is killed; see `main` below."""
    async with make_network(home, anvil_cache) as network:
        await start_all(network)
        print("ready", flush=True)
        await asyncio.Event().wait()


def find_commands(home: Path) -> list[str]:
    """Our commands that work with this home; anvil is another matter, `LocalNode` ends it."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if folder.name.isdigit() and str(home) in line and " hanse.cli " in line:
                found.append(line)
    return found


async def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path, anvil_cache: Path) -> None:
    home = tmp_path / "home"
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.network.test_orphans", str(home), str(anvil_cache)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        assert await asyncio.wait_for(parent.stdout.readline(), 120) == b"ready\n"
        assert len(find_commands(home)) == 3
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not find_commands(home), 60, "recorder, provider and gateway have ended")
    async with make_network(home, anvil_cache) as network:  # ends the old chain, goes on with it
        await network.start_recorder()
        assert len(find_commands(home)) == 1


if __name__ == "__main__":
    os.setsid()
    asyncio.run(stay(Path(sys.argv[1]), Path(sys.argv[2])))
