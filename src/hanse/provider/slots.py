"""How many requests may be at work, for each service and for each sub-account.

One that asks for several answers takes a slot for each, as in the engine, so that heartbeats tell
what is free indeed. Slots are taken before a request is admitted, so that what is refused has
touched no book.
"""

import asyncio

from hanse.protocol.errors import TransientError
from hanse.protocol.signatures import Address
from hanse.provider.offers import Service
from hanse.provider.settings import ServingLimits


class Slots:
    """Counts of what is at work."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._of_service: dict[int, int] = {}
        self._of_sub_account: dict[tuple[Address, Address], int] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def taken(self) -> int:
        """Requests at work."""
        return sum(self._of_sub_account.values())

    def get_taken(self, service_id: int) -> int:
        """Slots of one service that are busy or waited for."""
        return self._of_service.get(service_id, 0)

    def take(self, service: Service, user: Address, signer: Address, answers: int = 1) -> int:
        """Take a slot for each answer; one request may go beyond what may wait.

        Returns:
            How many, to be given back: an engine that takes more answers than it has slots makes
            the rest of them later.

        Raises:
            TransientError: `rate_limited`, naming which limit is reached.
        """
        parallel = service.engine.capabilities.parallel
        most = parallel + self._limits.queue_max
        of_service = self._of_service.get(service.service_id, 0)
        if of_service >= most:
            raise TransientError(
                "rate_limited",
                f"{of_service} answers are at work or waiting for this model, at most {most}",
                retry_after_s=self._limits.retry_after_s,
            )
        names, most = (user, signer), self._limits.sub_account_in_flight_max
        of_sub_account = self._of_sub_account.get(names, 0)
        if of_sub_account >= most:
            raise TransientError(
                "rate_limited",
                f"{of_sub_account} requests of this sub-account are at work, at most {most}",
                retry_after_s=self._limits.retry_after_s,
            )
        slots = min(answers, max(1, parallel))
        self._of_service[service.service_id] = of_service + slots
        self._of_sub_account[names] = of_sub_account + 1
        self._empty.clear()
        return slots

    def give_back(self, service: Service, user: Address, signer: Address, slots: int = 1) -> None:
        """Give back what this request took."""
        self._of_service[service.service_id] -= slots
        names = (user, signer)
        left = self._of_sub_account[names] - 1
        if left:
            self._of_sub_account[names] = left
            return
        del self._of_sub_account[names]
        if not self._of_sub_account:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until nothing is at work."""
        await self._empty.wait()
