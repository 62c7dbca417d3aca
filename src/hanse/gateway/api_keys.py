"""API keys that this gateway issues to applications.

A key is `hgw_` and 32 random bytes in base64url. Only its SHA-256 is stored: 256 random bits need
no slow hash, and a copy of the database lets nobody in. The text is shown once, by `create`.

Checking is one hash and one lookup by digest in memory. A lookup's timing tells at most something
about the digest of what the attacker sent, from which no key can be approached; the final
comparison is constant-time all the same.

Another process (the command line) may create and revoke keys in the same database. The running
gateway sees it within `refresh_s`, and at once when an unknown key is shown, at most once per
`refresh_s`.
"""

import asyncio
import hashlib
import hmac
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from hanse.gateway.settings import KEY_NAME_CHARS_MAX, KEYS_MAX
from hanse.protocol.errors import RequestError
from hanse.store import Database, Transaction

KEY_PREFIX = "hgw_"
KEY_BYTES = 32
KEY_CHARS = len(KEY_PREFIX) + 43

_ID_BYTES = 6
_MIGRATIONS = (
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
)


class ApiKey(msgspec.Struct, frozen=True):
    """One issued key, without its text.

    Attributes:
        id: short public handle, for `revoke` and the access log.
        name: label that its creator gave.
        created_at: unix seconds.
        revoked_at: unix seconds, None while it works.
    """

    id: str
    name: str
    created_at: int
    revoked_at: int | None


_Keys = list[ApiKey]
_Rows = list[tuple[Any, ...]]


class ApiKeys:
    """The keys of one database, those that work held in memory. Open it with `open_api_keys`."""

    def __init__(
        self, database: Database, now_s: Callable[[], float], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._now_s = now_s
        self._random_bytes = random_bytes
        self._by_digest: dict[bytes, ApiKey] = {}
        self._digests: dict[str, bytes] = {}
        self._revision = -1
        self._refreshed_at = float("-inf")
        self._refreshing = asyncio.Lock()

    async def create(self, name: str) -> tuple[ApiKey, str]:
        """Issue a key; its text is returned here and nowhere ever again.

        Raises:
            RequestError: `invalid_request` if the name does not fit or there are too many keys.
        """
        if not 0 < len(name) <= KEY_NAME_CHARS_MAX or not name.isprintable():
            raise RequestError(
                "invalid_request",
                f"a key's name has 1 .. {KEY_NAME_CHARS_MAX} printable characters, not {len(name)}",
                param="name",
            )
        text = KEY_PREFIX + urlsafe_b64encode(self._random_bytes(KEY_BYTES)).decode().rstrip("=")
        key = ApiKey(self._random_bytes(_ID_BYTES).hex(), name, int(self._now_s()), None)
        digest = hashlib.sha256(text.encode()).hexdigest()

        def insert(tx: Transaction) -> None:
            row = tx.find_one("SELECT count(*) FROM gateway_api_keys WHERE revoked_at IS NULL")
            if row is not None and row[0] >= KEYS_MAX:
                raise RequestError(
                    "invalid_request", f"there are {row[0]} keys, at most {KEYS_MAX}"
                )
            tx.execute(
                "INSERT INTO gateway_api_keys (id, digest, name, created_at) VALUES (?, ?, ?, ?)",
                (key.id, digest, key.name, key.created_at),
            )
            _bump(tx)

        await self._database.write(insert)
        await self.refresh()
        return key, text

    async def list(self) -> _Keys:
        """Every key ever issued, oldest first, revoked ones included."""
        rows = await self._database.read(
            lambda tx: tx.find_all(
                "SELECT id, name, created_at, revoked_at FROM gateway_api_keys "
                "ORDER BY created_at, id LIMIT ?",
                (2 * KEYS_MAX,),
            )
        )
        return [ApiKey(*row) for row in rows]

    async def revoke(self, key_id: str) -> ApiKey:
        """Make a key stop working; revoking twice changes nothing.

        Raises:
            RequestError: `not_found` if no key has this id.
        """
        now_s = int(self._now_s())

        def update(tx: Transaction) -> ApiKey:
            tx.execute(
                "UPDATE gateway_api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
                (now_s, key_id),
            )
            row = tx.find_one(
                "SELECT id, name, created_at, revoked_at FROM gateway_api_keys WHERE id = ?",
                (key_id,),
            )
            if row is None:
                raise RequestError("not_found", f"no API key has the id {key_id!r:.40}", param="id")
            _bump(tx)
            return ApiKey(*row)

        key = await self._database.write(update)
        await self.refresh()
        return key

    def find(self, text: str) -> ApiKey | None:
        """The key with this text, if it works. Memory only."""
        if len(text) != KEY_CHARS or not text.isascii():
            return None
        digest = hashlib.sha256(text.encode()).digest()
        found = self._by_digest.get(digest)
        if found is None:
            return None
        kept = self._digests[found.id]
        return found if hmac.compare_digest(kept, digest) else None

    async def refresh(self, *, at_most_every_s: float = 0.0) -> None:
        """Read the keys again if another process changed them since."""
        if self._now_s() - self._refreshed_at < at_most_every_s:
            return
        async with self._refreshing:
            if self._now_s() - self._refreshed_at < at_most_every_s:
                return
            self._refreshed_at = self._now_s()
            revision, rows = await self._database.read(self._read)
            if rows is None:
                return
            self._by_digest = {bytes.fromhex(row[4]): ApiKey(*row[:4]) for row in rows}
            self._digests = {row[0]: bytes.fromhex(row[4]) for row in rows}
            self._revision = revision

    def _read(self, tx: Transaction) -> tuple[int, _Rows | None]:
        row = tx.find_one("SELECT revision FROM gateway_api_keys_revision WHERE one = 1")
        revision = int(row[0]) if row else 0
        if revision == self._revision:
            return revision, None
        rows = tx.find_all(
            "SELECT id, name, created_at, revoked_at, digest FROM gateway_api_keys "
            "WHERE revoked_at IS NULL LIMIT ?",
            (KEYS_MAX,),
        )
        return revision, rows


async def open_api_keys(
    database: Database,
    now_s: Callable[[], float],
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> ApiKeys:
    """The keys of this database, read into memory; its tables are made if they are not there."""
    await database.migrate("gateway_api_keys", _MIGRATIONS)
    keys = ApiKeys(database, now_s, random_bytes)
    await keys.refresh()
    return keys


def _bump(tx: Transaction) -> None:
    tx.execute("UPDATE gateway_api_keys_revision SET revision = revision + 1 WHERE one = 1")
