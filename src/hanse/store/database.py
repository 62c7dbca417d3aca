"""The interface that every store fulfils.

A write is a function over a transaction. The store runs it, alone in a savepoint of its own, inside
a transaction that it may share with other writes waiting at the same time (group commit), and
returns the function's result only once that transaction is durable. A function that raises undoes
its own statements and no one else's. A write that is only begun gives its result before that, so
that its commit may be shared with what follows from it; nobody outside may see anything of it until
`Begun.commit` has returned.

SQL is the common subset of SQLite and PostgreSQL, with `?` placeholders. Columns are TEXT, INTEGER
(64 bits) or BLOB, on both. Amounts are stored as text: both engines' integers end at 63 bits,
amounts at 96.

Every process that holds a database writes in turn: a write function sees all that was committed
before it, by whomever, and is run once. It may therefore sign, count and decide inside; it must not
catch an error of a statement and go on, since PostgreSQL ends its savepoint with it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from hanse.protocol.errors import TransientError

ResultT = TypeVar("ResultT")
Row = tuple[Any, ...]

INTEGER_MAX = 2**63 - 1
"""What an INTEGER column holds; the chain's sequences go on to 2^64, no book has as many."""


class Transaction(Protocol):
    """What a write or read function is given."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; returns how many rows it changed."""
        ...

    def find_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row, or None."""
        ...

    def find_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows; the statement bounds them with LIMIT where they can grow."""
        ...


class OpenCommit(Protocol):
    """A commit that is still to come.

    Attributes:
        is_open: it has neither happened nor failed.
        error: why it failed; None if it did not.
    """

    is_open: bool
    error: TransientError | None

    async def wait(self) -> None:
        """See `Begun.commit`."""
        ...


class Begun(msgspec.Struct, Generic[ResultT]):
    """A write that has run, and is durable at the latest some milliseconds later.

    Attributes:
        result: what its function returned.
        open_commit: what makes it durable; None once it is.
    """

    result: ResultT
    open_commit: OpenCommit | None = None

    @property
    def is_durable(self) -> bool:
        """Whether its commit has happened."""
        to_come = self.open_commit
        return to_come is None or not (to_come.is_open or to_come.error)

    @property
    def is_lost(self) -> bool:
        """Whether the commit has failed: nothing of it happened."""
        return self.open_commit is not None and self.open_commit.error is not None

    async def commit(self) -> None:
        """Return once it is durable; at once if it is.

        Raises:
            TransientError: `store_unavailable` if the commit failed: nothing of it happened.
        """
        if self.open_commit is not None:
            await self.open_commit.wait()
            self.open_commit = None


class Database(Protocol):
    """A store that is open."""

    async def write(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """Run `function` and return its result after the commit.

        Raises:
            whatever `function` raises, its own statements undone;
            TransientError: `store_unavailable` if the commit fails (disk full, locked): nothing of
                it happened.
        """
        ...

    async def begin(self, function: Callable[[Transaction], ResultT]) -> Begun[ResultT]:
        """Run `function` and return before the commit, where the store can; later writes see it.

        Every write that comes after it is committed with it or after it.

        Raises:
            as `write` does.
        """
        ...

    async def read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """Run `function` over what is committed, with what was begun before; it changes nothing."""
        ...

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        """Bring one component's tables up to date.

        Args:
            component: name of the owner, such as `provider_book`.
            steps: SQL scripts, statements separated by semicolons. Each is run once, in order; only
                append.
        """
        ...

    async def close(self) -> None:
        """Finish the waiting writes and let go of the file."""
        ...


def get_or_insert(tx: Transaction, find: str, insert: str, row: Row) -> Row:
    """The one row that `find` gives; `row`, through `insert`, where there is none yet."""
    found = tx.find_one(find)
    if found is None:
        tx.execute(insert, row)
        return row
    return tuple(found)
