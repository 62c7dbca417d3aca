"""What the gateway needs of the user's side, and nothing more.

`hanse.sdk.Hanse` fulfils it. Written down as a protocol because it is the gateway's one seam: all
that finds, pays and checks providers is behind it, all that speaks to applications before it. What
crosses the seam towards applications is translated here: whose fault an error is.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hanse.market import Chooser, Needs
from hanse.protocol.errors import HanseError, TransientError
from hanse.protocol.messages import SignedReceipt, SignedVoucher

if TYPE_CHECKING:  # the chain's libraries take long to import, and keys need none of them
    from hanse.sdk.money import Money
    from hanse.sdk.purchase.quoting import Quote
    from hanse.sdk.purchase.spending import SpendingGuard

_OUR_OWN_CODES = frozenset(
    (
        "offer_changed",
        "request_replayed",
        "fee_too_low",
        "voucher_too_low",
        "not_found",
        "method_not_allowed",
        "usage",
    )
)
"""What a provider may refuse with besides 401 and 403: between it and this gateway."""


ReadBatch = Callable[[], Awaitable[list[bytes]]]
"""Gives a stream's next frames, one or more; none after its last. Not an iterator, since each layer
of generators costs the loop's bookkeeping and a resumption for every arrival."""


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


def get_batch_reader(answer: MarketAnswer) -> ReadBatch:
    """What reads a stream, those frames together that came together where the answer can tell."""
    read: ReadBatch | None = getattr(answer, "read_batch", None)
    if read is not None:
        return read
    frames, end = answer.frames(), b""

    async def read_one() -> list[bytes]:
        frame = await anext(frames, end)
        return [frame] if frame else []

    return read_one


def get_maximum_fee(answer: MarketAnswer) -> int:
    """Base units that its voucher authorises; 0 for an answer that takes none."""
    voucher: SignedVoucher | None = getattr(answer, "voucher", None)
    return 0 if voucher is None else voucher.request.maximum_fee


class MarketClient(Protocol):
    """Buys answers from the cheapest healthy provider that fits."""

    async def request(
        self,
        path: str,
        body: bytes,
        needs: Needs | None = None,
        asked: list[str] | None = None,
    ) -> MarketAnswer:
        """Choose, sign, send; returns once a provider has accepted the request.

        `asked` gets each provider's address just before it is asked, also of a call that fails.

        Raises:
            HanseError: `model_not_found`, `no_provider`, `insufficient_balance` with amounts, and
                what the provider refused the request with.
        """
        ...

    def report_failure(self, provider: str, reason: str) -> None:
        """Say that a provider failed in a way that only whoever reads its answer has seen."""
        ...

    def get_models(self) -> dict[str, Any]:
        """OpenAI's list of what can be bought now."""
        ...

    async def read_money(self) -> "Money":
        """Every unit of this wallet, by place, with its words and alarms."""
        ...


@runtime_checkable
class GuardedMarket(MarketClient, Protocol):
    """A market that tells prices, and asks before it signs."""

    def quote(
        self, path: str, body: bytes, needs: Needs | None = None, most: int | None = None
    ) -> "list[Quote]":
        """What a request would cost: best first, then who cannot be asked; `most` at most."""
        ...

    def guard_spending(self, guard: "SpendingGuard") -> None:
        """Ask `guard` before each voucher from now on, and tell it what each came to."""
        ...


@runtime_checkable
class ChoosingMarket(MarketClient, Protocol):
    """A market that chooses among providers by what can be set anew while it works."""

    @property
    def chooser(self) -> Chooser:
        """Who chooses."""
        ...


def blame(error: HanseError) -> HanseError:
    """What the application is told: its own faults as they are, others' as somebody else's."""
    if error.row.status in (401, 403) or error.code in _OUR_OWN_CODES:
        return TransientError(
            "no_provider",
            f"a provider refused this gateway's voucher ({error.code}); try again, and if it "
            "stays, tell whoever runs this gateway",
            details={"cause": error.code},
        )
    return error
