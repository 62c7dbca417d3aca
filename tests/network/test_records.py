"""Records from the command line: a bought answer is proven, checked, and shown on both sides."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.network.market import Market, open_network, plan, stream_words

pytestmark = pytest.mark.slow


async def run(market: Market, *arguments: str) -> tuple[int, str]:
    """Exit code and output of one of our commands on this network."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hanse.cli", *arguments),
        *("--home", str(market.network.home), "--json"),
        env=market.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    shown, said = await process.communicate()
    return process.returncode, (shown or said).decode()


async def test_a_bought_answer_is_proven_on_both_sides(tmp_path: Path, anvil_cache: Path) -> None:
    home = tmp_path / "home"
    plans = [plan("hansa", model="echo-a")]
    async with open_network(home, anvil_cache, plans, has_recorder=True) as market:
        for _ in range(2):
            assert await stream_words(market.client, "echo-a", "some words", []) == "ended"
        record = await market.network.run_command("receipts", "prove", "--wait", "60")
        path = home / "record.json"
        path.write_text(json.dumps(record))
        assert (await run(market, "receipts", "verify", str(path)))[0] == 0
        code, shown = await run(market, "receipts", "verify", str(path), "--chain")
        assert (code, json.loads(shown)["on_chain"]) == (0, True)
        code, shown = await run(
            market, "receipts", "verify", str(path), "--rpc", market.network.rpc_url
        )
        assert (code, json.loads(shown)["root"]) == (0, record["proof"]["commit"]["root"])
        code, shown = await run(market, "audit", "draw", str(path), "--stake", "0")
        (drawn,) = json.loads(shown)["draws"]
        assert (code, drawn["deterred"], drawn["rate"]) == (0, False, 1.0), "nothing to lose"
        assert drawn["draw"] in ("due", "waiting")
        record["proof"]["commit"]["root"] = "0x" + "ee" * 32
        path.write_text(json.dumps(record))
        assert (await run(market, "receipts", "verify", str(path)))[0] == 8

        for side in ((), ("--name", "hansa")):
            document = {"receipts": {}}
            for _ in range(60):
                document = await market.network.run_command("recorder", "list", *side)
                if document["receipts"] == {"recorded": 2}:
                    break
                await asyncio.sleep(0.5)
            assert document["receipts"] == {"recorded": 2}
            assert [one["fault"] for one in document["recorders"]] == [""]
        for side in (("--signer", "gateway"), ("--name", "hansa")):
            found = await market.network.run_command("recorder", "unmatched", *side)
            assert found == {"unmatched": [], "silent": {}}
        await market.end("recorder")
        found = await market.network.run_command("recorder", "unmatched", "--name", "hansa")
        assert "no answer" in next(iter(found["silent"].values()))
        # without a recorder answers are still bought; their receipts wait
        assert await stream_words(market.client, "echo-a", "some words", []) == "ended"
        code, shown = await run(market, "receipts", "prove")
        assert (code, json.loads(shown)["error"]["code"]) == (5, "not_found")
