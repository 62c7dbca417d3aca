"""The games' clients: their languages' syntax, and what they make of a recorded exchange."""

import asyncio
import importlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tree_sitter import Language, Parser

from tests.examples.games.recording import (
    ACTIONS,
    CASES,
    FALLBACK,
    FILE,
    GREETING,
    PERSONA,
    SENTENCES,
    SESSION,
    SITUATION,
    Replay,
    make_request,
    record,
)
from tests.gateway.gateway_parts import FEE, PROVIDER
from tests.gateway.openai_js import find_node

GAMES = Path(__file__).parents[3] / "examples" / "games"
CLIENT = GAMES / "browser" / "hanse_npc.mjs"
DRIVE_S = 60
_CHANGING = re.compile(r'chatcmpl-req_[0-9a-f]+|created\\*":\d+')


@pytest.fixture(scope="module")
def exchanges() -> Any:
    return json.loads(FILE.read_text())


@pytest.fixture
async def replay(exchanges: Any) -> AsyncIterator[Replay]:
    async for running in Replay(exchanges).run():
        yield running


def settle(exchange: Any) -> Any:
    """Without what differs every time."""
    return json.loads(_CHANGING.sub("", json.dumps(exchange)))


async def test_the_recording_is_what_the_gateway_says(exchanges: Any) -> None:
    assert settle(await record()) == settle(exchanges), (
        "the gateway answers otherwise now; if that is meant, write the file anew: "
        "python -m tests.examples.games.recording"
    )


async def run(*command: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), DRIVE_S)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


def make_setting() -> str:
    return json.dumps(
        {
            "cases": CASES,
            "persona": PERSONA,
            "actions": ACTIONS,
            "fallback": FALLBACK,
            "session": SESSION,
            "situation": SITUATION,
            "greeting": GREETING,
        }
    )


def check_seen(seen: Any) -> None:
    """What every client must make of the recorded exchange."""
    moved = {"action": "ask_for_toll", "say": "Drei Gröschen."}
    for case, fee, source in (
        ("move", FEE, "market"),
        ("move-repaired", 2 * FEE, "market"),
        ("move-default", 2 * FEE, "canned"),
    ):
        expected = FALLBACK if source == "canned" else moved
        found = seen[case]
        assert {name: found[name] for name in expected} == expected
        assert (found["source"], found["fee"], found["spent"]) == (source, str(fee), str(fee))
        assert found["error"] is None
        assert found["turns"] == 2
    assert seen["move"]["provider"] == PROVIDER
    for case, code, status, retry_after_s in (
        ("move-unpaid", "insufficient_balance", 402, 0),
        ("move-busy", "rate_limited", 429, 7),
    ):
        found = seen[case]
        assert {name: found[name] for name in FALLBACK} == FALLBACK
        assert (found["source"], found["fee"]) == ("canned", "0")
        error = found["error"]
        assert (error["code"], error["status"], error["retryAfterS"]) == (
            code,
            status,
            retry_after_s,
        )
    assert seen["speech"]["sentences"] == SENTENCES
    assert (seen["speech"]["source"], seen["speech"]["fee"]) == ("market", str(FEE))
    assert seen["speech"]["error"] is None
    assert seen["speech-broken"]["sentences"] == ["I am Berta.", "Who asks?", "The toll is 3.5 gr"]
    assert seen["speech-broken"]["error"]["code"] == "engine_unavailable"
    assert seen["speech-unpaid"]["sentences"] == [FALLBACK["say"]]
    assert seen["speech-unpaid"]["source"] == "canned"
    assert seen["speech-unpaid"]["error"]["status"] == 402
    assert seen["offline"]["source"] == "canned"
    assert seen["offline"]["error"]
    assert seen["split"] == ["One.", "Two?!", '"Three."', "4.5 five", "six"]


def check_requests(replay: Replay, cases: dict[str, bool] = CASES) -> None:
    """What every client must send."""
    for case, chooses in cases.items():
        headers, body = replay.requests[case]
        wanted_body, wanted_headers = make_request(case, chooses=chooses)
        assert body == wanted_body
        assert headers["authorization"] == "Bearer hgw_x"
        default = wanted_headers.pop("hanse-default", None)
        assert headers.items() >= wanted_headers.items()
        assert (json.loads(headers["hanse-default"]) if default else None) == (
            FALLBACK if default else None
        )


async def test_the_browsers_client_in_node(replay: Replay) -> None:
    node, _ = find_node()
    url = f"http://127.0.0.1:{replay.port}/v1"
    drive = Path(__file__).with_name("drive.mjs")
    check_seen(await run(node, str(drive), str(CLIENT), url, make_setting()))
    check_requests(replay)


@pytest.mark.parametrize(
    ("grammar", "files"),
    [("tree_sitter_gdscript", "godot/*.gd"), ("tree_sitter_c_sharp", "unity/*.cs")],
)
def test_the_engines_clients_are_of_their_language(grammar: str, files: str) -> None:
    parser = Parser(Language(importlib.import_module(grammar).language()))
    found = sorted(GAMES.glob(files))
    assert found
    for file in found:
        source = file.read_bytes()
        root = parser.parse(source).root_node
        assert not root.has_error, f"{file.name}: {_find_error(root)}"
        broken = b"".join(source.rpartition(b")")[::2])  # without its last bracket
        assert parser.parse(broken).root_node.has_error


def _find_error(node: Any) -> str:
    if node.is_error or node.is_missing:
        return f"line {node.start_point[0] + 1}"
    return next((_find_error(child) for child in node.children if child.has_error), "somewhere")


def build_csharp(program: Path) -> None:
    unity = GAMES / "unity"
    sources = (unity / "HanseNpc.cs", unity / "HanseJson.cs", Path(__file__).with_name("Drive.cs"))
    command = ["mcs", "-langversion:latest", "-r:System.Net.Http.dll", f"-out:{program}"]
    built = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr


@pytest.mark.skipif(
    not (shutil.which("mcs") and shutil.which("mono")),
    reason="no C# compiler on this machine (Debian: mono-mcs); its syntax is tested above",
)
async def test_unitys_client_compiled(replay: Replay, tmp_path: Path) -> None:
    program = tmp_path / "drive.exe"
    build_csharp(program)
    url = f"http://127.0.0.1:{replay.port}/v1"
    check_seen(await run("mono", str(program), url, make_setting()))
    check_requests(replay)
