"""`hanse top`: one look at a real gateway, and what the live view draws."""

import asyncio
import contextlib
import io
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from hanse.cli.buying.gateway_view import ROWS_MAX, draw, watch
from hanse.cli.output import Output
from tests.gateway.gateway_parts import (
    CHUNK_MODEL,
    FEE,
    PROVIDER,
    MemoryMarket,
    run_gateway_here,
    until,
)
from tests.gateway.gateway_thread import GatewayThread

SECRET = "the dragon sleeps at noon"


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayThread]:
    with GatewayThread(MemoryMarket()) as running:
        body = {"model": CHUNK_MODEL, "messages": [{"role": "user", "content": SECRET}]}
        asked = urllib.request.Request(
            running.root_url + "/v1/chat/completions",
            json.dumps(body).encode(),
            {"authorization": f"Bearer {running.key}", "content-type": "application/json"},
        )
        urllib.request.urlopen(asked, timeout=10).read()
        yield running


def show(document: Any, before: Any = None) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(draw(document, before))
    return file.getvalue()


def test_one_look_for_a_program(run: Any, gateway: GatewayThread) -> None:
    ran = run("top", "--url", gateway.root_url, "--api-key", gateway.key, "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.document["requests"] == 1
    assert ran.document["providers"][0]["provider"] == PROVIDER
    assert ran.document["fee"] == str(FEE)
    assert SECRET not in ran.stdout


def test_one_look_for_people(run: Any, gateway: GatewayThread) -> None:
    url = gateway.root_url + "/v1/"  # as applications have it
    ran = run("top", "--url", url, "--api-key", gateway.key, "--once")
    assert ran.exit_code == 0, ran.stderr
    for word in (PROVIDER, CHUNK_MODEL, "first_token", "1 requests", "0 failed"):
        assert word in ran.stdout


@pytest.mark.parametrize(
    ("key", "url", "code", "step"),
    [
        ("hgw_" + "x" * 43, "", "api_key_invalid", "hanse gateway keys create top"),
        ("", "", "usage", "hanse top --help"),
        ("hgw_x", "http://127.0.0.1:9", "provider_unreachable", "hanse gateway start"),
        ("hgw_x", "no address", "usage", ""),
    ],
)
def test_what_is_wrong_is_said(
    run: Any, gateway: GatewayThread, key: str, url: str, code: str, step: str
) -> None:
    ran = run("top", "--url", url or gateway.root_url, "--api-key", key, "--json")
    assert ran.exit_code != 0
    assert ran.error["code"] == code
    assert step in ran.error.get("next_step", "")
    assert "hanse offers" not in ran.stderr


def make_status(**changes: Any) -> Any:
    sums = {"requests": 3, "failed": 1, "fee": "1500000", "first_ms": 12.34, "last_at": 1.0}
    limit = {"subject": "5f0c", "name": "game", "window": "day", "limit": "2000000"}
    status = {
        "at": 100.0,
        "uptime_s": 3_725.0,
        "in_flight": 2,
        "waiting": 1,
        "draining": False,
        "requests": 30,
        "failed": 1,
        "fee": "1500000",
        "providers": [{"provider": PROVIDER, **sums}],
        "models": [{"model": f"m{index}", **sums} for index in range(ROWS_MAX + 3)],
        "stages": {"match": {"count": 3, "ms_p50": 0.1, "ms_p99": 0.2}},
        "recent": [
            {"request_id": "req_1", "status": 503, "ms": 4.0, "model": "\x1b[2J", "error": "busy"}
        ],
        "limits": [{**limit, "measure": "money", "taken": "1500000"}],
        "money": {"symbol": "tHSD", "decimals": 6, "places": {}, "alarms": ["refund_late"]},
    }
    return status | changes


def test_the_view_shows_rates_limits_and_alarms_in_the_assets_amounts() -> None:
    before = make_status(at=98.0, requests=20, fee="1400000")
    seen = show(make_status(), before)
    assert "up 1:02:05" in seen
    assert "5.0 requests a second" in seen
    assert "spent 1.5 tHSD" in seen
    assert "3 tHSD a minute" in seen
    assert "75%" in seen
    assert "refund_late" in seen
    assert "and 3 more" in seen
    assert "busy" in seen
    assert "\x1b[2J" not in seen


def test_a_gateway_that_started_again_has_no_rate() -> None:
    seen = show(make_status(requests=1), make_status(at=98.0, requests=20))
    assert "a second" not in seen


async def test_the_live_view_goes_on_while_the_gateway_is_away() -> None:
    file = io.StringIO()

    class Terminal(Output):
        def console(self, *, stderr: bool = False) -> Console:
            return Console(file=file, width=200, height=60, force_terminal=True)

    async with run_gateway_here(MemoryMarket()) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        watching = asyncio.create_task(watch(Terminal(), url, gateway.key, 0.01))
        await until(lambda: "a second" in file.getvalue())
    await until(lambda: "does not answer" in file.getvalue())
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
