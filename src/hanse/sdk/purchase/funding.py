"""What may still be committed to each provider, known without asking anybody on the request path.

The chain's side (claimed, balance, pending refund) comes from the event index at the confirmed
block; our own side (spent and in flight) from the voucher book. The book decides; this only keeps a
request from being tried where it cannot be paid.
"""

from collections.abc import Collection
from typing import Protocol

from hanse.protocol.books import UserBook
from hanse.protocol.signatures import Address
from hanse.settlement.books.receipt_records import SubAccountFunds


class FundsView(Protocol):
    """What the chain shows of this user's sub-accounts. `hanse.sdk.chain_view` fulfils it."""

    def find_funds(self, provider: Address) -> SubAccountFunds | None:
        """Funds for (user, provider, signer) at the confirmed block; None if never funded."""
        ...

    def list_funded(self) -> Collection[Address]:
        """Providers that were ever funded."""
        ...


class Funding:
    """Both sides together.

    Attributes:
        find_funds, list_funded: the chain's side, see `FundsView`.
    """

    def __init__(self, view: FundsView) -> None:
        self.find_funds = view.find_funds
        self.list_funded = view.list_funded
        self._books: dict[Address, UserBook] = {}

    def note(self, provider: Address, book: UserBook | None) -> None:
        """Our side, after each change of the book."""
        if book is not None:
            self._books[provider] = book

    def find_available(self, provider: Address) -> int | None:
        """Base units that a new voucher may commit; None if nothing was ever set aside."""
        funds = self.find_funds(provider)
        if funds is None:
            return None
        book = self._books.get(provider)
        if book is None:
            return max(0, funds.funded - funds.claimed)
        return max(0, funds.funded - book.acknowledged_fee - book.in_flight_fee)
