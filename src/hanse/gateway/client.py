"""What the gateway needs of the user's side, and nothing more.

`hanse.sdk.Hanse` fulfils it. Written down as a protocol because it is the gateway's one seam: all
that finds, pays and checks providers is behind it, all that speaks to applications before it.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from hanse.protocol.messages import SignedReceipt
from hanse.sdk.money import Money


class Receipted(Protocol):
    """A receipt that was verified against what was sent and received."""

    @property
    def signed(self) -> SignedReceipt:
        """The receipt with its provider's signature."""
        ...

    @property
    def fee(self) -> int:
        """What this request cost, in base units."""
        ...


class MarketAnswer(Protocol):
    """One paid answer whose provider has begun to serve it."""

    @property
    def provider(self) -> str:
        """The provider's address."""
        ...

    @property
    def is_stream(self) -> bool:
        """Whether `frames` or `read` gives the content."""
        ...

    @property
    def receipt(self) -> Receipted | None:
        """The verified receipt once the answer has ended; None before, or if it is not here yet."""
        ...

    async def read(self) -> bytes:
        """The whole body, verified."""
        ...

    def frames(self) -> AsyncIterator[bytes]:
        """The stream's data frames, untouched."""
        ...

    async def close(self) -> None:
        """Hang up if it is still coming. Never fails, and may be called twice."""
        ...


class MarketClient(Protocol):
    """Buys answers from the cheapest healthy provider that fits."""

    async def request(self, path: str, body: bytes) -> MarketAnswer:
        """Choose, sign, send; returns once a provider has accepted the request.

        Raises:
            HanseError: `model_not_found`, `no_provider`, `insufficient_balance` with amounts, and
                what the provider refused the request with.
        """
        ...

    def get_models(self) -> dict[str, Any]:
        """OpenAI's list of what can be bought now."""
        ...

    async def read_money(self) -> Money:
        """Every unit of this wallet, by place."""
        ...
