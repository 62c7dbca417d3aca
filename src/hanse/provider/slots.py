"""How many requests may be at work, for each service and for each sub-account.

Taken before a request is admitted, so that what is refused has touched no book.
"""

import asyncio
from collections import Counter

from hanse.protocol.errors import TransientError
from hanse.protocol.signatures import Address
from hanse.provider.offers import Service
from hanse.provider.settings import ServingLimits


class Slots:
    """Counts of what is at work."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._of_service: Counter[int] = Counter()
        self._of_sub_account: Counter[tuple[Address, Address]] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def taken(self) -> int:
        """Requests at work."""
        return self._of_service.total()

    def get_taken(self, service_id: int) -> int:
        """Requests of one service that run or wait."""
        return self._of_service[service_id]

    def take(self, service: Service, user: Address, signer: Address) -> None:
        """Take a slot.

        Raises:
            TransientError: `rate_limited`, naming which limit is reached.
        """
        most = service.engine.capabilities.parallel + self._limits.queue_max
        taken = self._of_service[service.service_id]
        if taken >= most:
            raise TransientError(
                "rate_limited",
                f"{taken} requests are at work or waiting for this model, at most {most}",
                retry_after_s=self._limits.retry_after_s,
            )
        names, most = (user, signer), self._limits.sub_account_in_flight_max
        taken = self._of_sub_account[names]
        if taken >= most:
            raise TransientError(
                "rate_limited",
                f"{taken} requests of this sub-account are at work, at most {most}",
                retry_after_s=self._limits.retry_after_s,
            )
        self._of_service[service.service_id] += 1
        self._of_sub_account[names] += 1
        self._empty.clear()

    def give_back(self, service: Service, user: Address, signer: Address) -> None:
        """Give a slot back."""
        self._of_service[service.service_id] -= 1
        names = (user, signer)
        self._of_sub_account[names] -= 1
        if not self._of_sub_account[names]:
            del self._of_sub_account[names]
            if not self._of_sub_account:
                self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until nothing is at work."""
        await self._empty.wait()
