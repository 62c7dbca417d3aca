"""Since when something has been waiting for a settlement, and when the last one was; durable.

Without it a broker that restarts twice a day would never come to the end of a day's wait. It is a
memory of the clock only: what is owed and what was paid never depends on it.

    storage = await open_round_storage(database, provider)
    times = await storage.read()
"""

from dataclasses import dataclass
from typing import Protocol

from hanse.protocol.signatures import Address
from hanse.store.database import Database

_COMPONENT = "settlement_rounds"
_STEPS = (
    """
    CREATE TABLE settlement_rounds (
        provider TEXT PRIMARY KEY,
        waiting_since_s BIGINT NOT NULL,
        last_settled_s BIGINT NOT NULL
    )
    """,
)


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """Unix seconds by the chain's clock.

    Attributes:
        waiting_since_s: since when something could be claimed; 0 if nothing can.
        last_settled_s: when a settlement was last planned and confirmed; 0 if never.
    """

    waiting_since_s: int = 0
    last_settled_s: int = 0


class RoundStorage(Protocol):
    """Keeps the times of one provider."""

    async def read(self) -> RoundTimes:
        """As last put; zeros at first."""
        ...

    async def put(self, times: RoundTimes) -> None:
        """Durable on return."""
        ...


class MemoryRoundStorage:
    """`RoundStorage` for tests and simulations."""

    def __init__(self) -> None:
        self._times = RoundTimes()

    async def read(self) -> RoundTimes:
        """See `RoundStorage`."""
        return self._times

    async def put(self, times: RoundTimes) -> None:
        """See `RoundStorage`."""
        self._times = times


class DatabaseRoundStorage:
    """`RoundStorage` over a `Database`. Open it with `open_round_storage`."""

    def __init__(self, database: Database, provider: Address) -> None:
        self._database = database
        self._provider = provider

    async def read(self) -> RoundTimes:
        """See `RoundStorage`."""
        row = await self._database.read(
            lambda tx: tx.find_one(
                "SELECT waiting_since_s, last_settled_s FROM settlement_rounds WHERE provider = ?",
                (self._provider,),
            )
        )
        return RoundTimes(*row) if row else RoundTimes()

    async def put(self, times: RoundTimes) -> None:
        """See `RoundStorage`."""
        row = (self._provider, times.waiting_since_s, times.last_settled_s)
        await self._database.write(
            lambda tx: tx.execute(
                "INSERT INTO settlement_rounds (provider, waiting_since_s, last_settled_s) "
                "VALUES (?, ?, ?) ON CONFLICT (provider) DO UPDATE SET "
                "waiting_since_s = excluded.waiting_since_s, "
                "last_settled_s = excluded.last_settled_s",
                row,
            )
        )


async def open_round_storage(database: Database, provider: Address) -> DatabaseRoundStorage:
    """Bring the table up to date."""
    await database.migrate(_COMPONENT, _STEPS)
    return DatabaseRoundStorage(database, provider)
