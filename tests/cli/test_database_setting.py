"""`--database` and HANSE_DATABASE: books in PostgreSQL, each in a schema, no password shown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hanse.store import open_database, with_schema

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(postgres_server) -> str:
    return postgres_server.create_database()


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HANSE_")}
    return subprocess.run(
        [sys.executable, "-m", "hanse.cli", *arguments, "--home", str(home)],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_books_of_one_home_share_a_database_by_schemas(tmp_path, url):
    made = run(tmp_path, "gateway", "keys", "create", "app", "--json", HANSE_DATABASE=url)
    assert made.returncode == 0, made.stderr
    listed = run(tmp_path, "gateway", "keys", "list", "--json", HANSE_DATABASE=url)
    (key,) = json.loads(listed.stdout)["keys"]
    assert key["name"] == "app"
    assert not list(tmp_path.glob("*.db"))
    elsewhere = run(tmp_path, "gateway", "keys", "list", "--json")
    assert json.loads(elsewhere.stdout)["keys"] == []


def test_a_password_on_the_command_line_is_refused_and_not_repeated(tmp_path, postgres_server, url):
    for command in (("provider", "start"), ("gateway", "start"), ("recorder", "start")):
        refused = run(tmp_path, *command, "--database", url)
        assert refused.returncode != 0
        assert "everyone on this machine could read" in refused.stderr
        assert postgres_server.password not in refused.stdout + refused.stderr


def test_a_database_that_cannot_be_reached_says_so_without_its_password(tmp_path, postgres_server):
    away = f"postgresql://hanse:{postgres_server.password}@127.0.0.1:1/nowhere"
    refused = run(tmp_path, "gateway", "keys", "list", HANSE_DATABASE=away)
    assert refused.returncode != 0
    assert "cannot reach postgresql://hanse@127.0.0.1:1/nowhere?schema=gateway" in refused.stderr
    assert postgres_server.password not in refused.stdout + refused.stderr


async def test_schemas_of_one_database_know_nothing_of_one_another(url):
    first, second = [await open_database(with_schema(url, name)) for name in ("a-1.x", "b")]
    for database, value in ((first, "1"), (second, "2")):
        await database.migrate("test", ["CREATE TABLE facts (name TEXT PRIMARY KEY)"])
        await database.write(lambda tx, v=value: tx.execute("INSERT INTO facts VALUES (?)", (v,)))
    for database, value in ((first, "1"), (second, "2")):
        assert await database.read(lambda tx: tx.find_all("SELECT name FROM facts")) == [(value,)]
        await database.close()
    assert with_schema(f"{url}?schema=mine", "other") == f"{url}?schema=mine"
    assert with_schema(f"{url}?sslmode=disable", "b").endswith("?sslmode=disable&schema=b")
    assert with_schema("plain/path", "b") == "plain/path"
