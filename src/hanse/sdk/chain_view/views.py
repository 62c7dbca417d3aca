"""What the user's side asks of the chain, and an answer that a test gives.

`ChainView` is what buying stands on; `hanse.sdk.chain_view.indexed` reads it from a real chain,
`FixedChain` is told.
"""

from collections.abc import Collection
from typing import Protocol

from hanse.market import PublishedService
from hanse.protocol.signatures import Address
from hanse.settlement.books.receipt_records import SubAccountFunds


class ChainView(Protocol):
    """The chain at a confirmed block, from memory."""

    async def refresh(self) -> None:
        """Take in what was confirmed since; raises TransientError `chain_unavailable`."""
        ...

    def list_services(self) -> list[PublishedService]:
        """Every service on the market."""
        ...

    def find_funds(self, provider: Address) -> SubAccountFunds | None:
        """Funds of (user, provider, signer), None if never funded."""
        ...

    def list_funded(self) -> Collection[Address]:
        """Providers that were ever funded from (user, signer)."""
        ...

    def is_receipt_key(self, provider: Address, key: Address) -> bool:
        """Whether a key is or ever was the provider's receipt key."""
        ...


class FixedChain:
    """A `ChainView` that is told: for tests, and for a broker that is known without a chain."""

    def __init__(
        self, services: list[PublishedService], funds: dict[Address, SubAccountFunds]
    ) -> None:
        self.services = services
        self.funds = funds

    async def refresh(self) -> None:
        """See `ChainView`."""

    def list_services(self) -> list[PublishedService]:
        """See `ChainView`."""
        return list(self.services)

    def find_funds(self, provider: Address) -> SubAccountFunds | None:
        """See `ChainView`."""
        return self.funds.get(provider)

    def list_funded(self) -> Collection[Address]:
        """See `ChainView`."""
        return self.funds.keys()

    def is_receipt_key(self, provider: Address, key: Address) -> bool:
        """See `ChainView`."""
        return any((of.provider, of.receipt_key) == (provider, key) for of in self.services)
