"""The node client: retries, limits, batches and errors that say what to do."""

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from chain_parts import lose

from hanse.chain import Call, ChainError, Rpc, rpc_transport
from hanse.protocol.errors import TransientError


class ScriptedTransport:
    """Answers with what the script says, one step an exchange."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.bodies: list[Any] = []

    async def exchange(self, body: bytes) -> bytes:
        self.bodies.append(msgspec.json.decode(body))
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step if isinstance(step, bytes) else msgspec.json.encode(step)

    async def close(self) -> None:
        pass


def answer(result: Any, number: int = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def refusal(code: int, message: str, data: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message, "data": data}}


async def test_reads_are_tried_again_and_give_up_in_the_end() -> None:
    good = ScriptedTransport(lose(), lose(), lose(), answer("0x7a69"))
    assert await Rpc(good, retry_pause_s=0).fetch_chain_id() == 31_337
    dead = ScriptedTransport(*(lose() for _ in range(9)))
    with pytest.raises(TransientError):
        await Rpc(dead, retry_pause_s=0).fetch_chain_id()
    assert len(dead.bodies) == 4


async def test_a_broadcast_is_never_tried_again_here() -> None:
    transport = ScriptedTransport(lose(), answer("0x"))
    with pytest.raises(TransientError):
        await Rpc(transport, retry_pause_s=0).send_raw(b"\x02")
    assert len(transport.bodies) == 1


async def test_refusals_carry_the_decoded_reason() -> None:
    data = "0x08c379a0" + (32).to_bytes(32, "big").hex() + (6).to_bytes(32, "big").hex()
    data += b"closed".ljust(32, b"\0").hex()
    for shape in (data, {"data": data}):
        transport = ScriptedTransport(refusal(3, "execution reverted", shape))
        with pytest.raises(ChainError) as caught:
            await Rpc(transport).call(Call("0x" + "11" * 20, b""), block=1)
        assert (caught.value.reason, caught.value.is_revert) == ("closed", True)


async def test_a_rate_limit_is_transient_and_too_many_results_is_not() -> None:
    limited = ScriptedTransport(refusal(-32005, "limit exceeded"), answer("0x1"))
    assert await Rpc(limited, retry_pause_s=0).fetch_chain_id() == 1
    full = ScriptedTransport(refusal(-32005, "query returned more than 10000 results"))
    with pytest.raises(ChainError):
        await Rpc(full).fetch_logs(["0x" + "11" * 20], first=1, last=2)


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b"3", b"null", b'{"jsonrpc":"2.0","id":1}', b"\xff"]
)
async def test_what_is_no_json_rpc_is_transient(raw: bytes) -> None:
    transport = ScriptedTransport(*[raw] * 4)
    with pytest.raises(TransientError):
        await Rpc(transport, retry_pause_s=0).fetch_chain_id()


async def test_batches_are_paged_and_put_in_order() -> None:
    def page(size: int) -> list[Any]:
        return [answer(hex(i), i) for i in reversed(range(size))]

    transport = ScriptedTransport(page(100), page(50))
    found = await Rpc(transport).request_batch([("eth_x", ())] * 150)
    assert found == [hex(i) for i in range(100)] + [hex(i) for i in range(50)]
    short = ScriptedTransport(*[page(2)] * 4)
    with pytest.raises(TransientError, match="2 answers to a batch of 3"):
        await Rpc(short, retry_pause_s=0).request_batch([("eth_x", ())] * 3)


@asynccontextmanager
async def serve(handler: Callable[[web.Request], Awaitable[Any]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/secret-access-key", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/secret-access-key"
    await runner.cleanup()


async def test_http_errors_are_transient_and_hide_the_url() -> None:
    async def broken(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async with serve(broken) as url, Rpc.connect(url) as rpc:
        with pytest.raises(TransientError, match="status 503"):
            await rpc.request("eth_chainId", attempts_max=1)
    async with Rpc.connect(url) as rpc:  # nobody listens any more
        with pytest.raises(TransientError) as caught:
            await rpc.request("eth_chainId", attempts_max=1)
    assert "secret-access-key" not in caught.value.message


async def test_a_silent_node_is_given_up() -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with serve(silent) as url, Rpc.connect(url, timeout_s=0.05) as rpc:
        with pytest.raises(TransientError, match=r"within 0\.05 s"):
            await rpc.request("eth_chainId", attempts_max=1)


async def test_an_endless_answer_is_cut_off() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(100):
                await response.write(bytes(1 << 20))
                sent += 1
        except ConnectionError:
            pass
        return response

    async with serve(endless) as url, Rpc.connect(url) as rpc:
        with pytest.raises(ChainError, match="larger than"):
            await rpc.request("eth_chainId", attempts_max=1)
    assert sent < 100
    assert rpc_transport.RESPONSE_BYTES_MAX == 32 << 20


async def test_a_packed_answer_is_unpacked_within_the_same_bound() -> None:
    packed = gzip.compress(msgspec.json.encode(answer("0x7a69")))
    bomb = gzip.compress(bytes(rpc_transport.RESPONSE_BYTES_MAX + 1))
    assert len(bomb) < 64 * 1024
    for body, expected in (
        (packed, None),
        (bomb, ChainError),
        (packed[:-9] + b"x", TransientError),
    ):

        async def pack(request: web.Request, body: bytes = body) -> web.Response:
            assert request.headers["accept-encoding"] == "gzip"
            return web.Response(body=body, headers={"content-encoding": "gzip"})

        async with serve(pack) as url, Rpc.connect(url) as rpc:
            if expected is None:
                assert await rpc.request("eth_chainId", attempts_max=1) == "0x7a69"
                continue
            with pytest.raises(expected):
                await rpc.request("eth_chainId", attempts_max=1)


async def test_a_name_and_password_of_the_url_go_into_a_header() -> None:
    seen: list[str] = []

    async def locked(request: web.Request) -> web.Response:
        seen.append(request.headers.get("authorization", ""))
        return web.json_response(answer("0x1"))

    async with serve(locked) as url:
        for told in ("reader:se%40cret@", "reader@", ""):
            async with Rpc.connect(url.replace("//", f"//{told}")) as rpc:
                assert await rpc.fetch_chain_id() == 1
    pairs = [base64.b64encode(pair).decode() for pair in (b"reader:se@cret", b"reader:")]
    assert seen == [*(f"Basic {pair}" for pair in pairs), ""]


async def test_what_is_no_url_is_told_without_repeating_it() -> None:
    for url in ("node:8545", "http://[secret", "", "http://a b/", "ftp://secret"):
        async with Rpc.connect(url) as rpc:
            with pytest.raises(TransientError, match="ValueError") as caught:
                await rpc.request("eth_chainId", attempts_max=1)
        assert "secret" not in caught.value.message


async def test_a_real_node_answers_every_question(anvil: str) -> None:
    async with Rpc.connect(anvil) as rpc:
        assert await rpc.fetch_chain_id() == 31_337
        head = await rpc.fetch_head()
        assert await rpc.fetch_header(head.number + 1_000) is None
        assert await rpc.fetch_receipt("0x" + "00" * 32) is None
        with pytest.raises(TransientError, match="lacks block"):
            await rpc.fetch_headers(head.number + 1_000, head.number + 1_001)
        assert await rpc.fetch_code("0x" + "11" * 20, block=head.number) == b""
        proposed = await rpc.request("eth_maxPriorityFeePerGas")
        assert await rpc.fetch_priority_fee() == int(proposed, 16) > 0


async def test_a_redirect_is_not_followed() -> None:
    """Whoever it names would answer for the chain, and see what is asked and sent."""
    asked: list[str] = []

    async def attacker(request: web.Request) -> web.Response:
        asked.append("attacker")
        return web.json_response(answer("0x29a"))

    async with serve(attacker) as elsewhere:
        for status in (301, 302, 307, 308):

            async def redirect(request: web.Request, status: int = status) -> web.Response:
                asked.append("node")
                return web.Response(status=status, headers={"location": elsewhere})

            async with serve(redirect) as url, Rpc.connect(url) as rpc:
                with pytest.raises(TransientError, match=f"status {status}, a redirect") as caught:
                    await rpc.request("eth_chainId", attempts_max=1)
            assert "secret-access-key" not in caught.value.message
    assert asked == ["node"] * 4
