"""A day of the local network, ended by one settlement a provider and checked by a stranger."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.network.day import BUYING_WATCHES, PROVIDERS, USERS, open_day
from tests.network.day_account import (
    Files,
    read_account,
    run_checker,
    verify_account,
    write_files,
)

pytestmark = pytest.mark.slow


async def test_a_day_ends_in_one_settlement_a_provider_that_a_stranger_can_check(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with open_day(tmp_path, anvil_cache, say=print) as day:
        await day.play()
        account = await read_account(day)
        verify_account(account)
        bought = BUYING_WATCHES * len(USERS) * len(PROVIDERS)
        assert len(account.receipts) == bought == 60
        broken = sum(wish.startswith("failed") for own in account.wishes.values() for wish in own)
        assert (broken, account.count_reason("error")) == (6, 6)
        assert account.count_reason("cancelled") > 0, "some were cut by their user"
        assert account.count_reason("length") >= 42, "whole ones, and what came before a cut"
        assert [settled.claims for settled in account.settlements] == [len(USERS)] * 2
        files = await write_files(day, tmp_path)

    # everything is stopped: what follows has nothing but the files
    code, said = await run_checker(files)
    assert (code, said["failures"]) == (0, [])
    assert said["verified"] == said["recorded"] == len(account.receipts)
    assert int(said["fees"]) == sum(settled.paid for settled in account.settlements)
    await check_damaged(files)


async def check_damaged(files: Files) -> None:
    """The checker can fail: one changed file, one commit that the chain does not have."""
    chosen = files.records[:2]
    document = json.loads(chosen[0].read_text())
    whole = json.dumps(document)

    async def refuse(path: tuple[str, ...], value: Any) -> str:
        changed = json.loads(whole)
        inner = changed
        for name in path[:-1]:
            inner = inner[name]
        assert inner[path[-1]] != value
        inner[path[-1]] = value
        chosen[0].write_text(json.dumps(changed))
        code, said = await run_checker(Files(chosen, files.commits))
        chosen[0].write_text(whole)
        assert (code, len(said["failures"])) == (8, 1), said
        assert said["verified"] == 1
        return str(said["failures"][0])

    fee = document["receipt"]["receipt"]["fee"]
    assert "signer" in await refuse(("receipt", "receipt", "fee"), str(int(fee) + 1))
    await refuse(("proof", "index"), str(int(document["proof"]["index"]) + 1))
    await refuse(("proof", "commit", "root"), "0x" + "ee" * 32)

    answer = json.loads(files.commits.read_text())
    number = int(document["proof"]["commit"]["number"])
    answer["result"] = answer["result"][: number - 1]
    cut = files.commits.with_suffix(".cut")
    cut.write_text(json.dumps(answer))
    code, said = await run_checker(Files(chosen[:1], cut))
    assert code == 8
    assert f"commit {number}" in said["failures"][0]


async def test_the_checker_runs_where_the_package_cannot_be_imported() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", "import hanse"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert b"No module named 'hanse'" in stderr
