"""What seeing a request costs the gateway: in memory, by the paid path of one process.

    make bench-seen            one JSON object a line on standard output

The gateway's ASGI application answers whole chats from a market in memory, without sockets. Modes:
`unseen` has nobody look (the application with its observer taken out), `metrics` is how a gateway
runs, `log` writes the access log to nowhere, `traces` makes spans and drops them. The modes take
turns, so that a busy machine hits all alike; the least of the rounds counts.
"""

import argparse
import asyncio
import json
import logging
import time
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.gateway.telemetry.observer import Observer
from hanse.gateway.telemetry.tracing import OpenTelemetry
from hanse.market.stages import STAGES
from hanse.store import open_sqlite
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import CHUNK_MODEL, PROVIDER, MemoryAnswer, MemoryMarket

MODES = ("unseen", "metrics", "log", "traces")


class NotingMarket(MemoryMarket):
    """Notes stages as the SDK does."""

    async def request(self, *args: Any, **more: Any) -> MemoryAnswer:
        stages = STAGES.get()
        if stages is not None:
            for name, provider in (("match", ""), ("sign", PROVIDER), ("head", PROVIDER)):
                stages.add(name, stages.now(), provider)
        answer = await super().request(*args, **more)
        self.bodies.clear()
        self.answers.clear()
        return answer


class BlindObserver(Observer):
    """Sees nothing: what is compared with."""

    def begin(self, *_: Any) -> Any:
        STAGES.set(None)

    def end(self, *_: Any) -> None:
        return


class DroppingExporter(SpanExporter):
    """Takes spans and does nothing with them."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


async def open_app(mode: str) -> tuple[GatewayApp, str]:
    """A gateway of one mode, and a key of it."""
    database = await open_sqlite(":memory:")
    keys = await open_api_keys(database, time.time)
    _, text = await keys.create("bench")
    tracing = None
    if mode == "traces":
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(DroppingExporter()))
        tracing = OpenTelemetry(provider)
    settings = GatewaySettings(access_log=mode == "log")
    app = GatewayApp(settings, NotingMarket(), keys, tracing=tracing)
    if mode == "unseen":
        app.observer.__class__ = BlindObserver
    return app, text


async def load(app: GatewayApp, key: str, requests: int) -> float:
    """Processor microseconds a request."""
    body = {"model": CHUNK_MODEL, "messages": [{"role": "user", "content": "hello"}]}
    part, headers = json.dumps(body).encode(), {"authorization": f"Bearer {key}"}
    began_s = time.process_time()
    for _ in range(requests):
        await Caller("POST", "/v1/chat/completions", headers, [part]).run(app)
    return (time.process_time() - began_s) / requests * 1e6


async def measure(requests: int, rounds: int) -> dict[str, float]:
    """The least of all rounds, by mode."""
    apps = {mode: await open_app(mode) for mode in MODES}
    least = dict.fromkeys(MODES, float("inf"))
    for _ in range(rounds):
        for mode, (app, key) in apps.items():
            least[mode] = min(least[mode], await load(app, key, requests))
    return least


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    access = logging.getLogger("hanse.gateway.access")
    access.addHandler(logging.NullHandler())
    access.propagate = False
    access.setLevel(logging.INFO)
    least = asyncio.run(measure(arguments.requests, arguments.rounds))
    for mode, cpu_us in least.items():
        added_us = cpu_us - least["unseen"]
        row = {"mode": mode, "cpu_us_per_request": cpu_us, "added_us": added_us}
        print(json.dumps({name: round(v, 1) if name != "mode" else v for name, v in row.items()}))


if __name__ == "__main__":
    main()
