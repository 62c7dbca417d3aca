"""Random bytes on the socket: the gateway answers in HTTP or hangs up, and goes on serving."""

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.gateway_parts import CHUNK_MODEL, MemoryMarket
from tests.gateway.gateway_thread import GatewayThread

BODY = json.dumps({"model": CHUNK_MODEL, "messages": [{"role": "user", "content": "x"}]}).encode()
ANSWER_S = 0.05
SEEN: set[bytes] = set()

pieces = st.sampled_from(
    [
        b"GET /health HTTP/1.1\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET http://x/health HTTP/1.0\r\n",
        b"host: x\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"content-length: 5\r\n",
        b"content-length: -1\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"transfer-encoding: chunked\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"connection: close\r\n",
        b"connection: upgrade\r\nupgrade: websocket\r\n",
        b"upgrade: h2c\r\n",
        b"expect: 100-continue\r\n",
        b"KEY",
        BODY,
        b"\x00",
        b"\xff" * 40,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
)
WHOLE = [
    b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nKEYcontent-length: %d\r\n\r\n" % len(BODY)
    + BODY,
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nKEYtransfer-encoding: chunked\r\n\r\n%x\r\n"
    % len(BODY)
    + BODY
    + b"\r\n0\r\n\r\n",
]
random_bytes = st.lists(pieces | st.binary(max_size=30), max_size=4).map(b"".join)
mutated = st.builds(
    lambda whole, at, cut, extra: whole[:at] + extra + whole[at + cut :],
    st.sampled_from(WHOLE),
    st.integers(0, 200),
    st.integers(0, 12),
    random_bytes,
)
payloads = st.lists(mutated | random_bytes, min_size=1, max_size=3).map(b"".join)


@pytest.fixture(scope="module")
def server() -> Iterator[GatewayThread]:
    with GatewayThread(MemoryMarket()) as server:
        yield server


def send(port: int, payload: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as plug:
        with contextlib.suppress(OSError):
            plug.sendall(payload)
        answer = b""
        with contextlib.suppress(OSError):
            while part := plug.recv(65_536):
                answer += part
    return answer


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(payload=payloads)
def test_random_bytes_get_http_or_nothing(server, payload):
    key = b"authorization: Bearer " + server.key.encode() + b"\r\n"
    answer = send(server.port, payload.replace(b"KEY", key))
    assert not answer or answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
    SEEN.add(answer[9:12])
    assert b"HTTP/1.1 500" not in answer
    assert b"text/plain" not in answer or b"# HELP" in answer


def test_it_still_serves(server):
    assert {b"", b"200", b"400"} <= SEEN  # the fuzz reached something
    assert requests.get(f"{server.root_url}/health", timeout=5).json() == {
        "status": "ok",
        "in_flight": 0,
        "money_alarms": [],
    }
