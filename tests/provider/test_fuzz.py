"""Whatever comes in over HTTP, nothing is a 500 and nothing is left behind."""

import asyncio
import contextlib
import json
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hanse.protocol.errors import ERROR_TABLE
from hanse.protocol.wire import to_base64url
from tests.provider.broker_parts import CHAT, SIGNER_KEY, USER, Caller, run_broker_here

PATHS = [
    *(CHAT, "/v1/completions", "/v1/embeddings", "/v1/models", "/health", "/metrics"),
    *("/hanse/v1/offers", "/hanse/v1/sub-account", "/hanse/v1/receipts"),
    *("/hanse/v1/answers/", "/hanse/v1/answers/0x" + "ab" * 32, "/", "/v1/nothing"),
]
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["echo-fake", "", "another"]) | json_values,
        "messages": json_values
        | st.just([{"role": "user", "content": "hello"}])
        | st.lists(st.fixed_dictionaries({"role": st.text(max_size=9), "content": json_values})),
        "prompt": json_values,
        "input": json_values,
        "max_tokens": st.integers(-2, 2_000) | json_values,
        "max_completion_tokens": json_values,
        "n": st.integers(-1, 20) | json_values,
        "best_of": json_values,
        "stream": st.booleans() | json_values,
        "stream_options": json_values,
        "logprobs": json_values,
        "tools": json_values,
        "response_format": json_values,
        "seed": json_values,
        "stop": json_values,
    },
)
header_values = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60
)
fields = st.sampled_from(
    [
        *("v", "user", "provider", "signer", "cumulative_max", "sequence_max", "offer_hash"),
        *("maximum_fee", "request_id", "deadline", "acknowledged", "answer_key", "signature"),
    ]
)


@pytest.fixture(scope="module")
def live():
    """A broker in a loop of its own, so that many examples share it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    context = run_broker_here()
    here = run(context.__aenter__())

    async def make_caller():
        return Caller(here.url, here.offer)

    caller = run(make_caller())
    yield here, caller, run
    run(caller.session.close())
    run(context.__aexit__(None, None, None))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def fuzz(examples):
    def decorate(function):
        return settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )(function)

    return decorate


def check(here, status, body):
    assert status < 500 or status == 503, (status, body[:300])
    if status >= 400 and body:
        error = json.loads(body)["error"]
        assert ERROR_TABLE[error["code"]].status == status
    assert here.broker.in_flight == 0


@fuzz(150)
@given(method=st.sampled_from(METHODS), path=st.sampled_from(PATHS), header=header_values)
def test_any_method_path_and_header(live, method, path, header):
    here, caller, run = live

    async def send():
        headers = {"Authorization": header.strip()} if header.strip() else {}
        async with caller.session.request(method, here.url + path, headers=headers) as response:
            return response.status, await response.read()

    check(here, *run(send()))


@fuzz(150)
@given(body=bodies, path=st.sampled_from(PATHS[:3]))
def test_any_body_that_is_properly_paid(live, body, path):
    here, caller, run = live
    data = json.dumps(body).encode()

    async def send():
        signed = caller.sign(
            data, path=path, maximum_fee=10**6, committed=10**11, sequence_max=10**6
        )
        return await caller.send(signed)

    reply = run(send())
    if reply.status == 200:
        run(_check_async(caller, reply))
    else:
        check(here, reply.status, reply.body)


async def _check_async(caller, reply):
    assert reply.receipt is not None


@fuzz(150)
@given(data=st.binary(max_size=300))
def test_any_bytes_as_a_paid_body(live, data):
    here, caller, run = live

    async def send():
        return await caller.send(
            caller.sign(data, maximum_fee=10**6, committed=10**11, sequence_max=10**6)
        )

    reply = run(send())
    check(here, reply.status, reply.body)


@fuzz(200)
@given(name=fields, value=json_values, query=st.booleans())
def test_any_field_of_a_signed_header(live, name, value, query):
    here, caller, run = live

    async def send():
        signed = caller.sign(committed=10**11, sequence_max=10**6)
        scheme = "Hanse-Query " if query else "Hanse "
        text = (caller.sign_query() if query else signed.header).removeprefix(scheme)
        facts = json.loads(_from_base64url(text))
        facts[name] = value
        header = scheme + to_base64url(json.dumps(facts).encode())
        if query:
            reply = await caller.get("/hanse/v1/receipts", header)
        else:
            signed.header = header
            reply = await caller.send(signed)
        return reply.status, b"" if reply.status == 200 else reply.body

    check(here, *run(send()))


def _from_base64url(text):
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@fuzz(150)
@given(
    data=st.binary(max_size=400)
    | st.lists(
        st.sampled_from(
            [
                *(b"POST ", b"GET ", CHAT.encode(), b" HTTP/1.1\r\n", b"\r\n", b"Host: x\r\n"),
                *(b"Content-Length: ", b"-1\r\n", b"9" * 30, b"Transfer-Encoding: chunked\r\n"),
                *(b"zz\r\n", b"0\r\n\r\n", b"Authorization: Hanse e30\r\n", b"%ff%00", b"\x00"),
                *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"A" * 20_000),
            ]
        ),
        max_size=12,
    ).map(b"".join)
)
def test_any_bytes_on_the_socket(live, data):
    here, _, run = live
    host, port = here.url.removeprefix("http://").split(":")

    async def send():
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        writer.write_eof()
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            answer = await asyncio.wait_for(reader.read(65_536), 0.5)
        writer.close()
        return answer

    answer = run(send())
    assert b"HTTP/1.1 500" not in answer


def test_after_all_of_that_it_still_sells_and_the_books_are_clean(live):
    here, caller, run = live

    async def buy():
        _, receipts = await caller.fetch_receipts()
        reply = await caller.send(caller.sign(committed=10**11, sequence_max=10**7))
        return receipts, reply, await here.book.find_state(USER, SIGNER_KEY.address)

    _, reply, state = run(buy())
    assert reply.status == 200
    assert (state.book.reserved, state.book.in_flight) == (0, 0)
    assert here.broker.parts.metrics.registry.get_sample_value("hanse_broker_defects_total") == 0
