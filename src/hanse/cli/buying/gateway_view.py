"""What `hanse top` shows: a gateway's status, fetched and drawn.

Rates are differences of two looks; the first look has none. Names of models and keys are strangers'
words and are cleaned before a terminal gets them.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hanse.cli.output import clean
from hanse.http import HttpBrokenError, HttpClient, HttpConnectError
from hanse.protocol.errors import ERROR_TABLE, HanseError, RequestError, TransientError
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.units import format_amount

if TYPE_CHECKING:
    from hanse.cli.output import Output

STATUS_PATH = "/hanse/v1/status"

STATUS_BYTES_MAX = 4 * 1024 * 1024
"""A status: some hundred rows."""

CONNECT_S, SILENCE_S = 5.0, 15.0

ROWS_MAX = 10
"""Of each table, so that all of them fit on a screen; `--json` has every row."""

_WHERE = "Start one with: hanse gateway start. Where it listens is told to --url."

_BAR_CELLS = 16

Status = dict[str, Any]


async def fetch_status(client: HttpClient, url: str, api_key: str) -> Status:
    """Ask a gateway what it is doing.

    Raises:
        HanseError: what it answered with; `provider_unreachable` if it does not answer.
        RequestError: `usage` if the address is none.
    """
    headers = {"authorization": f"Bearer {api_key}"}
    address = url.rstrip("/").removesuffix("/v1") + STATUS_PATH
    data = b""
    try:
        response = await client.send("GET", address, headers, silence_s=SILENCE_S)
        try:
            while (part := await response.read()) and len(data) <= STATUS_BYTES_MAX:
                data += part
        finally:
            response.close()
    except (HttpConnectError, HttpBrokenError) as error:
        raise _advise(
            TransientError(
                "provider_unreachable", f"the gateway at {url} does not answer: {error}"
            ),
            _WHERE,
        ) from None
    except ValueError as error:
        raise RequestError("usage", f"--url {url!r:.80}: {error}") from None
    document = _read(data)
    told = document.get("error")
    if response.status == 200 and "requests" in document:
        return document
    if isinstance(told, dict) and told.get("code") in ERROR_TABLE:
        refused = HanseError(told["code"], str(told.get("message", "")))
        step = "Issue a key with: hanse gateway keys create top"
        raise _advise(refused, step) if response.status in (401, 403) else refused
    text = f"{url} answers {response.status}, and is no gateway of Hanse"
    raise _advise(TransientError("provider_unreachable", text), _WHERE)


def _advise(error: HanseError, step: str) -> HanseError:
    """The error with its next step: those of buying commands do not mend this one."""
    error.add_note(step)
    return error


async def fetch_once(output: "Output", url: str, api_key: str) -> None:
    """One look."""
    client = HttpClient(connect_s=CONNECT_S)
    try:
        status = await fetch_status(client, url, api_key)
    finally:
        await client.close()
    output.show(status, lambda: draw(status, None))


async def watch(output: "Output", url: str, api_key: str, every_s: float) -> None:
    """Look until Ctrl-C; a gateway that is away for a while is waited for."""
    client = HttpClient(connect_s=CONNECT_S)
    before = await fetch_status(client, url, api_key)  # what is wrong at the start is an error
    try:
        with Live(draw(before, None), console=output.console(), screen=True) as live:
            while True:
                await asyncio.sleep(every_s)
                try:
                    status = await fetch_status(client, url, api_key)
                except TransientError as error:
                    live.update(Group(Text(clean(error.message), "bold red"), draw(before, None)))
                    continue
                live.update(draw(status, before))
                before = status
    finally:
        await client.close()


def draw(status: Status, before: Status | None) -> RenderableType:
    """The whole screen; `before` is the look before, for rates."""
    money = status.get("money") or {}
    parts: list[RenderableType] = [_draw_head(status, before, money)]
    if money.get("alarms"):
        parts.append(Text("money alarms: " + ", ".join(map(clean, money["alarms"])), "bold red"))
    stages = [
        (name, row["count"], _ms(row["ms_p50"]), _ms(row["ms_p99"]))
        for name, row in status["stages"].items()
    ]
    parts.append(_draw_table("Stages", ("stage", "count>", "p50 ms>", "p99 ms>"), stages))
    for title, name in (("Providers", "provider"), ("Models", "model")):
        sums = [
            (
                row[name],
                row["requests"],
                row["failed"],
                _ms(row["first_ms"]),
                _amount(row["fee"], money),
            )
            for row in status[title.lower()]
        ]
        columns = (name, "requests>", "failed>", "first part ms>", "spent>")
        parts.append(_draw_table(title, columns, sums))
    limits = [_describe_limit(row, money) for row in status["limits"]]
    parts.append(_draw_table("Limits", ("whose", "of", "taken>", "limit>", "how full"), limits))
    recent = [_describe_request(row, money) for row in status["recent"]]
    named = ("request", "class", "model", "provider", "status>", "first ms>", "ms>", "fee>", "")
    parts.append(_draw_table("Newest requests", named, recent))
    return Group(*parts)


def _read(data: bytes) -> Status:
    if is_nested_too_deep(data):
        return {}
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _draw_head(status: Status, before: Status | None, money: Status) -> Text:
    facts = [
        f"up {_span(status['uptime_s'])}",
        f"{status['in_flight']} at work",
        f"{status['waiting']} waiting",
        f"{status['requests']} requests",
        f"{status['failed']} failed",
        f"spent {_amount(status['fee'], money)}",
    ]
    elapsed_s = status["at"] - before["at"] if before else 0.0
    if before and elapsed_s > 0 and status["requests"] >= before["requests"]:
        rate = (status["requests"] - before["requests"]) / elapsed_s
        spent = int(status["fee"]) - int(before["fee"])
        a_minute = int(spent * 60 / elapsed_s)  # shown only, rounded down
        facts += [f"{rate:.1f} requests a second", f"{_amount(str(a_minute), money)} a minute"]
    if status["draining"]:
        facts.append("DRAINING")
    return Text(" · ".join(facts), "bold")


def _draw_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> RenderableType:
    if not rows:
        return Text(f"{title}: none", "dim")
    left_out = len(rows) - ROWS_MAX
    caption = f"and {left_out} more" if left_out > 0 else None
    table = Table(title=title, title_justify="left", caption=caption, box=None, pad_edge=False)
    for name in columns:
        justify = "right" if name.endswith(">") else "left"
        table.add_column(name.removesuffix(">"), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows[:ROWS_MAX]:
        table.add_row(*(Text(clean(str(cell))) for cell in row))
    return table


def _describe_limit(row: Status, money: Status) -> tuple[str, ...]:
    limit, taken = int(row["limit"]), int(row["taken"])
    share = min(1.0, taken / limit) if limit else 1.0
    full = round(share * _BAR_CELLS)
    bar = "█" * full + "░" * (_BAR_CELLS - full) + f" {share:4.0%}"
    is_money = row["measure"] == "money"
    shown = [_amount(row[name], money) if is_money else row[name] for name in ("taken", "limit")]
    whose = f"{row['subject']} {row['name']}".strip()
    return whose, f"{row['measure']} a {row['window']}", *shown, bar


def _describe_request(row: Status, money: Status) -> tuple[object, ...]:
    said = row.get("error") or row.get("structured", "")
    return (
        row["request_id"],
        row.get("class", ""),
        row.get("model", ""),
        _shorten(row.get("provider", "")),
        row["status"],
        _ms(row.get("first_ms")),
        _ms(row["ms"]),
        _amount(row.get("fee", "0") or "0", money),
        said,
    )


def _shorten(address: str) -> str:
    return address if len(address) < 20 else f"{address[:8]}…{address[-4:]}"


def _amount(base_units: str, money: Status) -> str:
    if not money:
        return base_units
    return f"{format_amount(int(base_units), money['decimals'])} {money['symbol']}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _span(seconds: float) -> str:
    minutes, rest_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest_s:02}"
