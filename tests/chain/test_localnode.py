"""The local chain's state survives everything that a person can do to it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from chain_parts import CHAIN_ID, poll

from hanse.chain import LocalNode, Rpc
from hanse.chain.localnode import ANVIL_VERSION
from hanse.protocol.errors import RequestError

DEPOSITOR = "0x" + "11" * 20


def make_node(folder: Path, cache: Path, **settings: object) -> LocalNode:
    return LocalNode(folder, cache_folder=cache, **settings)  # type: ignore[arg-type]


async def read_state(url: str) -> tuple[int, int]:
    async with Rpc.connect(url) as rpc:
        head = await rpc.fetch_head()
        return await rpc.fetch_balance(DEPOSITOR, block=head.number), head.number


async def _wait_for_the_next_second() -> None:
    now_s = int(time.time())

    async def has_passed() -> bool:
        return int(time.time()) > now_s

    await poll(has_passed)


async def test_state_survives_an_orderly_stop(tmp_path: Path, anvil_cache: Path) -> None:
    node = make_node(tmp_path, anvil_cache)
    url = await node.start()
    await node.fund(DEPOSITOR, 12_345)
    async with Rpc.connect(url) as rpc:
        head = await rpc.fetch_head()
    await node.stop()
    again = make_node(tmp_path, anvil_cache)
    url = await again.start()
    try:
        assert (await read_state(url))[0] == 12_345
        async with Rpc.connect(url) as rpc:
            assert (await rpc.fetch_headers(head.number, head.number))[0].hash == head.hash
    finally:
        await again.stop()


async def test_the_chain_keeps_its_first_block_however_often_it_is_started(
    tmp_path: Path, anvil_cache: Path
) -> None:
    """anvil adds a block 0 of its own at each start; of two, it loads one or the other."""
    seen = set()
    for _ in range(6):
        node = make_node(tmp_path, anvil_cache)
        url = await node.start()
        try:
            async with Rpc.connect(url) as rpc:
                seen.add((await rpc.fetch_headers(0, 0))[0].hash)
            await _wait_for_the_next_second()  # within it the added block 0 would be the same
        finally:
            await node.stop()
    assert len(seen) == 1


async def test_views_at_a_confirmed_block_work_after_a_restart(
    tmp_path: Path, anvil_cache: Path
) -> None:
    node = make_node(tmp_path, anvil_cache)
    await node.start()
    await node.fund(DEPOSITOR, 7)
    await node.mine(5)
    await node.stop()
    again = make_node(tmp_path, anvil_cache, block_time_s=0.02, confirmations=2)
    url = await again.start()
    try:
        async with Rpc.connect(url) as rpc:
            head = await rpc.fetch_head()
            assert await rpc.fetch_balance(DEPOSITOR, block=head.number - 2) == 7
    finally:
        await again.stop()


async def test_the_clock_does_not_fall_back_at_a_restart(tmp_path: Path, anvil_cache: Path) -> None:
    moved_s = 5_000
    node = make_node(tmp_path, anvil_cache)
    await node.start()
    await node.advance_time(moved_s)
    await node.stop()
    again = make_node(tmp_path, anvil_cache)
    url = await again.start()
    try:
        async with Rpc.connect(url) as rpc:
            before = await rpc.fetch_head()
            await again.mine()
            after = await rpc.fetch_head()
    finally:
        await again.stop()
    assert after.number == before.number + 1
    assert before.timestamp_s <= after.timestamp_s < before.timestamp_s + moved_s


async def test_anvil_outlives_its_parent_and_the_next_start_takes_its_state(
    tmp_path: Path, anvil_cache: Path
) -> None:
    orphaned = make_node(tmp_path, anvil_cache)
    await orphaned.start()
    await orphaned.fund(DEPOSITOR, 99)
    pid = orphaned.pid
    assert pid is not None
    assert os.getpgid(pid) != os.getpgid(0), "Ctrl-C must not reach anvil before us"
    successor = make_node(tmp_path, anvil_cache)  # as after a kill -9 of the parent
    url = await successor.start()
    try:
        assert successor.pid != pid
        assert (await read_state(url))[0] == 99
    finally:
        await successor.stop()
        await orphaned.stop()


async def test_kill_9_of_anvil_keeps_what_was_saved(tmp_path: Path, anvil_cache: Path) -> None:
    node = make_node(tmp_path, anvil_cache)
    await node.start()
    await node.fund(DEPOSITOR, 31)
    state = tmp_path / "anvil-state.json"
    marker = DEPOSITOR[2:]

    async def is_saved() -> bool:
        return state.exists() and marker in state.read_text()

    await poll(is_saved)
    assert node.pid is not None
    os.kill(node.pid, signal.SIGKILL)
    again = make_node(tmp_path, anvil_cache)
    url = await again.start()
    try:
        assert (await read_state(url))[0] == 31
    finally:
        await again.stop()
        await node.stop()


async def test_a_state_cut_in_half_is_replaced_by_the_copy(
    tmp_path: Path, anvil_cache: Path
) -> None:
    node = make_node(tmp_path, anvil_cache)
    await node.start()
    await node.fund(DEPOSITOR, 5)
    await node.stop()
    await node.start()  # makes the copy
    await node.stop()
    state = tmp_path / "anvil-state.json"
    state.write_bytes(state.read_bytes()[:1000])
    said: list[str] = []
    again = make_node(tmp_path, anvil_cache, say=said.append)
    url = await again.start()
    try:
        assert (await read_state(url))[0] == 5
        assert any("cut short" in line for line in said)
    finally:
        await again.stop()


async def test_a_kill_in_the_middle_of_a_write_loses_seconds_not_everything(
    tmp_path: Path, anvil_cache: Path
) -> None:
    node = make_node(tmp_path, anvil_cache, copy_interval_s=0.02)
    await node.start()
    await node.fund(DEPOSITOR, 8)
    copy = tmp_path / "anvil-state.backup.json"

    async def is_copied() -> bool:
        return copy.exists() and DEPOSITOR[2:] in copy.read_text()

    await poll(is_copied)
    assert node.pid is not None
    os.kill(node.pid, signal.SIGKILL)
    await node.stop()
    state = tmp_path / "anvil-state.json"
    state.write_bytes(state.read_bytes()[:500])
    again = make_node(tmp_path, anvil_cache)
    url = await again.start()
    try:
        assert (await read_state(url))[0] == 8
    finally:
        await again.stop()


async def test_a_stale_pid_of_a_stranger_is_left_alone(tmp_path: Path, anvil_cache: Path) -> None:
    (tmp_path / "anvil.pid").write_text(f"{os.getpid()}\n")
    node = make_node(tmp_path, anvil_cache)
    await node.start()  # this very process would have been ended otherwise
    await node.stop()
    assert not (tmp_path / "anvil.pid").exists()


async def test_another_chain_id_than_the_saved_one_is_refused(
    tmp_path: Path, anvil_cache: Path
) -> None:
    node = make_node(tmp_path, anvil_cache)
    await node.start()
    await node.mine()
    await node.stop()
    other = make_node(tmp_path, anvil_cache, chain_id=CHAIN_ID + 1)
    try:
        with pytest.raises(RequestError, match="31338"):
            await other.start()
    finally:
        await other.stop()


async def test_the_pulse_confirms_a_transaction_and_then_rests(
    tmp_path: Path, anvil_cache: Path
) -> None:
    node = make_node(tmp_path, anvil_cache, block_time_s=0.02, confirmations=3)
    url = await node.start()
    try:
        async with Rpc.connect(url) as rpc:
            (sender, *_) = await rpc.request("eth_accounts")
            sent = {"from": sender, "to": DEPOSITOR, "value": "0x1"}
            done = await rpc.request("eth_sendTransaction", sent)

            async def depth() -> bool:
                receipt = await rpc.fetch_receipt(done)
                head = await rpc.fetch_head()
                return receipt is not None and head.number == receipt.block_number + 3

            await poll(depth)
            heads = [(await rpc.fetch_head()).number for _ in range(200)]
            assert heads[-1] == heads[0], "an idle chain must not grow"
    finally:
        await node.stop()


async def test_time_can_be_moved_and_does_not_run_ahead_by_itself(
    tmp_path: Path, anvil_cache: Path
) -> None:
    node = make_node(tmp_path, anvil_cache, confirmations=2)
    url = await node.start()
    try:
        async with Rpc.connect(url) as rpc:
            await node.mine(50)
            now = (await rpc.fetch_head()).timestamp_s
            assert abs(now - time.time()) < 10, (
                "many blocks in a second must not make the clock run"
            )
            await node.advance_time(3_600)
            head = await rpc.fetch_head()
            (confirmed,) = await rpc.fetch_headers(head.number - 2, head.number - 2)
            assert 3_600 <= confirmed.timestamp_s - now < 3_660
    finally:
        await node.stop()


async def test_web_pages_get_no_leave_to_call_and_the_node_no_password(
    tmp_path: Path, anvil_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page in this machine's browser may only call what answers its preflight."""
    monkeypatch.setenv("HANSE_PASSWORD", "marker-of-a-password")
    node = make_node(tmp_path, anvil_cache)
    url = await node.start()
    try:
        page = {"origin": "https://attacker.example"}
        asks = {"access-control-request-method": "POST"}
        asks["access-control-request-headers"] = "content-type"
        body = '{"jsonrpc":"2.0","id":1,"method":"eth_accounts","params":[]}'
        async with aiohttp.ClientSession() as session:
            async with session.options(url, headers={**page, **asks}) as answer:
                assert "access-control-allow-origin" not in answer.headers
            # What a page may send without asking first.
            plain = {**page, "content-type": "text/plain"}
            async with session.post(url, data=body, headers=plain) as answer:
                assert "access-control-allow-origin" not in answer.headers
                assert "result" not in await answer.text()
        environment = Path(f"/proc/{node.pid}/environ").read_bytes()  # noqa: ASYNC240
        assert b"marker-of-a-password" not in environment
    finally:
        await node.stop()


NPM_THAT_WRITES_SLOWLY = """#!/bin/sh
# Called as: npm install --prefix FOLDER ... ; writes a program in two halves.
for package in anvil-linux-amd64 anvil-linux-arm64 anvil-darwin-amd64 anvil-darwin-arm64; do
  mkdir -p "$3/node_modules/@foundry-rs/$package/bin"
  printf '#!/bin/sh\\n' > "$3/node_modules/@foundry-rs/$package/bin/anvil"
  chmod +x "$3/node_modules/@foundry-rs/$package/bin/anvil"
done
sleep 0.5
for package in anvil-linux-amd64 anvil-linux-arm64 anvil-darwin-amd64 anvil-darwin-arm64; do
  printf 'echo whole\\n' >> "$3/node_modules/@foundry-rs/$package/bin/anvil"
done
"""

INSTALL_AND_RUN = """
import subprocess, sys
from pathlib import Path
from hanse.chain.localnode import get_anvil
sys.stdout.write(subprocess.check_output([get_anvil(Path(sys.argv[1]))], text=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a shell script")
def test_processes_that_install_at_once_run_whole_programs(tmp_path: Path) -> None:
    """CI failed so once: one test worker ran the binary that another's npm was still writing."""
    tools, cache = tmp_path / "tools", tmp_path / "cache"
    tools.mkdir()
    (tools / "npm").write_text(NPM_THAT_WRITES_SLOWLY)
    (tools / "npm").chmod(0o755)
    command = [sys.executable, "-c", INSTALL_AND_RUN, str(cache)]
    environment = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin"}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0] for process in running] == ["whole\n"] * 3
    assert [path.name for path in cache.iterdir()] == [f"anvil-{ANVIL_VERSION}"]
