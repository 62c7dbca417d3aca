"""`upstream` against servers that misbehave in every way we know."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from hanse.engines import Engine, open_engine
from hanse.engines.upstream_engine import Settings
from hanse.http import GATHER_S_MAX
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.limits import FRAME_BYTES_MAX
from hanse.protocol.messages import FinishReason, Prices, Usage
from tests.engines.conftest import open_upstream
from tests.engines.openai_front import UPSTREAM_KEY, UPSTREAM_MODEL, serve
from tests.engines.test_contract import collect, make_chat, read_frames

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SHORT = {"connect_s": 1.0, "first_token_s": 0.3, "between_s": 0.3, "total_s": 2.0}


@asynccontextmanager
async def open_scripted(handler: Handler, tmp_path: Path, **settings: Any) -> AsyncIterator[Engine]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    app.router.add_get("/v1/models", _list_models)
    async with serve(app) as url:
        engine = open_upstream(url, tmp_path / "key", **settings)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()


async def _list_models(request: web.Request) -> web.Response:
    return web.json_response({"data": []})


def refuse(status: int, body: Any, headers: dict[str, str] | None = None) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        raw = body if isinstance(body, bytes) else None
        if raw is None:
            raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        return web.Response(
            status=status, body=raw, content_type="application/json", headers=headers
        )

    return handle


def send(*pieces: bytes, hang: bool = False, cut: bool = False) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if hang:
            await asyncio.Event().wait()
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return handle


def frame(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "up", "model": UPSTREAM_MODEL, "choices": [choice], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 20},
}
USAGE_FRAME = (
    b"data: "
    + json.dumps({"id": "up", "model": UPSTREAM_MODEL, "choices": [], "usage": USAGE}).encode()
    + b"\n\n"
)
DONE = b"data: [DONE]\n\n"


async def fail(engine: Engine) -> HanseError:
    with pytest.raises(HanseError) as streamed:
        await collect(engine, make_chat(max_tokens=3))
    return streamed.value


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": {"message": "bad temperature", "param": "temperature"}}, "invalid_request"),
        (422, "not json", "invalid_request"),
        (500, b'{"error": {"message": "\xff"}}', "engine_unavailable"),
        (400, {"error": {"message": "This model's maximum context length is 4"}}, "context"),
        (400, {"error": {"message": "no", "code": "context_length_exceeded"}}, "context"),
        (401, {"error": {"message": f"bad key {UPSTREAM_KEY}"}}, "engine_unavailable"),
        (404, {"error": {"message": f"no model {UPSTREAM_MODEL}"}}, "engine_unavailable"),
        (413, {}, "request_too_large"),
        (429, {"error": {"message": "slow down"}}, "rate_limited"),
        (500, {"error": {"message": "trace of secrets"}}, "engine_unavailable"),
        (503, [], "engine_unavailable"),
        (302, {}, "engine_unavailable"),
        (400, {"error": {"message": {"a": 1}, "param": 7}}, "invalid_request"),
    ],
)
async def test_statuses_are_mapped(tmp_path: Path, status: int, body: Any, code: str) -> None:
    async with open_scripted(refuse(status, body, {"Retry-After": "7"}), tmp_path) as engine:
        error = await fail(engine)
        assert error.code.startswith(code)
        assert isinstance(error, RequestError) == (error.row.status in (400, 413))
        if status in (429, 503):
            assert error.retry_after_s == 7
        with pytest.raises(HanseError) as whole:
            await engine.answer(make_chat(max_tokens=3))
        assert whole.value.code == error.code


async def test_an_error_never_shows_the_key_or_controls(tmp_path: Path) -> None:
    said = f"key {UPSTREAM_KEY} \x1b[31m sk-abcdefghijklmnop " + "x" * 5_000
    handler = refuse(400, {"error": {"message": said}})
    async with open_scripted(handler, tmp_path) as engine:
        message = (await fail(engine)).message
    assert UPSTREAM_KEY not in message
    assert "sk-abc" not in message
    assert "\x1b" not in message
    assert len(message) < 400


async def test_torn_frames_crlf_comments_and_events(tmp_path: Path) -> None:
    raw = frame("a") + frame("é☃") + frame(None, "stop") + USAGE_FRAME + DONE
    raw = b": ping\n\nevent: x\nid: 1\n" + raw
    raw = raw.replace(b"\n", b"\r\n")
    pieces = [raw[i : i + 3] for i in range(0, len(raw), 3)]
    async with open_scripted(send(*pieces), tmp_path) as engine:
        chunks = await collect(engine, make_chat())
    frames = read_frames(chunks)
    assert "".join(f["choices"][0]["delta"].get("content", "") for f in frames) == "aé☃"
    assert chunks[-1].usage == Usage(10, 20, 9)
    assert {f["model"] for f in frames} == {"offered-name"}


async def test_without_usage_the_meter_never_overcounts(tmp_path: Path) -> None:
    handler = send(frame(""), frame("two words"), frame("x"), frame(None, "length"), DONE)
    async with open_scripted(handler, tmp_path) as engine:
        chunks = await collect(engine, make_chat("four words of prompt"))
    assert chunks[-1].usage == Usage(4, 0, 2)
    assert chunks[-1].finish_reason is FinishReason.LENGTH


async def test_continuous_usage_is_exact_at_a_cut(tmp_path: Path) -> None:
    pieces = [
        frame("a", usage={"prompt_tokens": 5, "completion_tokens": 3}),
        frame("b", usage={"prompt_tokens": 5, "completion_tokens": 6}),
    ]
    async with open_scripted(send(*pieces, cut=True), tmp_path, continuous_usage=True) as engine:
        seen: list[Usage] = []
        with pytest.raises(TransientError):
            await _watch(engine, seen)
    assert seen[-1] == Usage(5, 0, 6)


async def _watch(engine: Engine, seen: list[Usage]) -> None:
    async for chunk in engine.stream(make_chat()):
        seen.append(chunk.usage)


@pytest.mark.parametrize(
    "handler",
    [
        send(frame("a"), cut=True),
        send(frame("a")),
        send(frame("a"), DONE),
        send(b"data: {not json\n\n"),
        send(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'),
        send(b'data: {"error": {"message": "boom"}}\n\n'),
        send(frame("a"), hang=True),
        send(hang=True),
        send(b"data: " + b"x" * (FRAME_BYTES_MAX + 10)),
        send(frame("a", usage={"prompt_tokens": -5})),
        send(b"data: " + b"[" * 100_000 + b"\n\n"),
        refuse(200, {"choices": []}),
    ],
)
async def test_a_broken_stream_is_transient(tmp_path: Path, handler: Handler) -> None:
    async with open_scripted(handler, tmp_path, timeouts=SHORT) as engine:
        assert isinstance(await fail(engine), TransientError)


@pytest.mark.parametrize(
    "body",
    ["", "nonsense", {"choices": []}, {"choices": [{"finish_reason": "stop"}]}, {"usage": USAGE}],
)
async def test_a_broken_whole_answer_is_transient(tmp_path: Path, body: Any) -> None:
    async with open_scripted(refuse(200, body), tmp_path) as engine:
        with pytest.raises(TransientError):
            await engine.answer(make_chat())


async def test_a_server_that_ignores_n_is_found_out(tmp_path: Path) -> None:
    streamed = send(frame("a", "stop"), USAGE_FRAME, DONE)
    async with open_scripted(streamed, tmp_path, choices_max=2) as engine:
        with pytest.raises(TransientError):
            await collect(engine, make_chat(n=2))
        assert await collect(engine, make_chat(n=1))
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "a"}}
    whole = refuse(200, {"choices": [choice], "usage": USAGE})
    async with open_scripted(whole, tmp_path, choices_max=2) as engine:
        with pytest.raises(TransientError):
            await engine.answer(make_chat(n=2))
        assert await engine.answer(make_chat(n=1))


async def test_n_goes_to_servers_that_are_known_to_take_it_only(tmp_path: Path) -> None:
    async with open_scripted(send(frame("a", "stop"), USAGE_FRAME, DONE), tmp_path) as engine:
        with pytest.raises(RequestError) as caught:
            await collect(engine, make_chat(n=2))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "n")


async def test_only_checked_fields_reach_the_upstream(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(await request.json())
        return await send(frame("a", "stop"), USAGE_FRAME, DONE)(request)

    async with open_scripted(handle, tmp_path) as engine:
        body = make_chat(max_completion_tokens=5, user="someone", stream=True)
        await collect(engine, body)
    assert seen[0]["model"] == UPSTREAM_MODEL
    assert seen[0]["stream_options"] == {"include_usage": True}
    assert seen[0]["max_tokens"] == 5
    assert set(seen[0]) == {"messages", "seed", "max_tokens", "model", "stream", "stream_options"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_gateway_is_asked_to_pay_no_more_than_the_sale_brings(
    tmp_path: Path, stream: bool
) -> None:
    seen: list[str | None] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("hanse-max-prices"))
        return web.Response(status=400)

    async with open_scripted(handle, tmp_path, margin_ppm=100_000) as engine:
        for sold_at in (Prices(121, 55, 220), None):
            asked = msgspec.structs.replace(make_chat(stream=stream), sold_at=sold_at)
            answering = anext(engine.stream(asked)) if stream else engine.answer(asked)
            with pytest.raises(RequestError):
                await answering
    assert seen == ["110,50,200", None]


async def test_unreachable_upstream_is_transient(tmp_path: Path) -> None:
    engine = open_upstream("http://127.0.0.1:9/v1", tmp_path / "key")
    with pytest.raises(TransientError):
        await engine.start()
    assert not await engine.healthy()


async def test_key_comes_from_a_private_file_or_nowhere(tmp_path: Path) -> None:
    engine = open_upstream("http://127.0.0.1:9/v1", tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(RequestError) as caught:
        await engine.start()
    assert caught.value.code == "keystore_permissions"
    unset = open_engine(
        "upstream",
        {"base_url": "http://127.0.0.1:9/v1", "model": "m", "key_env": "HANSE_TEST_UNSET_KEY"},
    )
    with pytest.raises(RequestError) as missing:
        await unset.start()
    assert missing.value.param == "key_env"


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "http://user:pw@host/v1", "host/v1", "http://h/?k=1"]
)
async def test_urls_with_secrets_or_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(RequestError):
        open_engine("upstream", {"base_url": url, "model": "m"})


@pytest.mark.parametrize("gather_s", [-0.1, GATHER_S_MAX + 0.1, 30])
def test_what_is_gathered_has_bounds(gather_s: float) -> None:
    settings = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "gather_s": gather_s}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(settings, Settings)
