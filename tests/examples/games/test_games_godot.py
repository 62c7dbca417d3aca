"""The Godot client's own code on the recorded exchange, run by our interpreter, not by Godot.

No package registry brings a Godot 4 here; `gdscript/` knows the part of the language that the
client is written in. What Godot itself would say (its static types, its scenes) stays untested.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.examples.games.gdscript.objects import GodotError
from tests.examples.games.gdscript.script import Script
from tests.examples.games.gdscript.world import make_world
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
)
from tests.examples.games.test_games import GAMES, check_requests, check_seen
from tests.gateway.gateway_parts import FEE

SOURCE = (GAMES / "godot" / "hanse_npc.gd").read_text()
EXCHANGES: dict[str, Any] = json.loads(FILE.read_text())
NOBODY = "http://127.0.0.1:9/v1"


async def drive(script: Script, url: str, model: str, *, chooses: bool) -> dict[str, Any]:
    """One turn of a new character, told as the other clients' drivers tell it."""
    npc = await script.make_main()
    sentences: list[str] = []
    npc.members["sentence"].connect(sentences.append)
    await script.call(npc, "meet", url, "hgw_x", model, SESSION, PERSONA, ACTIONS, FALLBACK)
    turn = ("choose", SITUATION) if chooses else ("speak", GREETING)
    end = await script.call(npc, *turn)
    error = end.pop("error")
    if error:
        error["retryAfterS"] = error.pop("retry_after_s", 0)
    return {
        **end,
        "fee": str(end["fee"]),
        "spent": str(npc.members["spent"]),
        "turns": len(npc.members["history"]),
        "error": error or None,
        "sentences": sentences,
    }


async def drive_cases(script: Script, replay: Replay, cases: dict[str, bool]) -> dict[str, Any]:
    url = f"http://127.0.0.1:{replay.port}/v1"
    return {case: await drive(script, url, case, chooses=cases[case]) for case in cases}


async def split(script: Script, text: str) -> list[str]:
    """Sentences of a text that comes letter by letter."""
    splitter = await script.make(script.kinds["SentenceSplitter"], [])
    found = [part for one in text for part in await script.call(splitter, "add", one)]
    return [*found, *await script.call(splitter, "end")]


async def drive_all(script: Script, replay: Replay) -> dict[str, Any]:
    return {
        **await drive_cases(script, replay, CASES),
        "offline": await drive(script, NOBODY, "m", chooses=True),
        "split": await split(script, 'One. Two?! "Three." 4.5 five\nsix'),
    }


def make_script(source: str = SOURCE, clock: Callable[[], float] = time.monotonic) -> Script:
    return Script(source, make_world(clock))


@pytest.fixture(scope="module")
def seen() -> Any:
    """What the client makes of the whole recording; its requests are checked on the way."""

    async def run() -> Any:
        found: Any = None
        async for replay in Replay(EXCHANGES).run():
            found = await drive_all(make_script(), replay)
            check_requests(replay)
        return found

    return asyncio.run(run())


def test_godots_client_makes_of_the_recording_what_the_others_do(seen: Any) -> None:
    check_seen(seen)


@pytest.mark.parametrize(
    ("case", "line", "broken"),
    [
        ("move", '"additionalProperties": false', '"additionalProperties": true'),
        ("move", "_to_ascii(JSON.stringify(canned))", "JSON.stringify(canned)"),
        ("move", "history.append({", "[].append({"),
        ("move", "not _ended and _http.get_status()", "false and _http.get_status()"),
        ("move-repaired", "spent += int(fee)", "spent = 0"),
        ("move-default", '["local", "canned"]', '["local"]'),
        ("move-busy", 'get_header("retry-after")', 'get_header("retry")'),
        ("move-unpaid", 'told.get("code", "http")', '"http"'),
        ("speech", "(?=\\\\s)", ""),
        ("speech", "_bytes.slice(0, end)", "_bytes.slice(0, end - 5)"),
        ("speech", "_bytes.slice(end + 1)", "_bytes.slice(end + 3)"),
        ("speech", "while end >= 0 and not _ended", "while end > 0 and not _ended"),
        ("speech", "while coded.length() % 4", "while false"),
        ("speech", '.replace("_", "/")', '.replace("e", "/")'),
        ("speech", "said.append(each)", "pass"),
        ("speech-broken", '"error" in chunk', '"errors" in chunk'),
        ("speech-unpaid", "if said.is_empty()", "if false"),
    ],
)
def test_a_changed_line_is_noticed(seen: Any, case: str, line: str, broken: str) -> None:
    assert line in SOURCE
    script = make_script(SOURCE.replace(line, broken))

    async def run() -> None:
        async for replay in Replay(EXCHANGES).run():
            found = await drive_cases(script, replay, {case: CASES[case]})
            check_requests(replay, {case: CASES[case]})
            check_seen({**seen, **found})

    with pytest.raises(AssertionError):
        asyncio.run(run())


def spoil(case: str, model: str, change: Callable[[str], str]) -> dict[str, Any]:
    told = EXCHANGES[case]["response"]
    return {model: {"response": {**told, "body": change(told["body"])}}}


async def test_spoilt_answers_run_the_rest_of_the_client() -> None:
    """These are not recorded: the recording's bodies cut, garbled, odd, or not there at all."""
    spoilt = {
        **EXCHANGES,
        **spoil("move", "garbled", lambda body: body[:-9]),
        **spoil("speech", "cut", lambda body: body.partition("data: [DONE]")[0]),
        **spoil("speech", "odd", lambda body: "data: 7\n\n" + body),
    }
    script = make_script()
    async for replay in Replay(spoilt).run():
        await drive_all(script, replay)
        cases = {"garbled": True, "cut": False, "odd": False}
        found = await drive_cases(script, replay, cases)
    garbled, cut, odd = (found[case] for case in cases)
    assert (garbled["error"]["code"], garbled["source"]) == ("malformed", "canned")
    assert (cut["error"]["code"], cut["sentences"]) == ("cut", SENTENCES)
    assert (odd["error"], odd["fee"], odd["sentences"]) == (None, str(FEE), SENTENCES)
    nowhere = await drive(script, "http:///v1", "m", chooses=False)
    assert (nowhere["error"]["code"], nowhere["sentences"]) == ("unreachable", [FALLBACK["say"]])
    clef = await script.call(await script.make_main(), "_to_ascii", "\N{MUSICAL SYMBOL G CLEF}ä!")
    assert clef == "\\ud834\\udd1e\\u00e4!"
    late = await find_lines_of_silence()
    lines = SOURCE.splitlines()
    unrun = [lines[line - 1].strip() for line in sorted(script.lines - script.run_lines - late)]
    assert unrun == [], "no exchange of these tests runs these lines"


async def find_lines_of_silence() -> set[int]:
    """The lines that run when a gateway takes the request and says nothing."""
    seconds = itertools.count()  # one passes with every look at the clock
    script = make_script(clock=lambda: float(next(seconds)))

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        end = await drive(script, url, "m", chooses=True)
    assert (end["error"]["code"], end["source"]) == ("timeout", "canned")
    return script.run_lines


async def test_what_the_interpreter_does_not_know_ends_with_its_line() -> None:
    head = "class_name Guard\nextends Node\n\nfunc stand() -> void:\n"
    for line in ("breakpoint", "shout()", "var at: int = null", '"a".md5_text()', "at = 1"):
        script = make_script(f"{head}\tpass\n\t{line}\n")
        with pytest.raises(GodotError, match="line 6"):
            await script.call(await script.make_main(), "stand")
