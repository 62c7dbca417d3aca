"""One broker among several on one database, or alone on its own.

    sharing = await Sharing.join(settings, database, url, monotonic)
    book = await open_receipt_book(..., sharing.membership)
    sharing.begin(book, loops, now_s)            # beats from now on
    await sharing.offer(publish, adopt)          # the leader publishes, the others take it over
    sharing.lead(lead, publish, loops)           # now, or once this process is elected

Every broker admits, serves and signs, each fenced by its lease. What must be done once is done by
the leader: registering, publishing, settling, completing refunds, sending for the receipt key. A
leader that loses its lease ends; its outbox can store nothing any more, hence send nothing new.

On SQLite there is nobody to share with (`hold_folder` sees to that) and all of it is this process.

Source: `hanse.store.leases`; `docs/decisions/0018-postgresql.md`.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from hanse.protocol.errors import HanseError, InvariantError, RequestError, TransientError
from hanse.provider.settings import BrokerSettings
from hanse.serving import Loops
from hanse.settlement import ReceiptBook
from hanse.store import Database, Transaction, is_shared
from hanse.store.leases import LeaseTerms, Membership, join_group

OFFERS_WAIT_S = 120.0
"""How long a broker waits for its leader's first offer: a registration takes some blocks."""

_log = logging.getLogger(__name__)


class Sharing:
    """This broker's part in its group."""

    def __init__(self, membership: Membership | None, terms: LeaseTerms) -> None:
        self.membership = membership
        self._terms = terms
        self._elected = asyncio.Event()
        self._has_published = False
        if membership is None or membership.is_leader:
            self._elected.set()

    @classmethod
    async def join(
        cls,
        settings: BrokerSettings,
        database: Database,
        url: str,
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> "Sharing":
        """Join the brokers of this provider, if the database can be shared at all."""
        if not is_shared(settings.database):
            return cls(None, settings.lease)
        name = "broker-" + random_bytes(4).hex()
        group = f"broker:{settings.provider}"
        return cls(
            await join_group(database, group, name, url, settings.lease, monotonic), settings.lease
        )

    @property
    def is_leader(self) -> bool:
        """Whether what is done once is this process's to do."""
        return self._elected.is_set()

    def verify_leads(self, tx: Transaction) -> None:
        """See `Membership.verify_leads`; alone one always leads."""
        if self.membership is not None:
            self.membership.verify_leads(tx)

    def check_is_leader(self) -> None:
        """Refuse what only the leader does, and say who that is.

        Raises:
            RequestError: `configuration_invalid`.
        """
        if self.is_leader or self.membership is None:
            return
        leader = self.membership.leader
        found = [member for member in self.membership.members if member.name == leader]
        who = f"{leader} at {found[0].address}" if found else "no broker"
        raise RequestError(
            "configuration_invalid",
            f"{who} leads the brokers of this provider now, not {self.membership.name}, and only "
            "the leader settles: it does by itself, or at once by 'hanse settle' where it runs",
        )

    def begin(self, book: ReceiptBook, loops: Loops, now_s: Callable[[], float]) -> None:
        """Beat from now on; requests of a broker whose lease ends are closed with fee 0."""
        if self.membership is None:
            return

        def close(tx: Transaction, name: str) -> None:
            closed = book.recover_within(tx, int(now_s()))
            _log.warning("closed %s requests of %s", len(closed), name)

        loops.spawn(self.membership.run(close, self._elected.set))

    async def offer(
        self, publish: Callable[[], Awaitable[None]], adopt: Callable[[], Awaitable[bool]]
    ) -> None:
        """Have offers in force: publish them as the leader, else take over the leader's.

        Raises:
            HanseError: as `publish` and `adopt`.
            TransientError: `chain_unavailable`: no leader has published for `OFFERS_WAIT_S`.
        """
        async with asyncio.timeout(OFFERS_WAIT_S) as limit:
            while not self.is_leader:
                if await adopt():
                    return
                await asyncio.sleep(self._terms.beat_s)
            limit.reschedule(None)  # publishing takes the time that the chain takes
            await publish()
            self._has_published = True

    def lead(
        self,
        lead: Callable[[], None],
        publish: Callable[[], Awaitable[None]],
        adopt: Callable[[], Awaitable[bool]],
        loops: Loops,
    ) -> None:
        """Call `lead`, which begins what only a leader does, now or once elected."""
        if self._has_published:
            lead()
        else:
            loops.spawn(self._follow(lead, publish, adopt))

    async def leave(self) -> None:
        """Hand the lease back, so that nobody has to wait for its end."""
        if self.membership is None:
            return
        try:
            await self.membership.leave()
        except TransientError as error:
            _log.warning("the lease ends by itself: %s", error.message)

    async def _follow(
        self,
        lead: Callable[[], None],
        publish: Callable[[], Awaitable[None]],
        adopt: Callable[[], Awaitable[bool]],
    ) -> None:
        """Take over the leader's offers, until this process leads; never ends."""
        while not self._has_published:
            try:
                if self.is_leader:
                    await publish()
                    self._has_published = True
                    break
                await adopt()
            except InvariantError:
                raise
            except HanseError as error:
                _log.warning("will try again in %s s: %s", self._terms.beat_s, error.message)
            await asyncio.sleep(self._terms.beat_s)
        _log.warning("this broker leads now")
        lead()
        await asyncio.Event().wait()
