"""API keys: issued once, stored as hashes, revoked everywhere."""

import asyncio
import hashlib
import logging
import sqlite3
import time
from itertools import pairwise

import pytest

from hanse.gateway import open_api_keys
from hanse.gateway.budgets.limits import Limits
from hanse.gateway.keys import (
    KEY_CHARS,
    ApiKey,
    AtLimit,
    KeyTerms,
    MintBody,
    mint_key,
    verify_model,
    verify_reach,
)
from hanse.gateway.keys.api_keys import LOOK_S
from hanse.gateway.keys.tables import MIGRATIONS
from hanse.gateway.settings import KEYS_MAX
from hanse.protocol.errors import RequestError
from hanse.store import open_database, open_sqlite


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


async def test_a_gateway_reads_what_another_changed_on_either_store(database_url):
    ours, theirs = await open_database(database_url), await open_database(database_url)
    keys = await open_api_keys(ours, time.time)
    revoked, text = await keys.create("before")
    other = await open_api_keys(theirs, time.time)
    await keys.revoke(revoked.id)
    parent, _ = await keys.create("after", KeyTerms(may_mint=True))
    _, minted = await mint_key(keys, parent, MintBody(ttl_s=60))
    await other.refresh()
    assert (other.find(text), other.find(minted)) == (None, keys.find(minted))
    third = await open_api_keys(theirs, time.time)
    assert (third.find(text), third.find(minted)) == (None, keys.find(minted))
    await ours.close()
    await theirs.close()


async def test_unknown_keys_cannot_make_the_gateway_read_its_database_at_will(database):
    keys = await open_api_keys(database, time.time)
    reads = []
    original = database.read
    database.read = lambda function: reads.append(time.time()) or original(function)
    for count in (1, 2, 3):
        unknown = (keys.find_new(f"hgw_{number:043}") for number in range(50))
        assert await asyncio.gather(*unknown) == [None] * 50
        assert len(reads) == count
    assert min(after - before for before, after in pairwise(reads)) > LOOK_S * 0.9


async def test_keys_of_the_past_keep_no_newer_one_from_being_read(keys, database):
    def fill(tx):
        tx.execute(
            "WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n <= ?) "
            "INSERT INTO gateway_api_keys "
            "(id, digest, name, created_at, revoked_at, expires_at, revision) "
            "SELECT 'old-' || n, printf('%064x', n), 'old', 1, iif(n % 2, 1, NULL), 2, 0 "
            "FROM count",
            (2 * KEYS_MAX,),
        )

    await database.write(fill)
    _, text = await keys.create("new")
    assert (await open_api_keys(database, time.time)).find(text) is not None


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


# scope


def test_a_key_without_terms_may_do_everything():
    key = make_key()
    verify_reach(key, "/v1/anything", b"")
    verify_model(key, "any-model")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/chat/completions", True),
        ("/v1/models", True),
        ("/v1/models/org/large", True),
        ("/v1/modelsx", False),
        ("/v1/embeddings", False),
        ("/v1/chat/completions/", False),
        ("/hanse/v1/money", False),
    ],
)
def test_a_scope_names_paths_and_folders(path, allowed):
    key = make_key(paths=("/v1/chat/completions", "/v1/models", "/v1/models/*"))
    if allowed:
        verify_reach(key, path, b"")
    else:
        with pytest.raises(RequestError, match="not for") as caught:
            verify_reach(key, path, b"")
        assert caught.value.row.status == 403


@pytest.mark.parametrize("origin", [b"", b"https://evil.example", b"https://game.example.evil"])
def test_a_key_for_pages_works_from_no_other_origin(origin):
    key = make_key(origins=("https://game.example",))
    verify_reach(key, "/v1/models", b"https://game.example")
    with pytest.raises(RequestError) as caught:
        verify_reach(key, "/v1/models", origin)
    assert caught.value.code == "permission_denied"


def test_a_model_outside_the_scope_is_refused_by_name():
    with pytest.raises(RequestError, match="is for small, not for large") as caught:
        verify_model(make_key(models=("small",)), "large")
    assert caught.value.param == "model"


async def test_a_key_ends_by_itself(database):
    now_s = [1_000.0]
    keys = await open_api_keys(database, lambda: now_s[0])
    key, text = await keys.create("soon over", ttl_s=60)
    assert key.expires_at == 1_060
    now_s[0] = 1_059.9
    assert keys.find(text) is not None
    now_s[0] = 1_060.0
    assert keys.find(text) is None
    await keys.refresh()
    assert await (await open_api_keys(database, lambda: now_s[0])).find_new(text) is None


async def test_terms_survive_a_restart_and_can_be_changed_while_others_run(keys, path):
    terms = KeyTerms(models=("a",), limits=Limits(money_per_day=5), at_limit=AtLimit.QUEUE)
    key, text = await keys.create("scoped", terms)
    other_database = await open_sqlite(path)
    other = await open_api_keys(other_database, time.time)
    assert other.find(text).terms == terms
    await keys.change(key.id, lambda old: KeyTerms(models=old.models, may_mint=True))
    await other.refresh()
    assert other.find(text).terms == KeyTerms(models=("a",), may_mint=True)
    await other_database.close()


async def test_a_database_from_before_scopes_goes_on(path):
    old = await open_sqlite(path)
    await old.migrate("gateway_api_keys", MIGRATIONS[:1])
    text = "hgw_" + "a" * 43
    digest = hashlib.sha256(text.encode()).hexdigest()
    sql = "INSERT INTO gateway_api_keys (id, digest, name, created_at) VALUES (?, ?, ?, ?)"
    await old.write(lambda tx: tx.execute(sql, ("old", digest, "before", 7)))
    await old.close()
    database = await open_sqlite(path)
    keys = await open_api_keys(database, time.time)
    assert keys.find(text).terms == KeyTerms()
    await keys.revoke("old")
    assert keys.find(text) is None
    await database.close()


# minting


async def test_a_game_server_mints_a_key_for_a_player(keys):
    parent, _ = await keys.create(
        "game",
        KeyTerms(
            models=("small", "large"),
            may_mint=True,
            limits=Limits(money_per_day=1_000, requests_per_minute=60),
        ),
    )
    body = MintBody(ttl_s=600, user="player-7", models=["small"], limits=Limits(money_per_day=9))
    child, text = await mint_key(keys, parent, body)
    assert keys.find(text) == child
    assert child.parent == parent.id
    assert child.expires_at == child.created_at + 600
    assert child.terms == KeyTerms(
        models=("small",),
        limits=Limits(money_per_day=9, requests_per_minute=60),
        user="player-7",
    )


@pytest.mark.parametrize(
    ("terms", "asked", "named"),
    [
        ({"models": ("small",)}, {"models": ("large",)}, "models"),
        ({"paths": ("/v1/models/*",)}, {"paths": ("/v1/*",)}, "paths"),
        ({"models": ("org/*",)}, {"models": ("org/large",)}, "models"),
        ({"origins": ("https://a",)}, {"origins": ("https://b",)}, "origins"),
    ],
)
async def test_a_child_reaches_no_further_than_its_parent(keys, terms, asked, named):
    parent, _ = await keys.create("game", KeyTerms(may_mint=True, **terms))
    with pytest.raises(RequestError) as caught:
        await mint_key(keys, parent, MintBody(ttl_s=60, **asked))
    assert (caught.value.code, caught.value.param) == ("permission_denied", named)


async def test_a_childs_limits_are_never_above_its_parents(keys):
    parent, _ = await keys.create(
        "game", KeyTerms(may_mint=True, limits=Limits(tokens_per_day=100))
    )
    greedy = MintBody(ttl_s=60, limits=Limits(tokens_per_day=10_000))
    child, _ = await mint_key(keys, parent, greedy)
    assert child.terms.limits == Limits(tokens_per_day=100)


async def test_children_cannot_mint_nor_see_the_owners_affairs(keys):
    parent, _ = await keys.create("game", KeyTerms(may_mint=True))
    child, _ = await mint_key(keys, parent, MintBody(ttl_s=60))
    with pytest.raises(RequestError, match="may not mint"):
        await mint_key(keys, child, MintBody(ttl_s=60))
    for path in ("/hanse/v1/money", "/hanse/v1/keys"):
        with pytest.raises(RequestError, match="minted key"):
            verify_reach(child, path, b"")


async def test_keys_are_two_deep_whatever_a_minted_ones_terms_say(keys):
    parent, _ = await keys.create("game", KeyTerms(may_mint=True))
    minted, _ = await mint_key(keys, parent, MintBody(ttl_s=60))
    child = await keys.change(minted.id, lambda terms: KeyTerms(may_mint=True))
    for attempt in (
        mint_key(keys, child, MintBody(ttl_s=60)),
        keys.create("grandchild", parent=child),
    ):
        with pytest.raises(RequestError, match="minted API key may not mint") as caught:
            await attempt
        assert caught.value.code == "permission_denied"
    assert sorted(key.parent for key in await keys.list()) == ["", parent.id]


async def test_a_key_of_one_user_mints_for_no_other(keys):
    parent, _ = await keys.create("game", KeyTerms(may_mint=True, user="alice"))
    with pytest.raises(RequestError, match="one end user") as caught:
        await mint_key(keys, parent, MintBody(ttl_s=60, user="bob"))
    assert (caught.value.code, caught.value.param) == ("permission_denied", "user")
    for user in ("", "alice"):
        child, _ = await mint_key(keys, parent, MintBody(ttl_s=60, user=user))
        assert child.terms.user == "alice"


async def test_a_key_that_was_not_made_to_mint_does_not(keys):
    parent, _ = await keys.create("app")
    with pytest.raises(RequestError, match="--may-mint"):
        await mint_key(keys, parent, MintBody(ttl_s=60))


async def test_revoking_the_parent_ends_its_children_at_once(keys, path):
    parent, _ = await keys.create("game", KeyTerms(may_mint=True))
    other_database = await open_sqlite(path)
    other = await open_api_keys(other_database, time.time)
    texts = [(await mint_key(keys, parent, MintBody(ttl_s=60)))[1] for _ in range(3)]
    await other.refresh()
    assert all(other.find(text) for text in texts)
    await keys.revoke(parent.id)
    assert not any(keys.find(text) for text in texts)
    await other.refresh()
    assert not any(other.find(text) for text in texts)
    with pytest.raises(RequestError) as caught:  # a game server that has not heard of it yet
        await mint_key(other, parent, MintBody(ttl_s=60))
    assert caught.value.code == "api_key_invalid"
    await other_database.close()


async def test_a_key_that_another_gateway_has_minted_is_found_when_it_is_shown(keys, path):
    other_database = await open_sqlite(path)
    other = await open_api_keys(other_database, time.time)
    _, text = await keys.create("minted elsewhere")
    assert other.find(text) is None
    assert await other.find_new(text) is not None
    await other_database.close()


async def test_a_child_ends_no_later_than_its_parent(keys):
    parent, _ = await keys.create("game", KeyTerms(may_mint=True), ttl_s=100)
    child, _ = await mint_key(keys, parent, MintBody(ttl_s=86_400))
    assert child.expires_at == parent.expires_at


async def test_one_parent_cannot_take_the_room_of_all(database):
    now_s = [1_000.0]
    keys = await open_api_keys(database, lambda: now_s[0], children_max=3)
    leaked, _ = await keys.create("leaked", KeyTerms(may_mint=True))
    other, _ = await keys.create("other", KeyTerms(may_mint=True))
    for _ in range(3):
        await mint_key(keys, leaked, MintBody(ttl_s=60))
    with pytest.raises(RequestError) as caught:
        await mint_key(keys, leaked, MintBody(ttl_s=60))
    assert caught.value.row.status == 429
    await mint_key(keys, other, MintBody(ttl_s=60))
    now_s[0] += 60  # the children have ended
    await keys.refresh()
    await mint_key(keys, leaked, MintBody(ttl_s=60))


async def test_minted_keys_leave_the_table_after_a_day(database):
    now_s = [1_000.0]
    keys = await open_api_keys(database, lambda: now_s[0])
    parent, _ = await keys.create("game", KeyTerms(may_mint=True))
    for _ in range(5):
        await mint_key(keys, parent, MintBody(ttl_s=1))
    now_s[0] += 86_500
    last, _ = await mint_key(keys, parent, MintBody(ttl_s=1))
    assert await keys.list() == [parent, last]


def make_key(**terms):
    return ApiKey("id", "name", 0, None, terms=KeyTerms(**terms))
