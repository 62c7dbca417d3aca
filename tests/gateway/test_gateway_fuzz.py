"""Random requests: whatever comes, the answer is OpenAI-shaped and never a 500."""

import asyncio
import json
import time
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ignored_auth  # our own tests cover keys

from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.gateway.keys import KeyTerms
from hanse.gateway.openapi import get_description
from hanse.gateway.operations import OPERATIONS, get_operation
from hanse.gateway.resilience.wishes import Deadline, get_class
from hanse.gateway.selling.headers import PARAMETERS
from hanse.gateway.selling.wishes import read_needs
from hanse.gateway.structured.demand import find_demand
from hanse.gateway.telemetry.tracing import CARRIED
from hanse.market import Needs
from hanse.protocol.errors import ERROR_TABLE, RequestError
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.store import open_sqlite
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import CHUNK_MODEL, FAILURES, MemoryMarket
from tests.gateway.gateway_thread import GatewayThread

KNOWN = [row.path for row in OPERATIONS]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
fields = st.sampled_from(
    ["model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens", "n", "x"]
)
models = st.sampled_from([CHUNK_MODEL, "nowhere", "breaks-later", "breaks-first", *FAILURES])
likely = st.fixed_dictionaries(
    {"model": models | json_values},
    optional={
        "messages": st.just([{"role": "user", "content": "x"}]) | json_values,
        "prompt": st.text() | json_values,
        "input": st.text() | json_values,
        "stream": st.booleans() | json_values,
        "stream_options": json_values,
        "max_tokens": st.integers() | json_values,
    },
)
bodies = (
    st.binary(max_size=200)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(fields, json_values).map(lambda value: json.dumps(value).encode())
    | likely.map(lambda value: json.dumps(value).encode())
    | likely.map(lambda value: json.dumps(value).encode()[:-3])
)
paths = (
    st.sampled_from(KNOWN)
    | st.text(max_size=60).map(lambda text: "/" + text)
    | st.tuples(st.sampled_from(KNOWN), st.text(max_size=10)).map("".join)
)
methods = st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "X", ""])
header_names = st.sampled_from(
    [
        *[b"authorization", b"origin", b"content-length", b"access-control-request-headers", b"x"],
        *(name.encode() for name in PARAMETERS),
    ]
)
# What an HTTP parser lets through in a header's value.
header_values = st.binary(max_size=60).map(
    lambda raw: bytes(b for b in raw if b == 9 or 32 <= b < 127 or b >= 128)
)
headers = st.lists(st.tuples(header_names, header_values), max_size=5)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def apps(runner):
    async def open_apps():
        database = await open_sqlite(":memory:")
        keys = await open_api_keys(database, time.time)
        _, key = await keys.create("fuzz")
        plain = GatewayApp(GatewaySettings(body_bytes_max=2_000), MemoryMarket(), keys)
        browsers = GatewaySettings(allowed_origins=("*",), access_log=True)
        return database, key, [plain, GatewayApp(browsers, MemoryMarket(), keys)]

    database, key, apps = runner.run(open_apps())
    yield key, apps
    runner.run(database.close())


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    method=methods, path=paths, given_headers=headers, body=bodies, split=st.integers(0, 50),
    signed_in=st.booleans(), which=st.integers(0, 1),
)  # fmt: skip
def test_no_request_gets_a_500(
    runner, apps, method, path, given_headers, body, split, signed_in, which
):
    key, both = apps
    if signed_in:
        given_headers = [*given_headers, (b"authorization", b"Bearer " + key.encode())]
    caller = Caller(method, path, given_headers, [body[:split], body[split:]])
    runner.run(caller.run(both[which]))
    assert caller.sent[-1]["more_body"] is False
    assert caller.status != 500
    check_headers(caller)
    if caller.status >= 400 and method != "HEAD":
        error = caller.error
        assert ERROR_TABLE[error["code"]].status == caller.status
        assert ERROR_TABLE[error["code"]].openai_type == error["type"]
        assert isinstance(error["message"], str)
        assert set(error) <= {"message", "type", "param", "code", "hanse"}
    assert both[which].in_flight == 0


def check_headers(caller: Caller) -> None:
    for name, value in caller.sent[0]["headers"]:
        assert name == name.lower()
        assert not set(value) & set(b"\r\n\0")


def test_the_description_is_the_routers_table(runner):
    described = get_description()
    rows = {(path, verb.upper()) for path, verbs in described["paths"].items() for verb in verbs}
    assert rows == {(row.path, row.method) for row in OPERATIONS}
    for row in OPERATIONS:
        assert get_operation(row.method, row.path.replace("{model}", "a/b")) is row
    body = described["components"]["schemas"]["ChatBody"]
    assert body["required"] == ["model", "messages"]


class Asked(dict[bytes, bytes]):
    """Headers, none of which is there; notes which were looked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def get(self, name: bytes, default: bytes | None = None) -> bytes | None:
        self.names.add(name.decode())
        return default

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, bytes)
        return self.get(name) is not None


def test_every_header_that_is_read_is_described_where_it_is_read():
    shape = {"type": "json_schema", "json_schema": {"schema": {}}}
    asked = Asked()
    find_demand(json.dumps({"response_format": shape}).encode(), asked, "repair")
    for_chat = set(asked.names)
    get_class(asked)
    Deadline.find(asked)
    read_needs(asked, Needs(), "key", [])
    everywhere = asked.names - for_chat | {name.decode() for name in CARRIED}
    assert set(PARAMETERS) == everywhere | for_chat
    for path, verbs in get_description()["paths"].items():
        for described in verbs.values():
            references = [one.get("$ref", "") for one in described.get("parameters", ())]
            names = {name.rpartition("/")[2] for name in references if name}
            is_chat = path in ("/v1/chat/completions", "/v1/responses", "/v1/messages")
            is_paid = 402 in {int(status) for status in described["responses"]}
            assert names == (everywhere if is_paid else set()) | (for_chat if is_chat else set())


async def test_what_becomes_of_keys_is_described_wherever_one_is_asked_for():
    database = await open_sqlite(":memory:")
    keys = await open_api_keys(database, time.time)
    app = GatewayApp(GatewaySettings(), MemoryMarket(), keys)
    _, elsewhere = await keys.create("elsewhere", KeyTerms(paths=("/nowhere",)))
    described = get_description()["paths"]
    for row in OPERATIONS:
        for key, status in (("unknown", 401), (elsewhere, 403)):
            path = row.path.replace("{model}", CHUNK_MODEL)
            caller = Caller(row.method, path, {"authorization": f"Bearer {key}"})
            await caller.run(app)
            assert (caller.status == status) is row.authenticated
            answers = described[row.path][row.method.lower()]["responses"]
            assert (str(status) in answers) is row.authenticated
    await database.close()


@pytest.mark.parametrize(
    "name",
    [
        *["hanse-session", "hanse-region", "hanse-quantisation"],
        *["hanse-max-fee", "hanse-deadline-ms"],
    ],
)
async def test_what_is_described_as_the_most_is_the_most_that_is_taken(name):
    schema = PARAMETERS[name]["schema"]
    if "maximum" in schema:
        most, more = str(schema["maximum"]), str(schema["maximum"] + 1)
    else:
        most, more = "a" * schema["maxLength"], "a" * (schema["maxLength"] + 1)

    def read(text: str) -> None:
        wishes = {name.encode(): text.encode()}
        Deadline.find(wishes)
        read_needs(wishes, Needs(), "key", [])

    read(most)
    with pytest.raises(RequestError, match=name):
        read(more)


@pytest.fixture(scope="module")
def server() -> Iterator[GatewayThread]:
    with GatewayThread(MemoryMarket()) as server:
        yield server


def has_whole_floats(value: object) -> bool:
    """JSON Schema takes 1.0 for an integer; OpenAI's API does not, and neither does ours."""
    if isinstance(value, dict):
        return any(map(has_whole_floats, value.values()))
    if isinstance(value, list):
        return any(map(has_whole_floats, value))
    return isinstance(value, float) and value.is_integer()


def get_values(body: object) -> list[object]:
    values = body.values() if isinstance(body, dict) else []
    return [value for value in values if isinstance(value, float)]


def fits_together(case: schemathesis.Case) -> bool:
    """Whether headers that fit their own descriptions fit the request, and each other.

    A deadline may be over at once, a default must fit the body's schema, and of an address in mixed
    case the checksum must be right.
    """
    headers = case.headers or {}
    if "hanse-providers" in headers:
        headers["hanse-providers"] = headers["hanse-providers"].lower()
    asks_schema = '"schema"' in json.dumps(case.body, default=str)
    in_time = int(headers.get("hanse-deadline-ms", 10_000)) >= 10_000
    return in_time and not (asks_schema and "hanse-default" in headers)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda row: row.name)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_schemathesis_finds_nothing(server, operation, mode):
    schema = schemathesis.openapi.from_dict(get_description())
    described = schema[operation.path][operation.method.lower()]
    if mode.is_negative and operation.body is None:
        return  # nothing in these can be wrong

    examples = 40 if operation.dialect is None else 15  # their schemas are large: 0.2 s an example

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=described.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        deep = operation.dialect is None  # a dialect's whole numbers stand at the top
        assume(not has_whole_floats(case.body if deep else get_values(case.body)))
        if mode.is_positive:
            assume(fits_together(case))
        key = {"authorization": f"Bearer {server.key}"}
        response = case.call(base_url=server.root_url, headers=key, timeout=10)
        if response.status_code == 413:  # once in many runs; its checks know no such refusal
            assert len(response.request.body) > REQUEST_BODY_BYTES_MAX
            return
        case.validate_response(response, headers=key, excluded_checks=[ignored_auth])

    ask()


def test_the_served_description_is_the_generated_one(server):
    served = requests.get(f"{server.root_url}/openapi.json", timeout=5).json()
    assert served == get_description()
