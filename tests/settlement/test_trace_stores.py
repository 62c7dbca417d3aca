"""Objects by content hash: folder, memory, and S3 over real HTTP; and stores that lie."""

import asyncio
import itertools
import os
import re
from pathlib import Path

import obstore
import pytest

from hanse.protocol.errors import RequestError, TransientError, VerificationError
from hanse.settlement.traces.document import OBJECT_BYTES_MAX, encrypt_trace, hash_object
from hanse.settlement.traces.object_store import (
    LOCATION_CHARS_MAX,
    ObjectStore,
    open_memory_store,
    open_object_store,
)
from tests.settlement.trace_parts import make_trace, read_all

NUMBERS = itertools.count(1)


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request, tmp_path) -> ObjectStore:
    if request.param == "folder":
        return open_object_store(str(tmp_path / "traces"))
    if request.param == "memory":
        return open_memory_store()
    s3 = request.getfixturevalue("s3")
    bucket = f"bucket-{next(NUMBERS)}"
    s3.ask("PUT", bucket)
    return open_object_store(s3.location(bucket))


async def test_what_was_put_is_fetched_and_deleted(store):
    content = encrypt_trace(make_trace()).content
    name = await store.put(content)
    assert await store.put(content) == name  # again changes nothing
    assert await store.has(name, len(content))
    assert not await store.has(name, len(content) + 1)
    assert await store.fetch(name) == content
    await store.delete(name)
    await store.delete(name)
    assert not await store.has(name, len(content))
    with pytest.raises(RequestError) as caught:
        await store.fetch(name)
    assert caught.value.code == "not_found"


async def test_an_object_of_the_largest_size_passes(store):
    content = os.urandom(OBJECT_BYTES_MAX)
    assert await store.fetch(await store.put(content)) == content


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "0x" + "../" * 21 + "a", "", "0x12", "0x" + "g" * 64, "/etc/passwd"],
)
async def test_no_name_leads_out_of_the_store(store, name):
    for use in (store.fetch(name), store.delete(name), store.has(name, 1)):
        with pytest.raises(RequestError) as caught:
            await use
        assert caught.value.code == "invalid_request"


def spoil(kind: str, content: bytes) -> bytes:
    other = encrypt_trace(make_trace(2)).content
    return {
        "another object": other,
        "an older one": encrypt_trace(make_trace()).content,
        "cut": content[:-1],
        "empty": b"",
        "longer": content + b"\x00",
        "too large": content + bytes(OBJECT_BYTES_MAX),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["another object", "an older one", "cut", "empty", "longer", "too large"]
)
async def test_a_folder_that_serves_something_else_is_found_out(tmp_path, kind):
    store = open_object_store(str(tmp_path))
    content = encrypt_trace(make_trace()).content
    name = await store.put(content)
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    path.write_bytes(spoil(kind, content))
    with pytest.raises(VerificationError) as caught:
        await store.fetch(name)
    assert caught.value.code == "trace_invalid"
    assert name in caught.value.message


@pytest.mark.parametrize("kind", ["another object", "cut", "too large"])
async def test_an_s3_store_that_serves_something_else_is_found_out(s3, kind):
    bucket = f"lying-{next(NUMBERS)}"
    s3.ask("PUT", bucket)
    store = open_object_store(s3.location(bucket))
    content = encrypt_trace(make_trace()).content
    name = await store.put(content)
    await obstore.put_async(store._backend, f"{name[2:4]}/{name[2:]}", spoil(kind, content))
    with pytest.raises(VerificationError):
        await store.fetch(name)


async def serve_raw(answer: bytes) -> tuple[asyncio.Server, str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    return server, f"s3://bucket?endpoint=http://{host}:{port}&region=us-east-1"


HEAD = 'HTTP/1.1 {}\r\nETag: "x"\r\nLast-Modified: Sun, 22 Nov 2026 00:00:00 GMT\r\n{}\r\n'


@pytest.mark.parametrize(
    ("status", "fields", "body"),
    [
        ("200 OK", "Content-Length: 100\r\n", b"cut short"),
        ("500 Oh", "Content-Length: 6\r\n", b"secret"),
        ("301 Moved", "Location: http://127.0.0.1:1/\r\nContent-Length: 0\r\n", b""),
        ("403 No", "Content-Length: 6\r\n", b"secret"),
    ],
)
async def test_an_s3_server_that_misbehaves_is_a_store_that_is_not_there(s3, status, fields, body):
    server, location = await serve_raw(HEAD.format(status, fields).encode() + body)
    async with server:
        with pytest.raises(TransientError) as caught:
            await open_object_store(location, time_s=2).fetch("0x" + "ab" * 32)
    assert caught.value.code == "store_unavailable"
    assert "secret" not in caught.value.message


async def test_an_s3_server_that_gzips_a_bomb_is_not_unpacked(s3):
    """What is compressed on the way stays so: it has another hash, and at most its own size."""
    import gzip

    bomb = gzip.compress(bytes(10_000_000))
    fields = f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n"
    server, location = await serve_raw(HEAD.format("200 OK", fields).encode() + bomb)
    async with server:
        with pytest.raises((VerificationError, TransientError)):
            await open_object_store(location, time_s=2).fetch(hash_object(bytes(10_000_000)))


async def test_a_server_that_is_gone_is_said_without_its_address_of_credentials(s3):
    store = open_object_store("s3://bucket/p?endpoint=http://127.0.0.1:1&region=us-east-1")
    for use in (store.put(b"x"), store.fetch("0x" + "ab" * 32), store.delete("0x" + "ab" * 32)):
        with pytest.raises(TransientError):
            await use


@pytest.mark.parametrize(
    "location",
    [
        "",
        "x" * (LOCATION_CHARS_MAX + 1),
        "a\nb",
        "http://host/path",
        "gs://bucket",
        "s3://",
        "s3://key:TOPSECRET@bucket/",
        "s3://bucket?endpoint=http://key:TOPSECRET@host",
        "s3://bucket?secret_access_key=TOPSECRET",
        "s3://bucket?endpoint",
        "/dev/null/x",
    ],
)
def test_a_location_that_cannot_be_is_refused_and_not_repeated(location):
    with pytest.raises(RequestError) as caught:
        open_object_store(location)
    assert caught.value.code == "configuration_invalid"
    assert "TOPSECRET" not in caught.value.message


async def test_a_folder_is_the_owners_alone_and_its_names_are_hashes(tmp_path):
    folder = tmp_path / "deep" / "traces"
    name = await open_object_store(str(folder)).put(b"content")
    assert folder.stat().st_mode & 0o077 == 0
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert paths == [Path(name[2:4]) / name[2:]]
    assert re.fullmatch(r"[0-9a-f]{64}", paths[0].name)
    assert read_all(folder) == b"content"
