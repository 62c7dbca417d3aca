"""API keys as they are kept: issued, found, changed, revoked.

A key is `hgw_` and 32 random bytes in base64url. Only its SHA-256 is stored: 256 random bits need
no slow hash, and a copy of the database lets nobody in. The text is shown once, by `create`.

Checking is one hash and one lookup by digest in memory. A lookup's timing tells at most something
about the digest of what the attacker sent, from which no key can be approached; the final
comparison is constant-time all the same.

Other processes (the command line, other gateways) may create and revoke keys in the same database.
Every change takes the next revision, so a look reads only what changed: at each `refresh`, and
when an unknown key is shown, at most once in `LOOK_S`.
"""

import asyncio
import hashlib
import heapq
import hmac
import os
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from hanse.gateway.keys.records import ANYTHING, ApiKey, KeyTerms
from hanse.gateway.keys.tables import (
    MIGRATIONS,
    find_key,
    get_end,
    insert_key,
    read_key,
    take_revision,
)
from hanse.gateway.settings import KEY_NAME_CHARS_MAX, KEYS_MAX
from hanse.protocol.errors import RequestError
from hanse.store import Database, Transaction

KEY_PREFIX = "hgw_"
KEY_BYTES = 32
KEY_CHARS = len(KEY_PREFIX) + 43

LOOK_S = 0.1
"""Between looks into the database for keys that are unknown here: strangers cannot make it work
harder than this, and a key that another gateway has just minted works after it."""

CHILDREN_MAX = 10_000
"""Minted keys of one parent that work at once: a leaked one cannot take the room of all others."""

_ID_BYTES = 6

_Rows = list[tuple[Any, ...]]


class ApiKeys:
    """The keys of one database, those that work held in memory. Open it with `open_api_keys`."""

    def __init__(
        self,
        database: Database,
        now_s: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        children_max: int = CHILDREN_MAX,
    ) -> None:
        self._database = database
        self._now_s = now_s
        self._random_bytes = random_bytes
        self._children_max = children_max
        self._by_digest: dict[bytes, ApiKey] = {}
        self._digests: dict[str, bytes] = {}
        self._children: Counter[str] = Counter()
        self._ends: list[tuple[int, str]] = []  # a heap: when keys end by themselves
        self._revision = -1
        self._refreshed_at = float("-inf")
        self._refreshing = asyncio.Lock()

    async def create(
        self,
        name: str,
        terms: KeyTerms = ANYTHING,
        *,
        ttl_s: int | None = None,
        parent: ApiKey | None = None,
    ) -> tuple[ApiKey, str]:
        """Issue a key; its text is returned here and nowhere ever again.

        Args:
            name: label for people.
            terms: what it may do.
            ttl_s: how long it works; None for until it is revoked.
            parent: who mints it; the child ends with it.

        Raises:
            RequestError: `invalid_request` if the name does not fit or there are too many keys;
                `rate_limited` if the parent has too many children; `permission_denied` if it was
                minted itself; `api_key_invalid` if it does not work any more.
        """
        if not 0 < len(name) <= KEY_NAME_CHARS_MAX or not name.isprintable():
            raise RequestError(
                "invalid_request",
                f"a key's name has 1 .. {KEY_NAME_CHARS_MAX} printable characters, not {len(name)}",
                param="name",
            )
        if len(self._by_digest) >= KEYS_MAX:
            raise RequestError(
                "invalid_request", f"there are {len(self._by_digest)} keys, at most {KEYS_MAX}"
            )
        if parent is not None and self._children[parent.id] >= self._children_max:
            raise RequestError(
                "rate_limited",
                f"{self._children_max} keys that this one has minted still work, as many as may: "
                "wait for some to end, or give them less time",
            )
        text = KEY_PREFIX + urlsafe_b64encode(self._random_bytes(KEY_BYTES)).decode().rstrip("=")
        now_s = int(self._now_s())
        key = ApiKey(
            id=self._random_bytes(_ID_BYTES).hex(),
            name=name,
            created_at=now_s,
            revoked_at=None,
            expires_at=get_end(now_s, ttl_s, parent),
            parent=parent.id if parent else "",
            terms=terms,
        )
        digest = hashlib.sha256(text.encode()).digest()
        await self._database.write(lambda tx: insert_key(tx, key, digest, now_s))
        await self.refresh()
        return key, text

    async def list(self) -> list[ApiKey]:
        """Every key, oldest first, revoked ones included; minted ones for a day after their end."""
        rows = await self._database.read(
            lambda tx: tx.find_all(
                "SELECT id, name, created_at, revoked_at, expires_at, parent, terms "
                "FROM gateway_api_keys ORDER BY created_at, id LIMIT ?",
                (2 * KEYS_MAX,),
            )
        )
        return [read_key(row) for row in rows]

    async def revoke(self, key_id: str) -> ApiKey:
        """Make a key and its children stop working; revoking twice changes nothing.

        Raises:
            RequestError: `not_found` if no key has this id.
        """
        now_s = int(self._now_s())

        def update(tx: Transaction) -> ApiKey:
            find_key(tx, key_id)
            tx.execute(
                "UPDATE gateway_api_keys SET revoked_at = ?, revision = ? "
                "WHERE (id = ? OR parent = ?) AND revoked_at IS NULL",
                (now_s, take_revision(tx), key_id, key_id),
            )
            return find_key(tx, key_id)

        key = await self._database.write(update)
        await self.refresh()
        return key

    async def change(self, key_id: str, change: Callable[[KeyTerms], KeyTerms]) -> ApiKey:
        """Give a key other terms; a running gateway follows. `change` is run in the transaction.

        Raises:
            RequestError: `not_found` if no key has this id.
        """

        def update(tx: Transaction) -> ApiKey:
            terms = change(find_key(tx, key_id).terms)
            tx.execute(
                "UPDATE gateway_api_keys SET terms = ?, revision = ? WHERE id = ?",
                (msgspec.json.encode(terms).decode(), take_revision(tx), key_id),
            )
            return find_key(tx, key_id)

        key = await self._database.write(update)
        await self.refresh()
        return key

    def find(self, text: str) -> ApiKey | None:
        """The key with this text, if it works. Memory only."""
        if len(text) != KEY_CHARS or not text.isascii():
            return None
        digest = hashlib.sha256(text.encode()).digest()
        found = self._by_digest.get(digest)
        if found is None or not hmac.compare_digest(self._digests[found.id], digest):
            return None
        if found.expires_at is not None and found.expires_at <= self._now_s():
            return None
        return found

    def find_by_id(self, key_id: str) -> ApiKey | None:
        """The key with this id, unless it was revoked. Memory only."""
        digest = self._digests.get(key_id)
        return None if digest is None else self._by_digest[digest]

    def list_working(self) -> tuple[ApiKey, ...]:
        """Every key that was not revoked. Memory only."""
        return tuple(self._by_digest.values())

    async def find_new(self, text: str) -> ApiKey | None:
        """The same of a key that is unknown here, after a look at what others issued."""
        if len(text) != KEY_CHARS or not text.isascii():
            return None
        await self._look_together()
        return self.find(text)

    async def refresh(self) -> None:
        """Take in what other processes changed."""
        async with self._refreshing:
            await self._look()

    async def _look_together(self) -> None:
        """The same, `LOOK_S` after the look before; all who wait share one."""
        asked_at = self._now_s()
        async with self._refreshing:
            if self._refreshed_at > asked_at:
                return
            rest_s = self._refreshed_at + LOOK_S - self._now_s()
            if rest_s > 0:
                await asyncio.sleep(min(rest_s, LOOK_S))
            await self._look()

    async def _look(self) -> None:
        self._refreshed_at = self._now_s()
        revision, rows = await self._database.read(self._read)
        for row in rows:
            self._take(read_key(row), bytes.fromhex(row[-1]))
        self._revision = revision
        self._drop_ended()

    def _read(self, tx: Transaction) -> tuple[int, _Rows]:
        """What changed; never what is over, and first of all no revoked ones: nobody knows them."""
        row = tx.find_one("SELECT revision FROM gateway_api_keys_revision WHERE one = 1")
        revision = int(row[0]) if row else 0
        if revision == self._revision:
            return revision, []
        rows = tx.find_all(
            "SELECT id, name, created_at, revoked_at, expires_at, parent, terms, digest "
            "FROM gateway_api_keys WHERE revision > ? AND (expires_at IS NULL OR expires_at > ?) "
            "AND (revoked_at IS NULL OR ? >= 0) ORDER BY revision LIMIT ?",
            (self._revision, int(self._now_s()), self._revision, 2 * KEYS_MAX),
        )
        return revision, rows

    def _take(self, key: ApiKey, digest: bytes) -> None:
        is_known = key.id in self._digests
        if key.revoked_at is not None:
            if is_known:
                self._drop(key.id)
            return
        if key.expires_at is not None and not is_known:
            heapq.heappush(self._ends, (key.expires_at, key.id))
        if key.parent and not is_known:
            self._children[key.parent] += 1
        self._by_digest[digest] = key
        self._digests[key.id] = digest

    def _drop_ended(self) -> None:
        now_s = self._now_s()
        while self._ends and self._ends[0][0] <= now_s:
            key_id = heapq.heappop(self._ends)[1]
            if key_id in self._digests:
                self._drop(key_id)

    def _drop(self, key_id: str) -> None:
        key = self._by_digest.pop(self._digests.pop(key_id))
        if key.parent:
            self._children[key.parent] -= 1
            if not self._children[key.parent]:
                del self._children[key.parent]


async def open_api_keys(
    database: Database,
    now_s: Callable[[], float],
    random_bytes: Callable[[int], bytes] = os.urandom,
    children_max: int = CHILDREN_MAX,
) -> ApiKeys:
    """The keys of this database, read into memory; its tables are made if they are not there."""
    await database.migrate("gateway_api_keys", MIGRATIONS)
    keys = ApiKeys(database, now_s, random_bytes, children_max)
    await keys.refresh()
    return keys
