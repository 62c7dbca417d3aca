"""API keys: issued once, stored as hashes, revoked everywhere."""

import hashlib
import logging
import sqlite3
import time

import pytest

from hanse.gateway import open_api_keys
from hanse.gateway.api_keys import KEY_CHARS
from hanse.protocol.errors import RequestError
from hanse.store import open_sqlite


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gateway.sqlite"


@pytest.fixture
async def database(path):
    database = await open_sqlite(path)
    yield database
    await database.close()


@pytest.fixture
async def keys(database):
    return await open_api_keys(database, time.time)


async def test_a_created_key_works_and_is_listed_without_its_text(keys):
    key, text = await keys.create("my app")
    assert text.startswith("hgw_")
    assert len(text) == KEY_CHARS
    assert keys.find(text) == key
    assert await keys.list() == [key]
    assert text not in repr(key)


async def test_two_keys_are_different(keys):
    (first, first_text), (second, second_text) = await keys.create("a"), await keys.create("a")
    assert first_text != second_text
    assert first.id != second.id


async def test_only_the_hash_is_on_disk(keys, path):
    _, text = await keys.create("my app")
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert text.encode() not in files
    assert hashlib.sha256(text.encode()).hexdigest().encode() in files
    assert sqlite3.connect(path).execute("SELECT count(*) FROM gateway_api_keys").fetchone() == (1,)


@pytest.mark.parametrize(
    "attackers",
    [
        "",
        "hgw_",
        "hgw_" + "a" * 43,
        "hgw_" + "é" * 43,
        "sk-" + "a" * 44,
        "a" * 10_000,
        "hgw_\x00" * 9,
    ],
)
async def test_other_texts_do_not_work(keys, attackers):
    _, text = await keys.create("my app")
    assert keys.find(attackers) is None
    assert keys.find(text[:-1]) is None
    assert keys.find(text + "a") is None
    assert keys.find(text.swapcase()) is None


async def test_a_revoked_key_stops_working_and_stays_listed(keys):
    key, text = await keys.create("my app")
    revoked = await keys.revoke(key.id)
    assert keys.find(text) is None
    assert revoked.revoked_at is not None
    assert await keys.list() == [revoked]
    assert (await keys.revoke(key.id)).revoked_at == revoked.revoked_at


async def test_revoking_an_unknown_id_says_so(keys):
    with pytest.raises(RequestError, match="no API key has the id 'nothing'"):
        await keys.revoke("nothing")


async def test_keys_of_another_process_are_seen_after_a_refresh(keys, path):
    other_database = await open_sqlite(path)
    other = await open_api_keys(other_database, time.time)
    key, text = await other.create("from the command line")
    assert keys.find(text) is None
    await keys.refresh()
    assert keys.find(text) == key
    await other.revoke(key.id)
    await keys.refresh()
    assert keys.find(text) is None
    await other_database.close()


async def test_unknown_keys_cannot_make_the_gateway_read_its_database_at_will(database):
    now_s = [1_000.0]
    keys = await open_api_keys(database, lambda: now_s[0])
    reads = []
    original = database.read
    database.read = lambda function: reads.append(1) or original(function)
    for _ in range(50):
        await keys.refresh(at_most_every_s=1.0)
    assert len(reads) == 0
    now_s[0] += 1.5
    for _ in range(50):
        await keys.refresh(at_most_every_s=1.0)
    assert len(reads) == 1


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
async def test_names_are_bounded(keys, name):
    with pytest.raises(RequestError) as caught:
        await keys.create(name)
    assert caught.value.param == "name"


async def test_keys_survive_a_restart(keys, database, path, caplog):
    caplog.set_level(logging.DEBUG)
    _, text = await keys.create("my app")
    reopened = await open_api_keys(database, time.time)
    assert reopened.find(text) is not None
    assert text not in caplog.text
