"""Kill -9 of a real recorder process at every step: no entry lost, none committed twice."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import msgspec
import pytest

from hanse.chain import Key
from tests.recorder.record_parts import ReceiptList, key_of, until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FAILPOINTS = [
    "submission_taken:1",
    "submission_taken:2",
    "commit_prepared:1",
    "commit_enqueued:1",
    "commit_enqueued:2",
    "commit_mined:1",
    "commit_confirmed:1",
    "commit_prepared:2",
]


@contextlib.asynccontextmanager
async def recorder_process(world, secret, port=0, failpoint=""):
    chain = {
        "url": world.market.url,
        "deployment": msgspec.json.encode(world.market.deployment).decode(),
        "port": str(port),
        "key": secret.hex(),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.recorder.crashing_recorder"),
        *(str(world.folder / "recorder"), json.dumps(chain)),
        cwd=ROOT,
        env={**os.environ, "HANSE_FAILPOINT": failpoint},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield process, json.loads(line)["url"]
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_kill_at_every_step(world, failpoint):
    seller = await world.add_seller()
    buyer = await world.add_buyer(seller)
    receipts = [world.make_receipt(seller, buyer, n) for n in range(1, 9)]
    mine, theirs = ReceiptList(receipts[:4]), ReceiptList(receipts[:4])
    secret = os.urandom(32)
    recorder = Key(secret).address
    await world.market.node.fund(recorder, 10**20)

    async def step_both(url, died=None) -> None:
        async with (
            world.submitter(seller, mine, url) as one,
            world.submitter(buyer, theirs, url) as two,
        ):
            await one.step()
            await two.step()
            if died is None:
                return
            ends = asyncio.get_running_loop().time() + 20
            while died.returncode is None:
                assert asyncio.get_running_loop().time() < ends, f"{failpoint} was never reached"
                mine.receipts = theirs.receipts = receipts  # more than the first commit
                await one.step()
                await two.step()
                await world.market.node.mine(1)
                await asyncio.sleep(0.05)

    async with recorder_process(world, secret, failpoint=failpoint) as (process, url):
        port = int(url.rpartition(":")[2])
        await step_both(url, process)
    mine.receipts = theirs.receipts = receipts
    async with (
        recorder_process(world, secret, port) as (_, url),
        world.submitter(seller, mine, url, interval_s=0.0) as one,
        world.submitter(buyer, theirs, url) as two,
    ):

        async def is_recorded() -> bool:
            for side in (one, two):
                waiting = await side.book.list_waiting()
                await side.book.note_asked([known.entry for known in waiting], 0)
                await side.step()
            await world.market.node.mine(1)
            counts = [await side.book.count_states() for side in (one, two)]
            return counts == [{"recorded": 8}] * 2

        await until(is_recorded)
        assert [r.fault for r in await one.book.list_recorders()] == [""]
        places = set()
        for signed in receipts:
            proof = (await two.book.find_entry(key_of(signed))).proof
            places.add((proof.commit.number, proof.index))
        assert len(places) == 8
    commits = await world.read_commits(recorder)
    assert sum(commit.count for commit in commits) == 8, "a receipt is in two roots, or in none"
    assert sum(commit.fee_total for commit in commits) == 24
    assert [commit.number for commit in commits] == list(range(1, len(commits) + 1))
