"""Processes that share one database: who is there, who has died, and which one leads.

    membership = await join_group(database, "broker", name, address, terms)
    book = await open_receipt_book(..., membership=membership)   # fenced: `membership.verify_held`
    await membership.run(on_ended, on_lead)                      # beats until its own lease ends

Each member has a row with a counter that it raises every beat. Who sees another's counter stand
still for `missed_max` of its own successful beats, and for as long by its own clock, ends that
member: in one transaction its row goes and `on_ended` closes what it left. The leader is the member
that the leader's row names; once that one's row is gone, the next to beat takes its place.

No clock of one machine is compared with another's: safety comes from the fence alone. A member
whose row is gone can write nothing any more, since `verify_held` (and `verify_leads`) stand in the
same transactions as its writes, and transactions of one database come one after the other. So a
process that stalls for however long, and wakes, finds its requests closed and can sign for none.

Members that could not reach the database do not count that time against the others.

| after | at the latest |
| --- | --- |
| a member dies | its requests are closed after `ends_after_s` |
| the leader dies | another leads by then too, in the same transaction |
| a member leaves in order | the next beat |

Source: Gray and Cheriton, "Leases" (1989); the fence is Kleppmann's token, with the row in its
place. `docs/decisions/0018-postgresql.md`.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from hanse.protocol.errors import RequestError, TransientError
from hanse.store.database import Database, Transaction

_COMPONENT = "leases"
_STEPS = (
    """
    CREATE TABLE lease_members (
        group_name TEXT NOT NULL,
        member TEXT NOT NULL,
        address TEXT NOT NULL,
        beat INTEGER NOT NULL,
        PRIMARY KEY (group_name, member)
    );
    CREATE TABLE lease_leaders (
        group_name TEXT PRIMARY KEY,
        member TEXT NOT NULL,
        term INTEGER NOT NULL
    )
    """,
)
_FIND = "SELECT beat FROM lease_members WHERE group_name = ? AND member = ?"
_INSERT = "INSERT INTO lease_members (group_name, member, address, beat) VALUES (?, ?, ?, 0)"
_BEAT = "UPDATE lease_members SET beat = beat + 1 WHERE group_name = ? AND member = ?"
_LIST = "SELECT member, address, beat FROM lease_members WHERE group_name = ? ORDER BY member"
_DELETE = "DELETE FROM lease_members WHERE group_name = ? AND member = ?"
_DELETE_AT = _DELETE + " AND beat = ?"
_FIND_LEADER = "SELECT member, term FROM lease_leaders WHERE group_name = ?"
_PUT_LEADER = (
    "INSERT INTO lease_leaders (group_name, member, term) VALUES (?, ?, 1) "
    "ON CONFLICT (group_name) DO UPDATE SET member = excluded.member, "
    "term = lease_leaders.term + 1"
)

_log = logging.getLogger(__name__)

OnEnded = Callable[[Transaction, str], None]
"""Closes, in the transaction that ends a member, what that member left open."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How soon a dead member is noticed.

    Attributes:
        beat_s: between beats; one small write each.
        missed_max: beats without a sign of another after which its lease ends.
    """

    beat_s: float = 1.0
    missed_max: int = 5

    @property
    def ends_after_s(self) -> float:
        """From a member's death to the end of its lease, at most, with the database at hand."""
        return (self.missed_max + 2) * self.beat_s


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the group; `address` is for people."""

    name: str
    address: str
    beat: int


class Membership:
    """This process's place in the group. Get one with `join_group`.

    Attributes:
        name: this member's, never used twice.
        members: all, as of the last beat.
        leader: name of the one that leads, as of the last beat; "" if none.
        term: how often the leader has changed.
    """

    def __init__(
        self,
        database: Database,
        group: str,
        name: str,
        terms: LeaseTerms,
        monotonic: Callable[[], float],
    ) -> None:
        self.name = name
        self.members: tuple[Member, ...] = ()
        self.leader = ""
        self.term = 0
        self._database = database
        self._group = group
        self._terms = terms
        self._monotonic = monotonic
        self._seen: dict[str, tuple[int, float, int]] = {}  # beat, since when, own beats since

    @property
    def is_leader(self) -> bool:
        """Whether this process leads, as of its last beat; writes are held to `verify_leads`."""
        return self.leader == self.name

    def verify_held(self, tx: Transaction) -> None:
        """Raise unless this member's lease holds: the first line of every write of a member.

        Raises:
            TransientError: `store_unavailable`; another has closed what this process had open.
        """
        if tx.find_one(_FIND, (self._group, self.name)) is None:
            raise self._get_ended()

    def verify_leads(self, tx: Transaction) -> None:
        """Raise unless this member leads and its lease holds.

        Raises:
            TransientError: `store_unavailable`, naming who leads.
        """
        self.verify_held(tx)
        found = tx.find_one(_FIND_LEADER, (self._group,))
        if found is None or found[0] != self.name:
            raise TransientError(
                "store_unavailable",
                f"{found[0] if found else 'nobody'} leads now, not {self.name}: only the leader "
                "settles and publishes",
            )

    def list_names(self, tx: Transaction) -> set[str]:
        """Every member whose lease holds."""
        return {row[0] for row in tx.find_all(_LIST, (self._group,))}

    async def beat(self, on_ended: OnEnded) -> None:
        """Say that this member lives, and end the leases of those that do not.

        Raises:
            TransientError: `store_unavailable`: no answer, or this member's own lease has ended.
        """
        await self._database.write(self._beat)
        for name, beat in self._find_silent():
            await self._database.write(lambda tx, n=name, b=beat: self._end(tx, n, b, on_ended))  # type: ignore[misc]

    async def run(self, on_ended: OnEnded, on_lead: Callable[[], None]) -> None:
        """Beat until cancelled; `on_lead` is called once this member leads, and must not wait.

        Raises:
            RequestError: `configuration_invalid`: this member's lease has ended; nothing that it
                does counts any more, so the process must end.
        """
        has_led = False
        while True:
            try:
                await self.beat(on_ended)
                if self.is_leader and not has_led:
                    has_led = True
                    on_lead()
            except TransientError as error:
                if not self.members:
                    raise RequestError("configuration_invalid", error.message) from None
                _log.warning("no beat: %s", error.message)
            await asyncio.sleep(self._terms.beat_s)

    async def leave(self) -> None:
        """Give up the lease, and the lead if it is ours; what is open must be closed before."""
        await self._database.write(lambda tx: tx.execute(_DELETE, (self._group, self.name)))

    def _beat(self, tx: Transaction) -> None:
        if tx.execute(_BEAT, (self._group, self.name)) == 0:
            self.members, self.leader = (), ""
            raise self._get_ended()
        self._look(tx)

    def _look(self, tx: Transaction) -> None:
        members = tuple(Member(*row) for row in tx.find_all(_LIST, (self._group,)))
        found = tx.find_one(_FIND_LEADER, (self._group,))
        if found is None or found[0] not in {member.name for member in members}:
            tx.execute(_PUT_LEADER, (self._group, self.name))
            found = (self.name, (found[1] if found else 0) + 1)
        self.members, self.leader, self.term = members, found[0], found[1]

    def _find_silent(self) -> list[tuple[str, int]]:
        now, silent = self._monotonic(), []
        seen: dict[str, tuple[int, float, int]] = {}
        for member in self.members:
            beat, since, count = self._seen.get(member.name, (-1, now, 0))
            fresh = member.beat != beat
            seen[member.name] = (member.beat, now, 0) if fresh else (beat, since, count + 1)
            _, since, count = seen[member.name]
            long_enough = now - since >= self._terms.missed_max * self._terms.beat_s
            if member.name != self.name and count >= self._terms.missed_max and long_enough:
                silent.append((member.name, member.beat))
        self._seen = seen
        return silent

    def _end(self, tx: Transaction, name: str, beat: int, on_ended: OnEnded) -> None:
        self.verify_held(tx)
        if tx.execute(_DELETE_AT, (self._group, name, beat)) == 0:
            return  # it lives after all, or another was first
        _log.warning("the lease of %s has ended: its requests are closed", name)
        on_ended(tx, name)
        self._look(tx)

    def _get_ended(self) -> TransientError:
        wait_s = math.ceil(self._terms.missed_max * self._terms.beat_s)
        return TransientError(
            "store_unavailable",
            f"the lease of {self.name} has ended: it gave no sign for {wait_s} s, so others closed "
            "its requests; start this process again",
        )


async def join_group(
    database: Database,
    group: str,
    name: str,
    address: str,
    terms: LeaseTerms | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Membership:
    """Become a member, and its leader if there is none.

    Args:
        database: that the group shares.
        group: its name; members of different groups know nothing of one another.
        name: this member's; one that no member ever had.
        address: of this process, for people.
        terms: how soon the dead are noticed; the same for all members.
        monotonic: seconds by a clock that never goes back.
    """
    await database.migrate(_COMPONENT, _STEPS)
    membership = Membership(database, group, name, terms or LeaseTerms(), monotonic)

    def join(tx: Transaction) -> None:
        tx.execute(_INSERT, (group, name, address))
        membership._look(tx)

    await database.write(join)
    return membership
