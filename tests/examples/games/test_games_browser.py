"""The page in a real browser, where this machine has one, against the recorded exchange."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.examples.games.recording import FILE, SENTENCES, Replay
from tests.examples.games.test_games import GAMES

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
WITHIN_S = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None,
        reason="no Chromium on this machine (Debian: chromium); its module is tested in node",
    ),
]

READY = """
new Promise((resolve) => {
  const look = () => document.readyState === "complete" && document.getElementById("source")
    ? resolve(true) : setTimeout(look, 20);
  look();
})
"""

TURN = """
new Promise((resolve) => {
  const get = (id) => document.getElementById(id);
  get("talk").replaceChildren();
  get("model").value = MODEL;
  get("model").dispatchEvent(new Event("change"));
  get("line").value = "Hello";
  const turns = document.body.dataset.turns;
  const look = () => document.body.dataset.turns !== turns
    ? resolve(JSON.stringify({
        lines: [...document.querySelectorAll("#talk p")].map((p) => [p.className, p.textContent]),
        mood: get("mood").textContent,
        spent: get("spent").textContent,
        source: get("source").textContent,
      }))
    : setTimeout(look, 20);
  document.querySelector("button[value=KIND]").click();
  look();
})
"""


class Page:
    """One page, spoken to over the browser's debugging protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            told = await self._socket.receive_json(timeout=WITHIN_S)
            if told.get("id") == self._number:
                return told["result"]

    async def evaluate(self, script: str) -> Any:
        told = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")


@contextlib.asynccontextmanager
async def open_page(url: str, folder: Path) -> AsyncIterator[Page]:
    assert BROWSER is not None
    browser = await asyncio.create_subprocess_exec(
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
        "--disable-dev-shm-usage", f"--user-data-dir={folder}", "about:blank",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession() as http:
            told = folder / "DevToolsActivePort"
            pages: list[Any] = []
            while not pages:
                await asyncio.sleep(0.05)
                if told.exists() and told.read_text().strip():
                    port = told.read_text().split()[0]
                    async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                        pages = [row for row in await answer.json() if row["type"] == "page"]
            async with http.ws_connect(pages[0]["webSocketDebuggerUrl"]) as socket:
                page = Page(socket)
                await page.call("Page.navigate", url=url)
                assert await page.evaluate(READY)
                yield page
    finally:
        browser.terminate()
        await browser.wait()


@contextlib.asynccontextmanager
async def serve_page() -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_static("/", GAMES / "browser")
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_the_page_speaks_acts_and_shows_an_empty_purse(tmp_path: Path) -> None:
    async def turn(model: str, kind: str) -> Any:
        script = TURN.replace("MODEL", json.dumps(model)).replace("KIND", kind)
        seen = json.loads(await page.evaluate(script))
        for name in ("npc", "note"):
            seen[name] = [text for kind, text in seen["lines"] if kind == name]
        return seen

    async for replay in Replay(json.loads(FILE.read_text())).run():
        async with serve_page() as port:
            url = (
                f"http://127.0.0.1:{port}/index.html"
                f"?url=http://127.0.0.1:{replay.port}/v1&key=hgw_x"
            )
            async with open_page(url, tmp_path) as page:
                spoken = await turn("speech", "speak")
                moved = await turn("move", "choose")
                busy = await turn("move-busy", "choose")
                unpaid = await turn("move-unpaid", "choose")
    assert (spoken["npc"], spoken["note"]) == (SENTENCES, [])
    assert spoken["spent"] == "1234"
    assert spoken["source"].startswith("market 0x")
    assert (moved["mood"], moved["npc"]) == ("ask_for_toll", ["Drei Gröschen."])
    assert "Try again in 7 s" in busy["note"][0]
    assert "purse is empty" in unpaid["note"][0]
    assert unpaid["source"] == "canned"
