"""Fetches the heartbeats of the brokers that could be asked, every few seconds.

A heartbeat counts if the registered receipt key signed it lately and it is newer than the one
before. What the rest means for a provider is `hanse.market.presence`'s: a closed port or a refusal
is certain, silence counts once. Only providers with a sub-account are watched: no other can be
asked.

What comes is judged by `take` alone, so a message bus could push heartbeats as well.

Source: `docs/protocol.md`, section "Heartbeats".
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from hanse.market import ListedOffer, OfferIndex, PresenceBook
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, TransientError, VerificationError
from hanse.protocol.messages import Heartbeat
from hanse.protocol.signatures import Address
from hanse.protocol.verify import verify_heartbeat
from hanse.protocol.wire import HEARTBEATS_PATH, heartbeat_from_json
from hanse.sdk.transport import NotSentError, Transport, read_body

WATCHED_MAX = 512
"""Brokers asked in one round, 100 requests a second; of more, each has its turn after rounds."""

AT_ONCE_MAX = 64
"""Brokers asked at once."""

SILENCE_S = 2.0
"""A broker answers this from memory, after a look at its engine that takes a second at most."""

BODY_BYTES_MAX = 128 * 1024
"""The heartbeats of 256 services, as many as offers are read of one broker."""

HEARTBEATS_MAX = 256
"""Of one broker; it has one a service."""

_log = logging.getLogger(__name__)


class _Heartbeats(msgspec.Struct):
    heartbeats: list[Any]


class Heartbeats:
    """Keeps a `PresenceBook` up to date."""

    def __init__(
        self,
        transport: Transport,
        offers: OfferIndex,
        presence: PresenceBook,
        list_watched: Callable[[], Collection[Address]],
        domain: Domain,
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._offers = offers
        self._presence = presence
        self._list_watched = list_watched
        self._domain = domain
        self._clock = clock
        self._begin_at = 0

    async def run(self, interval_s: float) -> None:
        """A round every `interval_s`, the first at once, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            await self.fetch_round()
            await asyncio.sleep(max(0.0, begun + interval_s - loop.time()))

    async def fetch_round(self) -> None:
        """Ask every watched broker once; what goes wrong with one is its own absence."""
        slots = asyncio.Semaphore(AT_ONCE_MAX)
        brokers = self._choose_brokers()
        await asyncio.gather(*(self._ask(slots, offer) for offer in brokers))

    def take(self, provider: Address, receipt_key: Address, items: list[Any]) -> bool:
        """Heartbeats that came from a provider; whether there is news among them.

        Those of services that it does not sell are dropped: they would be kept for nobody.

        Raises:
            VerificationError: one is malformed, too old, or not this provider's.
        """
        taken: list[Heartbeat] = []
        for item in items[:HEARTBEATS_MAX]:
            signed = heartbeat_from_json(item)
            if signed.heartbeat.provider != provider:
                raise VerificationError(
                    "heartbeat_invalid",
                    f"a heartbeat of {signed.heartbeat.provider}, expected was {provider}",
                )
            if self._offers.find(provider, signed.heartbeat.service_id) is None:
                continue
            verify_heartbeat(signed, self._domain, receipt_key, self._clock())
            taken.append(signed.heartbeat)
        return self._presence.take(taken)

    def _choose_brokers(self) -> list[ListedOffer]:
        """One offer of each broker to ask: they go round if there are too many."""
        found: dict[tuple[Address, str], ListedOffer] = {}
        for provider in self._list_watched():
            for listed in self._offers.list_of(provider):
                found.setdefault((provider, listed.endpoint), listed)
        brokers = list(found.values())
        if len(brokers) <= WATCHED_MAX:
            return brokers
        begin_at = self._begin_at % len(brokers)
        self._begin_at = begin_at + WATCHED_MAX
        return list(itertools.islice(itertools.cycle(brokers), begin_at, begin_at + WATCHED_MAX))

    async def _ask(self, slots: asyncio.Semaphore, listed: ListedOffer) -> None:
        provider, presence = listed.provider, self._presence
        try:
            async with slots, asyncio.timeout(SILENCE_S):
                items = await self._fetch(listed.endpoint)
            if items is not None and not self.take(provider, listed.receipt_key, items):
                presence.miss(provider, "its heartbeat is not new")
        except NotSentError as error:
            presence.miss(provider, error.message, is_certain=True)
        except _RefusedError as error:
            presence.miss(provider, error.message, is_certain=True)
        except TimeoutError:
            presence.miss(provider, f"silent for {SILENCE_S:g} s")
        except HanseError as error:
            presence.miss(provider, error.message)

    async def _fetch(self, endpoint: str) -> list[Any] | None:
        """What a broker says; None if it has no heartbeats."""
        response = await self._transport.send(
            "GET", endpoint + HEARTBEATS_PATH, {}, b"", silence_s=SILENCE_S
        )
        try:
            body = await read_body(response, BODY_BYTES_MAX)
        finally:
            response.close()
        if response.status == 404:
            return None
        if response.status != 200:
            raise _RefusedError(f"it answers with status {response.status}")
        try:
            return msgspec.json.decode(body, type=_Heartbeats).heartbeats
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise VerificationError("heartbeat_invalid", "its heartbeats are malformed") from None


class _RefusedError(TransientError):
    """It is there and says that it serves nobody."""

    def __init__(self, message: str) -> None:
        super().__init__("provider_unreachable", message)
