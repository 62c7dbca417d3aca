"""A small real OpenAI server over any engine, so that `upstream` meets real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from hanse.engines import Engine, EngineRequest, Operation
from hanse.protocol.errors import HanseError

UPSTREAM_KEY = "upstream-secret-key-123456"
UPSTREAM_MODEL = "vendor/hidden-name"


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        await runner.cleanup()


def make_front(engine: Engine) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {UPSTREAM_KEY}":
            return web.json_response({"error": {"message": "bad key"}}, status=401)
        body = await request.json()
        assert body.pop("model") == UPSTREAM_MODEL
        asked = EngineRequest(
            operation=Operation(request.path.removeprefix("/v1/")), body=body, answer_id="up-1"
        )
        try:
            if not body.get("stream"):
                answer = await engine.answer(asked)
                return web.Response(body=_disguise(answer.body), content_type="application/json")
            return await _stream(request, engine, asked)
        except HanseError as error:
            return web.json_response(error.to_openai(), status=error.row.status)

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    app = web.Application(client_max_size=8 * 2**20)
    for operation in Operation:
        app.router.add_post(operation.path, handle)
    app.router.add_get("/v1/models", models)
    return app


async def _stream(request: web.Request, engine: Engine, asked: EngineRequest) -> web.StreamResponse:
    chunks = engine.stream(asked)
    try:
        first = await anext(chunks)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": hello\r\n\r\n" + _disguise(first.data))
        async for chunk in chunks:
            # Two pieces, so that frames arrive torn.
            data = _disguise(chunk.data)
            await response.write(data[:7])
            await asyncio.sleep(0)
            await response.write(data[7:])
    finally:
        await chunks.aclose()
    await response.write(b"data: [DONE]\n\n")
    return response


def _disguise(data: bytes) -> bytes:
    """The upstream's own name, as a vendor would answer with."""
    for name in (b"echo-fake", b"smollm2-135m-instruct"):
        data = data.replace(b'"' + name + b'"', b'"' + UPSTREAM_MODEL.encode() + b'"')
    return data
