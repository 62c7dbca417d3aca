"""Tables brought up to date: each component's scripts run once, in order, in one write.

Scripts are written once for both engines, with three types: TEXT, INTEGER (64 bits) and BLOB.
`hanse.store.postgres` says them in PostgreSQL's words.
"""

from collections.abc import Callable, Sequence

from hanse.protocol.errors import TransientError
from hanse.store.database import Transaction


def as_written(statement: str) -> str:
    """The dialect of SQLite: nothing to translate."""
    return statement


def apply_steps(
    tx: Transaction,
    component: str,
    steps: Sequence[str],
    dialect: Callable[[str], str] = as_written,
) -> None:
    """Run what one component's tables lack.

    Args:
        tx: the transaction that all of it happens in.
        component: name of the owner.
        steps: scripts, oldest first; statements separated by semicolons.
        dialect: from a statement as written to what this engine takes.

    Raises:
        TransientError: `store_unavailable` if the tables are newer than this program.
    """
    tx.execute(
        dialect(
            "CREATE TABLE IF NOT EXISTS migrations "
            "(component TEXT PRIMARY KEY, step INTEGER NOT NULL)"
        )
    )
    row = tx.find_one("SELECT step FROM migrations WHERE component = ?", (component,))
    done = int(row[0]) if row else 0
    if done > len(steps):
        raise TransientError(
            "store_unavailable",
            f"{component} in this database is at step {done}, this program knows {len(steps)}: "
            "use a newer one",
        )
    for script in steps[done:]:
        for statement in script.split(";"):
            if statement.strip():
                tx.execute(dialect(statement))
    tx.execute(
        "INSERT INTO migrations (component, step) VALUES (?, ?) "
        "ON CONFLICT (component) DO UPDATE SET step = excluded.step",
        (component, len(steps)),
    )
