"""What is seen of requests: metrics, access log, status and spans, and never their content."""

import asyncio
import json
import logging
import time
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.gateway.budgets.admission import Budgets, open_budgets
from hanse.gateway.budgets.configuration import Step
from hanse.gateway.budgets.limits import Limits
from hanse.gateway.keys import ApiKeys, AtLimit, KeyTerms
from hanse.gateway.telemetry.tracing import OpenTelemetry, open_tracing, trace_requests
from hanse.market.stages import STAGES
from hanse.protocol.errors import RequestError
from hanse.store import open_sqlite
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import CHUNK_MODEL, FEE, PROVIDER, MemoryAnswer, MemoryMarket

SECRET = "the dragon sleeps at noon"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class NotingMarket(MemoryMarket):
    """Notes the stages that the SDK notes, and remembers what providers were to be told."""

    def __init__(self) -> None:
        super().__init__()
        self.traceparents: list[str] = []

    async def request(self, *args: Any, **more: Any) -> MemoryAnswer:
        stages = STAGES.get()
        assert stages is not None
        for name, provider in (("match", ""), ("sign", PROVIDER), ("head", PROVIDER)):
            stages.add(name, stages.now(), provider)
        self.traceparents.append(stages.traceparent)
        return await super().request(*args, **more)


class Parts:
    """A gateway without a server, seen from all sides."""

    def __init__(
        self, app: GatewayApp, keys: ApiKeys, budgets: Budgets, key: str, market: NotingMarket
    ) -> None:
        self.app, self.keys, self.budgets, self.key, self.market = app, keys, budgets, key, market

    async def call(
        self, method: str, path: str, body: Any = None, key: str = "", **headers: str
    ) -> Caller:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers["authorization"] = f"Bearer {key or self.key}"
        parts = [b"" if body is None else json.dumps(body).encode()]
        return await Caller(method, path, headers, parts).run(self.app)

    async def chat(self, model: str = CHUNK_MODEL, stream: bool = False, **headers: str) -> Caller:
        body = {"model": model, "messages": [{"role": "user", "content": SECRET}], "stream": stream}
        return await self.call("POST", "/v1/chat/completions", body, **headers)

    async def read_status(self) -> Any:
        _, owner = await self.keys.create("owner")
        return json.loads((await self.call("GET", "/hanse/v1/status", key=owner)).body)

    async def read_metrics(self) -> str:
        return (await self.call("GET", "/metrics")).body.decode()


async def open_parts(
    *, terms: KeyTerms | None = None, access_log: bool = False, tracing: Any = None
) -> Parts:
    market = NotingMarket()
    database = await open_sqlite(":memory:")
    keys = await open_api_keys(database, time.time)
    budgets = await open_budgets(database, keys, market, time.time)
    _, text = await keys.create("game", *(() if terms is None else (terms,)))
    settings = GatewaySettings(access_log=access_log)
    app = GatewayApp(settings, market, keys, budgets=budgets, tracing=tracing)
    return Parts(app, keys, budgets, text, market)


async def test_each_stage_of_a_paid_request_has_its_time() -> None:
    parts = await open_parts()
    await parts.chat(stream=True)
    await parts.chat("too-long")
    text = await parts.read_metrics()
    for stage in ("queue", "match", "sign", "head", "first_token", "whole"):
        count = 1.0 if stage == "first_token" else 2.0
        assert f'hanse_gateway_stage_seconds_count{{stage="{stage}"}} {count}' in text
    assert "hanse_gateway_providers_asked_total 2.0" in text
    assert f'model_fees_base_units_total{{model="{CHUNK_MODEL}"}} {float(FEE)}' in text
    assert 'hanse_gateway_errors_total{code="context_length_exceeded"} 1.0' in text
    assert SECRET not in text


async def test_names_that_nobody_answers_to_make_no_series() -> None:
    parts = await open_parts()
    for index in range(100):
        await parts.chat(f"made-up-{index}")
    assert "made-up" not in await parts.read_metrics()


async def test_the_access_log_says_everything_but_what_was_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parts = await open_parts(access_log=True)
    with caplog.at_level(logging.INFO, logger="hanse.gateway.access"):
        await parts.chat(hanse_class="background")
        await parts.chat("breaks-later", stream=True)
        await parts.call("GET", "/v1/models")
    whole, broken, models = [json.loads(record.message) for record in caplog.records]
    assert (
        whole.items()
        >= {
            "model": CHUNK_MODEL,
            "provider": PROVIDER,
            "fee": str(FEE),
            "class": "background",
            "status": 200,
            "asked": 1,
            "operation": "chat_completions",
        }.items()
    )
    assert 0 <= whole["first_ms"] <= whole["ms"]
    assert broken["is_broken"]
    assert broken["error"] == "engine_unavailable"
    assert "model" not in models
    assert models["operation"] == "models"
    assert SECRET not in caplog.text
    assert parts.key not in caplog.text


async def test_status_shows_requests_providers_limits_and_stages() -> None:
    limits = Limits(requests_per_minute=10, money_per_day=1_000_000)
    parts = await open_parts(terms=KeyTerms(limits=limits))
    await parts.chat()
    await parts.chat("too-long")
    status = await parts.read_status()
    assert (status["requests"], status["failed"], status["fee"]) == (2, 1, str(FEE))
    assert [row["provider"] for row in status["providers"]] == [PROVIDER]
    assert [row["model"] for row in status["recent"]] == ["too-long", CHUNK_MODEL]
    assert status["stages"]["whole"]["count"] == 2
    assert status["stages"]["whole"]["ms_p99"] > 0
    shown = {(row["measure"], row["window"]): row for row in status["limits"]}
    assert shown["requests", "minute"].items() >= {"name": "game", "limit": "10"}.items()
    assert int(shown["requests", "minute"]["taken"]) >= 2
    assert status["in_flight"] == status["waiting"] == 0
    assert SECRET not in json.dumps(status)


async def test_a_limit_that_degrades_or_refuses_is_seen() -> None:
    limits = Limits(requests_per_minute=1)
    canned = (Step(canned="Later."),)
    degrading = KeyTerms(limits=limits, at_limit=AtLimit.DEGRADE, ladder="down")
    parts = await open_parts(terms=degrading)
    await parts.budgets.configuration.change(
        lambda found: msgspec.structs.replace(found, ladders={"down": canned})
    )
    await parts.budgets.refresh()
    for _ in range(2):
        await parts.chat()
    text = await parts.read_metrics()
    assert "hanse_gateway_degraded_total 1.0" in text
    status = await parts.read_status()
    assert status["recent"][0]["degraded"] == "canned"
    assert status["recent"][0]["provider"] == "canned"

    refusing = await open_parts(terms=KeyTerms(limits=limits))
    for _ in range(2):
        last = await refusing.chat()
    assert f'errors_total{{code="{last.error["code"]}"}} 1.0' in await refusing.read_metrics()


@pytest.mark.parametrize("path", ["/hanse/v1/status", "/hanse/v1/money"])
@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (KeyTerms(), 200),
        (KeyTerms(limits=Limits(requests_per_minute=10)), 403),
        (KeyTerms(models=(CHUNK_MODEL,)), 403),
        (KeyTerms(paths=("/hanse/v1/*",)), 403),
        (KeyTerms(paths=("/hanse/v1/status", "/hanse/v1/money")), 200),
    ],
)
async def test_one_tenant_does_not_see_the_others(
    path: str, terms: KeyTerms, expected: int
) -> None:
    parts = await open_parts(terms=terms)
    assert (await parts.call("GET", path)).status == expected


async def test_a_players_key_does_not_see_what_others_do() -> None:
    parts = await open_parts(terms=KeyTerms(may_mint=True))
    minted = await parts.call("POST", "/hanse/v1/keys", {"ttl_s": 60})
    assert minted.status == 200, minted.body
    child = json.loads(minted.body)["api_key"]
    refused = await parts.call("GET", "/hanse/v1/status", key=child)
    assert refused.status == 403
    assert refused.error["code"] == "permission_denied"


class Collected:
    """Spans in memory, in the place of a collector."""

    def __init__(self, *, to_providers: bool = False) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = OpenTelemetry(provider, to_providers=to_providers)

    @property
    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


async def test_spans_lie_below_the_applications_and_hold_no_content() -> None:
    collected = Collected()
    parts = await open_parts(tracing=collected.tracing)
    await parts.chat(stream=True, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=b")
    spans = collected.spans
    root = spans["chat_completions"]
    assert f"{root.context.trace_id:032x}" == TRACE
    assert f"{root.parent.span_id:016x}" == PARENT
    assert root.context.trace_state.get("a") == "b"
    assert root.kind is SpanKind.SERVER
    assert (
        root.attributes.items()
        >= {
            "hanse.provider": PROVIDER,
            "hanse.fee": str(FEE),
            "gen_ai.request.model": CHUNK_MODEL,
            "http.response.status_code": 200,
        }.items()
    )
    assert [event.name for event in root.events] == ["first_token"]
    assert set(spans) == {"chat_completions", "queue", "match", "sign", "head"}
    for name in ("queue", "match", "sign", "head"):
        assert spans[name].parent.span_id == root.context.span_id
        assert root.start_time <= spans[name].start_time <= spans[name].end_time
    assert abs(root.end_time / 1e9 - time.time()) < 60
    told = "".join(span.to_json() for span in spans.values())
    assert SECRET not in told
    assert parts.key not in told


async def test_an_applications_wish_not_to_be_traced_is_kept() -> None:
    collected = Collected()
    parts = await open_parts(tracing=collected.tracing)
    await parts.chat(traceparent=f"00-{TRACE}-{PARENT}-00")
    assert collected.spans == {}


async def test_a_failed_request_has_its_code_and_not_its_message() -> None:
    collected = Collected()
    parts = await open_parts(tracing=collected.tracing)
    await parts.chat("defect")
    root = collected.spans["chat_completions"]
    assert root.status.status_code is StatusCode.ERROR
    assert root.attributes["error.type"] == "internal_error"
    assert "secret prompt" not in root.to_json()


@pytest.mark.parametrize("to_providers", [False, True])
async def test_providers_get_a_traceparent_only_if_the_gateway_says_so(to_providers: bool) -> None:
    collected = Collected(to_providers=to_providers)
    parts = await open_parts(tracing=collected.tracing)
    await parts.chat(traceparent=f"00-{TRACE}-{PARENT}-01")
    span = collected.spans["chat_completions"].context.span_id
    expected = f"00-{TRACE}-{span:016x}-01" if to_providers else ""
    assert parts.market.traceparents == [expected]


async def test_spans_reach_a_collector_over_http() -> None:
    asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()
        if not asked.done():
            asked.set_result(head + body)

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        settings = GatewaySettings(telemetry_url=f"http://127.0.0.1:{port}/v1/traces")
        async with trace_requests(settings) as tracing:
            parts = await open_parts(tracing=tracing)
            await parts.chat()
        said = await asyncio.wait_for(asked, 10)
    assert said.startswith(b"POST /v1/traces")
    assert b"chat_completions" in said
    assert b"hanse-gateway" in said
    assert SECRET.encode() not in said


async def test_without_a_collector_nothing_is_traced() -> None:
    async with trace_requests(GatewaySettings()) as tracing:
        assert tracing is None


@pytest.mark.parametrize("wrong", [{"telemetry_url": "collector:4318"}, {"telemetry_share": 1.5}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        GatewaySettings(**wrong)
    assert caught.value.param in wrong


def test_sampling_is_decided_by_the_parent_first() -> None:
    tracing = open_tracing("http://127.0.0.1:9/v1/traces", 0.0)
    try:
        assert "ParentBased" in tracing._provider.sampler.get_description()
    finally:
        tracing._provider.shutdown()
