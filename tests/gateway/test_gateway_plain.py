"""A gateway in front of servers of one's own: what they are sent, who is asked, what is told."""

import asyncio
import contextlib
import json
import os
import sys
import time

import openai
import pytest

from benchmarks.mock_engine import MODEL, build_app
from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.gateway.budgets.admission import open_budgets
from hanse.gateway.plain import open_plain, read_upstream, read_upstreams
from hanse.protocol.errors import RequestError, TransientError
from hanse.serving import HttpServer
from hanse.store import open_sqlite
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import run_gateway_here

CHAT = "/v1/chat/completions"
KEY = "sk-upstream-secret-1"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


class Server:
    """The benchmarks' mock engine behind a switch; keeps what it was asked."""

    def __init__(self, http: HttpServer) -> None:
        self.url = f"{http.url}/v1"
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.status = 200
        self.message = ""
        self.cut = False
        self._engine = build_app(4)

    async def __call__(self, scope, receive, send):
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.seen.append((scope["method"], scope["path"], headers))
        if self.status == 200 or scope["method"] == "GET":
            await self._engine(scope, receive, self._cut_short(send) if self.cut else send)
            return
        body = json.dumps({"error": {"message": self.message, "param": "messages"}}).encode()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def _cut_short(self, send):
        async def cut(event):
            if b"[DONE]" not in event.get("body", b""):
                await send(event)

        return cut

    @property
    def asked(self) -> int:
        return sum(method == "POST" for method, _, _ in self.seen)


@contextlib.asynccontextmanager
async def serving(count=1):
    """As many servers as asked for."""
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for _ in range(count):
            http = HttpServer.bind("127.0.0.1", 0)
            server = Server(http)
            await http.start(server)
            stack.push_async_callback(http.stop)
            servers.append(server)
        yield servers


def encode(**more):
    return json.dumps({**BODY, **more}).encode()


async def test_a_gateway_that_pays_nobody_has_no_prices_to_tell():
    async with serving() as (server,), open_plain([read_upstream(server.url, KEY)]) as client:
        database = await open_sqlite(":memory:")
        keys = await open_api_keys(database, time.time)
        _, key = await keys.create("test")
        budgets = await open_budgets(database, keys, client, time.time)
        app = GatewayApp(GatewaySettings(), client, keys, budgets=budgets)
        question = json.dumps({"body": BODY}).encode()
        headers = [(b"authorization", b"Bearer " + key.encode())]
        caller = Caller("POST", "/hanse/v1/quote", headers, [question])
        await caller.run(app)
        assert (caller.status, caller.error["code"]) == (404, "not_found")
        await database.close()


async def test_a_server_that_is_down_is_told_without_the_markets_advice():
    async with serving() as (server,):
        url = server.url
    async with open_plain([read_upstream(f"{url}=m")]) as client:
        database = await open_sqlite(":memory:")
        keys = await open_api_keys(database, time.time)
        _, key = await keys.create("test")
        app = GatewayApp(GatewaySettings(market_wait_s=0.0), client, keys)
        headers = [(b"authorization", b"Bearer " + key.encode())]
        caller = Caller("POST", CHAT, headers, [encode(model="m")])
        await caller.run(app)
        assert (caller.status, caller.error["code"]) == (503, "provider_unreachable")
        assert caller.error["message"].endswith("can see to the server of its --upstream")
        assert caller.error["hanse"] == {"upstream": "local"}
        await database.close()


async def test_an_unmodified_client_is_served_and_told_that_it_is_local():
    async with serving() as (server,):
        upstream = read_upstream(server.url, KEY)
        async with (
            open_plain([upstream]) as client,
            run_gateway_here(client) as gateway,
            openai.AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key) as app,
        ):
            assert [model.id async for model in app.models.list()] == [MODEL]
            raw = await app.chat.completions.with_raw_response.create(**BODY)
            assert raw.headers["hanse-provider"] == "local"
            assert "hanse-receipt" not in raw.headers
            assert raw.parse().choices[0].message.content == "w0 w1 w2 w3 "
            stream = await app.chat.completions.create(**BODY, stream=True)
            words = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            assert "".join(words) == "w0 w1 w2 w3 "
    for _, path, headers in server.seen:
        assert path in (CHAT, "/v1/models")
        assert headers["authorization"] == f"Bearer {KEY}"  # and not the application's


async def test_the_requests_bytes_go_on_as_they_came():
    bodies = []

    async def keep(scope, receive, send):
        bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"odd" :  1}'})

    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(keep)
    odd = b'{"model":"m" , "messages":[{"role":"user","content":"\\u00e4"}],"x":1.0}'
    async with open_plain([read_upstream(f"{http.url}/v1=m")]) as client:
        answer = await client.request(CHAT, odd)
        assert await answer.read() == b'{"odd" :  1}'
    assert bodies == [odd]
    await http.stop()


async def test_a_form_goes_on_with_its_boundary():
    seen = []

    async def transcribe(scope, receive, send):
        seen.append((dict(scope["headers"])[b"content-type"], (await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"text": "hello"}'})

    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(transcribe)
    async with (
        open_plain([read_upstream(f"{http.url}/v1=m")]) as client,
        run_gateway_here(client) as gateway,
        openai.AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key) as app,
    ):
        heard = await app.audio.transcriptions.create(model="m", file=("a.wav", b"RIFF"))
    assert heard.text == "hello"
    [(kind, body)] = seen
    boundary = kind.removeprefix(b"multipart/form-data; boundary=")
    assert body.startswith(b"--" + boundary + b"\r\n")
    await http.stop()


async def test_connections_are_kept_over_streams():
    async with serving() as (server,), open_plain([read_upstream(server.url)]) as client:
        for _ in range(5):
            answer = await client.request(CHAT, encode(stream=True))
            frames = [frame async for frame in answer.frames()]
            assert frames[-1] == b"data: [DONE]\n\n"
            await answer.close()
        assert len(client._http._places) == 1


async def test_a_model_goes_to_a_server_that_has_it():
    async with serving(2) as (first, second):
        upstreams = [read_upstream(f"{first.url}=other"), read_upstream(f"{second.url}={MODEL},b")]
        async with open_plain(upstreams) as client:
            answer = await client.request(CHAT, encode())
            assert (answer.provider, first.asked, second.asked) == ("local-2", 0, 1)
            await answer.close()
            listed = [model["id"] for model in client.get_models()["data"]]
            assert listed == sorted([MODEL, "b", "other"])
            with pytest.raises(RequestError) as caught:
                await client.request(CHAT, encode(model="nobody's"))
            assert caught.value.code == "model_not_found"
        assert [path for method, path, _ in first.seen if method == "GET"] == []


async def test_equal_servers_share_the_work():
    async with (
        serving(2) as servers,
        open_plain([read_upstream(server.url) for server in servers]) as client,
    ):
        answers = [await client.request(CHAT, encode(stream=True)) for _ in range(6)]
        assert [server.asked for server in servers] == [3, 3]
        for answer in answers:
            await answer.close()


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_one_that_refuses_is_followed_by_the_next_and_rests(status):
    async with serving(2) as (first, second):
        first.status, first.message = status, f"bad key {KEY}"
        upstreams = [read_upstream(first.url, KEY), read_upstream(second.url)]
        async with open_plain(upstreams) as client:
            asked: list[str] = []
            answer = await client.request(CHAT, encode(), asked=asked)
            assert asked == ["local", "local-2"]
            await answer.read()
            first.status = 200
            await (await client.request(CHAT, encode())).read()
            rests = status != 429  # a rate limit is no failure
            assert (first.asked, second.asked) == ((1, 2) if rests else (2, 1))


async def test_when_nobody_is_left_the_error_is_the_last_ones_and_shows_no_key():
    async with serving() as (server,):
        server.status, server.message = 500, f"bad key {KEY}"
        async with open_plain([read_upstream(server.url, KEY)]) as client:
            for _ in range(2):  # the second time it rests, and is asked all the same
                with pytest.raises(TransientError) as caught:
                    await client.request(CHAT, encode())
                assert caught.value.code == "engine_unavailable"
                assert KEY not in json.dumps(caught.value.to_openai())
            assert server.asked == 2


async def test_the_applications_own_fault_is_told_and_nobody_else_is_asked():
    async with serving(2) as (first, second):
        first.status, first.message = 400, f"messages: too \x1b odd, by {KEY}"
        upstreams = [read_upstream(first.url, KEY), read_upstream(second.url)]
        async with (
            open_plain(upstreams) as client,
            run_gateway_here(client) as gateway,
            openai.AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key) as app,
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                await app.chat.completions.create(**BODY)
        assert caught.value.param == "messages"
        assert "messages: too odd, by ***" in caught.value.message
        assert second.asked == 0


async def test_a_server_that_is_not_there_is_followed_by_one_that_is():
    async with serving() as (server,):
        gone = HttpServer.bind("127.0.0.1", 0)
        await gone.stop()
        upstreams = [read_upstream(f"{gone.url}/v1={MODEL}"), read_upstream(server.url)]
        async with open_plain(upstreams) as client:
            answer = await client.request(CHAT, encode())
            assert answer.provider == "local-2"
            await answer.close()
            client.report_failure("local-2", "as if")
            answer = await client.request(CHAT, encode())  # whoever is up first again
            assert answer.provider == "local-2"
            await answer.close()


async def test_a_stream_that_ends_without_its_end_has_broken():
    async with serving() as (server,):
        server.cut = True
        async with open_plain([read_upstream(server.url)]) as client:
            answer = await client.request(CHAT, encode(stream=True))
            with pytest.raises(TransientError, match=r"before its \[DONE\]"):
                _ = [frame async for frame in answer.frames()]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "ftp://x/v1",
            "http://u:p@h/v1",
            "http://h/v1?a",
            "http://h/v1#a",
            "http://h/v1=a,",
        ),
        "http://h/v1=" + "a" * 1_000,
    ],
)
def test_what_is_no_upstream_is_refused(text):
    with pytest.raises(RequestError) as caught:
        read_upstream(text)
    assert caught.value.code == "configuration_invalid"


def test_keys_come_from_the_environment_each_for_its_own_server():
    environment = {"HANSE_UPSTREAM_KEY": KEY, "HANSE_UPSTREAM_KEY_3": "three"}
    texts = ["http://a/v1/=x, y", "http://b/v1", "http://c/v1"]
    found = read_upstreams(texts, environment)
    assert [(u.base_url, u.key) for u in found] == [
        ("http://a/v1", KEY),
        ("http://b/v1", ""),
        ("http://c/v1", "three"),
    ]
    assert found[0].models == ("x", "y")
    assert KEY not in repr(found)


async def test_the_command_serves_without_a_wallet_and_never_shows_the_key(tmp_path):
    async def run(*words):
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hanse.cli", *words, "--home", str(tmp_path), "--json"),
            env={**os.environ, "HANSE_UPSTREAM_KEY": KEY},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    made, _ = await (await run("gateway", "keys", "create", "app")).communicate()
    async with serving() as (server,):
        config = tmp_path / "g.toml"
        config.write_text(f'upstream = ["{server.url}={MODEL}"]\nport = 0\n')
        process = await run("gateway", "start", "--config", str(config))
        told = b""
        while not told.endswith(b"}\n"):
            told += await asyncio.wait_for(process.stdout.readline(), 30)
        shown = json.loads(told)
        assert shown["upstreams"] == [server.url]
        async with openai.AsyncOpenAI(
            base_url=shown["base_url"], api_key=json.loads(made)["api_key"]
        ) as app:
            answer = await app.chat.completions.create(**BODY)
            assert answer.choices[0].message.content == "w0 w1 w2 w3 "
        process.terminate()
        out, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, errors
        assert KEY.encode() not in told + out + errors
        assert server.seen[-1][2]["authorization"] == f"Bearer {KEY}"
