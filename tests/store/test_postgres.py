"""PostgreSQL's own troubles: restarts, broken commits, time limits, a full disk, secrets."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import threading
import traceback

import psycopg
import pytest
import pytest_asyncio

from hanse.protocol.errors import RequestError, TransientError
from hanse.store import get_database_name, has_password, open_database
from hanse.store.postgres import PostgresDatabase, open_postgres
from hanse.store.postgres_connection import WRITE_LOCK_KEY
from hanse.store.postgres_sql import to_native, to_native_types
from tests.store.facts import TABLES, Gate, count, put
from tests.store.postgres_server import PostgresServer


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database()


@pytest_asyncio.fixture
async def database(url: str):
    database = await open_postgres(url, outcome_wait_s=10)
    await database.migrate("test", TABLES)
    yield database
    await database.close()


def get_backend(database: PostgresDatabase) -> int:
    return database._link.connect().info.backend_pid


async def test_writes_that_wait_share_one_commit(database):
    gate = Gate()
    first = await gate.hold(database)
    waiting = [
        asyncio.create_task(
            database.write(lambda tx: tx.find_one("SELECT pg_current_xact_id()::text")[0])
        )
        for _ in range(100)
    ]
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    assert len(set(await asyncio.gather(*waiting))) == 1


@pytest.mark.parametrize(
    "parameters",
    ["schema=public", "options=-c%20default_transaction_isolation%3Drepeatable%5C%20read"],
)
async def test_writers_take_turns_however_their_urls_and_defaults_differ(database, url, parameters):
    """Two names of one schema had two locks; a snapshot from before the turn sees no lease end."""
    await database.write(put("count", "0"))
    joiner = "&" if "?" in url else "?"
    other = await open_postgres(f"{url}{joiner}{parameters}")

    def add_one(tx):
        (found,) = tx.find_one("SELECT amount FROM facts")
        tx.find_one("SELECT 1 FROM pg_sleep(0.01)")
        tx.execute("UPDATE facts SET amount = ?", (str(int(found) + 1),))

    for _ in range(10):
        await asyncio.gather(database.write(add_one), other.write(add_one))
    await other.close()
    assert await database.read(lambda tx: tx.find_one("SELECT amount FROM facts")[0]) == "20"


async def test_after_a_restart_of_the_server_the_next_write_and_read_go_on():
    with PostgresServer() as server:
        database = await open_postgres(server.create_database(), outcome_wait_s=2)
        await database.migrate("test", TABLES)
        await database.write(put("before"))
        server.stop()
        with pytest.raises(TransientError, match="cannot reach postgresql://") as refused:
            await database.write(put("meanwhile"))
        assert refused.value.code == "store_unavailable"
        with pytest.raises(TransientError):
            await count(database)
        server.start()
        assert await count(database) == 1
        await database.write(put("after"))
        server.stop()
        server.start()  # nobody asked in between
        await database.write(put("last"))
        assert await count(database) == 3
        await database.close()


async def test_a_session_that_ends_inside_a_write_undoes_all_that_share_it(database):
    gate = Gate()
    first = await gate.hold(database)
    mate = asyncio.create_task(database.write(put("mate")))
    await asyncio.sleep(0)
    os.kill(get_backend(database), signal.SIGTERM)
    gate.opened.set()
    results = await asyncio.gather(first, mate, return_exceptions=True)
    assert isinstance(results[0], TransientError)
    # the second came with the next batch, or shared the lost one: told what is true either way
    stored = await count(database)
    assert stored == (0 if isinstance(results[1], TransientError) else 1)
    await database.write(put("next"))
    assert await count(database) == stored + 1


class CuttingProxy:
    """Between a database and its server; loses the server's word once `COMMIT` has passed."""

    def __init__(self, port: int, forwards_commit: bool) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.armed = threading.Event()
        self._server_port, self._forwards_commit = port, forwards_commit
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            cut = threading.Event()
            for source, sink, watched in ((caller, server, True), (server, caller, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, watched, cut), daemon=True
                ).start()

    def _pump(self, source, sink, watched, cut) -> None:
        try:
            while data := source.recv(65_536):
                if watched and self.armed.is_set() and b"COMMIT\0" in data:
                    self.armed.clear()
                    cut.set()
                    if self._forwards_commit:
                        sink.sendall(data)
                    source.shutdown(socket.SHUT_RDWR)
                    continue
                if not watched and cut.is_set():
                    continue  # the server's answer is lost
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("forwards_commit", [True, False])
async def test_a_connection_that_breaks_under_a_commit_tells_what_happened(
    postgres_server, url, forwards_commit
):
    proxy = CuttingProxy(postgres_server.port, forwards_commit)
    through = url.replace(f":{postgres_server.port}/", f":{proxy.port}/") + "?sslmode=disable"
    database = await open_postgres(through, outcome_wait_s=10)
    await database.migrate("test", TABLES)
    proxy.armed.set()
    result = (await asyncio.gather(database.write(put("doubtful")), return_exceptions=True))[0]
    assert not proxy.armed.is_set(), "the connection was not cut"
    if forwards_commit:
        assert result == 1
    else:
        assert isinstance(result, TransientError)
        assert "undid it" in result.message
    assert await count(database) == int(forwards_commit)
    await database.close()
    proxy.listener.close()


async def test_a_commit_that_nobody_can_tell_of_says_so():
    with PostgresServer() as server:
        proxy = CuttingProxy(server.port, forwards_commit=True)
        url = server.create_database().replace(f":{server.port}/", f":{proxy.port}/")
        database = await open_postgres(url + "?sslmode=disable", outcome_wait_s=0.5)
        await database.migrate("test", TABLES)
        proxy.armed.set()
        proxy.listener.shutdown(socket.SHUT_RDWR)  # and nobody answers from now on
        proxy.listener.close()
        with pytest.raises(TransientError, match="nobody could say whether it happened"):
            await database.write(put("doubtful"))
        await database.close()


async def test_a_process_that_stalls_inside_a_write_loses_its_turn(database, url):
    """The server ends the stalled session; until then the other waits no longer than its limit."""
    stalled = await open_database(url)
    await stalled.write(lambda tx: None)
    backend = get_backend(stalled)
    gate = Gate()
    holding = await gate.hold(stalled)
    waiting = asyncio.create_task(database.write(put("waits")))
    await asyncio.sleep(0)
    os.kill(backend, signal.SIGTERM)  # what `idle_in_transaction_session_timeout` does after 10 s
    async with asyncio.timeout(10):
        assert await waiting == 1
    gate.opened.set()
    with pytest.raises(TransientError):
        await holding
    await stalled.close()


async def test_time_limits_and_durability_stand_on_every_connection(database):
    def read(tx):
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        return [tx.find_one("SELECT current_setting(?)", (name,))[0] for name in names] + [
            tx.find_one("SELECT current_setting('synchronous_commit')")[0]
        ]

    assert await database.write(read) == ["1min", "15s", "10s", "on"]
    assert await database.read(read) == ["1min", "15s", "10s", "on"]


async def test_a_statement_that_takes_too_long_is_transient_and_undone(database):
    def slow(tx):
        put("slow")(tx)
        tx.execute("SET LOCAL statement_timeout = '20ms'")
        tx.execute("SELECT pg_sleep(5)")

    slowly, after = await asyncio.gather(
        database.write(slow), database.write(put("after")), return_exceptions=True
    )
    assert isinstance(slowly, TransientError)
    assert after == 1
    assert await count(database) == 1


async def test_a_turn_that_never_comes_is_transient(database, url):
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({WRITE_LOCK_KEY})")
        database._link.connect().execute("SET lock_timeout = '50ms'")
        with pytest.raises(TransientError, match="lock timeout"):
            await database.write(put("waits"))
        other.execute(f"SELECT pg_advisory_unlock({WRITE_LOCK_KEY})")
    await database.write(put("after"))
    assert await count(database) == 1


async def test_full_disk_is_transient_nothing_happened_and_it_heals():
    """A server that may write no file above 17 MB, which leaves room for the log's segments."""
    with PostgresServer(file_bytes_max=17 * 1024 * 1024) as server:
        database = await open_postgres(server.create_database())
        await database.migrate("test", TABLES)
        await database.write(put("before"))
        noise = random.Random(1)
        large, small = await asyncio.gather(
            database.write(
                lambda tx: [put(str(i), noise.randbytes(500_000).hex())(tx) for i in range(40)]
            ),
            database.write(put("small")),
            return_exceptions=True,
        )
        assert isinstance(large, TransientError)
        assert small == 1
        assert await count(database) == 2
        server.file_bytes_max = None
        server.stop()
        server.start()
        await database.write(put("fits", noise.randbytes(500_000).hex()))
        assert await count(database) == 3
        await database.close()


async def test_the_password_is_in_no_text(postgres_server, url, caplog):
    caplog.set_level("DEBUG")
    password = postgres_server.password
    texts = []
    wrong = url.replace(password, "wrong-" + password)
    for broken in (
        wrong,
        url.replace("/test_", "/absent_"),
        url.replace(f":{postgres_server.port}", ":1"),
        url.replace(f"{password}@", f"{password}%zz@"),  # not decodable
        url + "?nonsense=" + password,
    ):
        with pytest.raises((TransientError, RequestError)) as refused:
            await open_database(broken)
        texts += [refused.value.message, "".join(traceback.format_exception(refused.value))]
    database = await open_postgres(url)
    texts += [repr(database), repr(vars(database)), repr(database._link._target)]
    await database.close()
    texts += [get_database_name(url), caplog.text]
    assert [text for text in texts if password in text] == []
    assert get_database_name(url).startswith(f"postgresql://hanse@127.0.0.1:{postgres_server.port}")
    assert has_password(url)
    assert has_password("postgres://host/name?password=x")
    assert not has_password("postgresql://hanse@host/name")


async def test_a_setting_that_names_no_store_says_what_would():
    with pytest.raises(RequestError, match="use postgresql://, sqlite:/// or a path"):
        await open_database("mysql://root@host/db")


@pytest.mark.parametrize(
    ("written", "native"),
    [
        ("SELECT ? , ?", "SELECT $1 , $2"),
        ("SELECT '?', \"a?\", ? -- ?\n, ? /* ? */", "SELECT '?', \"a?\", $1 -- ?\n, $2 /* ? */"),
        ("SELECT 'it''s ?' || ?", "SELECT 'it''s ?' || $1"),
        ("SELECT '%s' WHERE a LIKE '%' AND b = ?", "SELECT '%s' WHERE a LIKE '%' AND b = $1"),
    ],
)
def test_placeholders_outside_of_literals_are_numbered(written, native):
    assert to_native(written) == native


def test_column_types_hold_what_sqlite_holds():
    script = "CREATE TABLE a (n INTEGER PRIMARY KEY, b BLOB NOT NULL, t TEXT, texture INTEGERS)"
    assert to_native_types(script) == (
        'CREATE TABLE a (n BIGINT PRIMARY KEY, b BYTEA NOT NULL, t TEXT COLLATE "C", '
        "texture INTEGERS)"
    )
