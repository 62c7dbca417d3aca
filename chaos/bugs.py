"""Bugs that the runner can put into the code under test, to prove that it would find them.

    python -m chaos --seed 1 --bug volatile_store

Each one is what a careless change could do. `tests/chaos` asks that every one is found within a few
seeds; a runner that cannot fail says nothing.
"""

from enum import Enum


class Bug(Enum):
    """What is broken on purpose; `NONE` for a real run."""

    NONE = "none"
    VOLATILE_STORE = "volatile_store"
    """A store that answers before the commit: what was signed can be forgotten in a crash."""
    NO_RESERVATION = "no_reservation"
    """An admission that does not reserve its request's maximum fee."""
    FORGOTTEN_IDS = "forgotten_ids"
    """A broker that does not refuse a request id that it has admitted before."""
    LOST_CLAIM = "lost_claim"
    """A broker that takes a sub-account for settled when a receipt is signed."""

    @property
    def statements(self) -> tuple[tuple[str, str], ...]:
        """Texts in SQL statements, each with what stands in its place."""
        return _STATEMENTS.get(self, ())


_STATEMENTS = {
    Bug.NO_RESERVATION: (
        (
            "SET reserved = ?, in_flight = ?, cumulative_max",
            "SET reserved = '0' || substr(?, 1, 0), in_flight = ?, cumulative_max",
        ),
    ),
    Bug.FORGOTTEN_IDS: (
        (
            "instance) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            "instance) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "admitted_at = excluded.admitted_at",
        ),
    ),
    Bug.LOST_CLAIM: (("SET due = 1 WHERE", "SET due = 0 WHERE"),),
}
