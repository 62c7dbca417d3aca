"""Moves that were decided, durable before anything is sent.

A move is stored as open, with all its amounts, and then submitted under the idempotency key that
its number gives. Whoever finds it open after a crash submits it again under the same key: the
outbox sends one transaction, whether it knew of it before or not. Only when its end is known is the
next one decided.
"""

from typing import NamedTuple

import msgspec

from hanse.sdk.upkeep.rules import DAY_S, Move
from hanse.store import Database, Transaction

_MIGRATIONS = (
    """
    CREATE TABLE upkeep_moves (
        number INTEGER PRIMARY KEY,
        document TEXT NOT NULL,
        funded TEXT NOT NULL,
        decided_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        said TEXT NOT NULL
    )
    """,
)
_COUNTED_MAX = 10_000
"""Moves of a day that are added up; at one transaction at a time there are far fewer."""


class StoredMove(NamedTuple):
    """A move with its number."""

    number: int
    move: Move

    @property
    def key(self) -> str:
        """Of the outbox: the same for every try."""
        return f"upkeep-{self.number}"


class MoveBook:
    """The moves of one user. Open it with `open_move_book`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_open(self) -> StoredMove | None:
        """The move whose end is not known."""
        row = await self._database.read(
            lambda tx: tx.find_one(
                "SELECT number, document FROM upkeep_moves WHERE state = 'open' ORDER BY number"
            )
        )
        return None if row is None else StoredMove(row[0], _read(row[1]))

    async def decide(self, move: Move, now_s: float) -> StoredMove:
        """Store a move that is about to be submitted."""
        document = msgspec.json.encode(move.to_document()).decode()

        def write(tx: Transaction) -> StoredMove:
            row = tx.find_one("SELECT max(number) FROM upkeep_moves")
            number = int(row[0] or 0) + 1 if row else 1
            tx.execute(
                "INSERT INTO upkeep_moves (number, document, funded, decided_at, state, said) "
                "VALUES (?, ?, ?, ?, 'open', '')",
                (number, document, str(move.funded), int(now_s)),
            )
            return StoredMove(number, move)

        return await self._database.write(write)

    async def end(self, number: int, state: str, said: str = "") -> None:
        """Its end is known: `done` or `failed`, and why."""
        await self._database.write(
            lambda tx: tx.execute(
                "UPDATE upkeep_moves SET state = ?, said = ? WHERE number = ?",
                (state, said[:300], number),
            )
        )

    async def sum_funded(self, now_s: float) -> int:
        """What went into sub-accounts within the last 24 hours, or may have."""
        rows = await self._database.read(
            lambda tx: tx.find_all(
                "SELECT funded FROM upkeep_moves WHERE state <> 'failed' AND decided_at > ? "
                "ORDER BY number DESC LIMIT ?",
                (int(now_s) - DAY_S, _COUNTED_MAX),
            )
        )
        return sum(int(row[0]) for row in rows)


async def open_move_book(database: Database) -> MoveBook:
    """The moves of this database; its table is made if it is not there."""
    await database.migrate("upkeep_moves", _MIGRATIONS)
    return MoveBook(database)


def _read(document: str) -> Move:
    found = msgspec.json.decode(document)
    funds = {provider: int(amount) for provider, amount in found["funds"].items()}
    return Move(found["kind"], int(found["amount"]), funds)
