"""The tables of API keys, and how a row becomes a key.

Step 1 is what gateways had before keys had scopes: their keys go on, and may do everything.
"""

from typing import Any

import msgspec

from hanse.gateway.keys.records import ANYTHING, ApiKey, KeyTerms
from hanse.protocol.errors import RequestError
from hanse.store import Transaction

MIGRATIONS = (
    """
    CREATE TABLE gateway_api_keys (
        id TEXT PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        revoked_at INTEGER
    );
    CREATE TABLE gateway_api_keys_revision (one INTEGER PRIMARY KEY, revision INTEGER NOT NULL);
    INSERT INTO gateway_api_keys_revision (one, revision) VALUES (1, 0)
    """,
    """
    ALTER TABLE gateway_api_keys ADD COLUMN expires_at INTEGER;
    ALTER TABLE gateway_api_keys ADD COLUMN parent TEXT NOT NULL DEFAULT '';
    ALTER TABLE gateway_api_keys ADD COLUMN terms TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE gateway_api_keys ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX gateway_api_keys_by_revision ON gateway_api_keys (revision);
    CREATE INDEX gateway_api_keys_by_parent ON gateway_api_keys (parent, expires_at)
    """,
)

ENDED_KEPT_S = 86_400
"""Minted keys stay listed so long after their end."""

_INSERT = (
    "INSERT INTO gateway_api_keys "
    "(id, digest, name, created_at, expires_at, parent, terms, revision) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_DELETE_ENDED = (
    "DELETE FROM gateway_api_keys WHERE id IN (SELECT id FROM gateway_api_keys "
    "WHERE parent <> '' AND expires_at < ? LIMIT 16)"
)
"""Minted keys that ended long ago, a few with each that is minted: more than are added."""

_decode_terms = msgspec.json.Decoder(KeyTerms).decode


def read_key(row: tuple[Any, ...]) -> ApiKey:
    """A row of id, name, created_at, revoked_at, expires_at, parent, terms; more may follow."""
    terms = ANYTHING if row[6] == "{}" else _decode_terms(row[6])
    key_id, name, created_at, revoked_at, expires_at, parent = row[:6]
    return ApiKey(key_id, name, created_at, revoked_at, expires_at, parent, terms)


def find_key(tx: Transaction, key_id: str) -> ApiKey:
    """The key with this id.

    Raises:
        RequestError: `not_found`.
    """
    row = tx.find_one(
        "SELECT id, name, created_at, revoked_at, expires_at, parent, terms "
        "FROM gateway_api_keys WHERE id = ?",
        (key_id,),
    )
    if row is None:
        raise RequestError("not_found", f"no API key has the id {key_id!r:.40}", param="id")
    return read_key(row)


def take_revision(tx: Transaction) -> int:
    """The next number of a change; writers take turns, so numbers are in the order of commits."""
    tx.execute("UPDATE gateway_api_keys_revision SET revision = revision + 1 WHERE one = 1")
    row = tx.find_one("SELECT revision FROM gateway_api_keys_revision WHERE one = 1")
    assert row is not None  # made with the table
    return int(row[0])


def get_end(now_s: int, ttl_s: int | None, parent: ApiKey | None) -> int | None:
    """When a new key ends: at its time or with its parent, whichever is first."""
    ends = [now_s + ttl_s] if ttl_s is not None else []
    if parent is not None and parent.expires_at is not None:
        ends.append(parent.expires_at)
    return min(ends, default=None)


def insert_key(tx: Transaction, key: ApiKey, digest: bytes, now_s: int) -> None:
    """Add a key; a minted one only while its parent works, and only of a parent that nobody minted.

    Keys are two deep, so whatever is counted for a child is counted for all that stand above it.

    Raises:
        RequestError: `api_key_invalid`, `permission_denied`.
    """
    if key.parent:
        parent = find_key(tx, key.parent)
        if parent.parent:
            raise RequestError("permission_denied", "a minted API key may not mint others")
        if parent.revoked_at is not None or (parent.expires_at or now_s + 1) <= now_s:
            raise RequestError("api_key_invalid", "the API key that mints was revoked or expired")
        tx.execute(_DELETE_ENDED, (now_s - ENDED_KEPT_S,))
    terms = msgspec.json.encode(key.terms).decode()
    tx.execute(
        _INSERT,
        (
            key.id,
            digest.hex(),
            key.name,
            key.created_at,
            key.expires_at,
            key.parent,
            terms,
            take_revision(tx),
        ),
    )
