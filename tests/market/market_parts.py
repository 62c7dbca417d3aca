"""A market of offers in memory, and a chooser over it."""

from collections.abc import Iterable
from typing import Any

from hanse.market import (
    CHEAPEST,
    Board,
    Chooser,
    HealthBook,
    ListedOffer,
    Match,
    MeasuredBook,
    Needs,
    OfferIndex,
    Policy,
    PresenceBook,
    RequestShape,
)
from hanse.protocol.messages import Heartbeat, Offer, Prices, SignedOffer
from hanse.protocol.signatures import ZERO_HASH

NOW = 1_900_000_000.0
ALPHA, BETA, GAMMA, DELTA = ("0x" + digit * 40 for digit in "abcd")


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def list_offer(
    provider: str, price: int = 1_000_000, *, service: int = 1, **changes: Any
) -> ListedOffer:
    fields: dict[str, Any] = {
        "provider": provider,
        "service_id": service,
        "service_type": "chat",
        "model": "echo",
        "manifest_root": ZERO_HASH,
        "quantisation": "none",
        "engine": "echo",
        "context_tokens": 4_096,
        "output_tokens_max": 1_000,
        "prices": Prices(price, price, price),
        "verifiability": "reputation",
        "endpoints": (f"http://{provider}/",),
        "encryption_key": ZERO_HASH,
        "valid_until": int(NOW) + 100,
        "revision": 1,
        **changes,
    }
    offer = Offer(**fields)
    return ListedOffer(SignedOffer(offer, ""), "0x" + offer.struct_hash().hex(), provider)


def make_shape(**changes: Any) -> RequestShape:
    fields = {"service_type": "chat", "model": "echo", "body_bytes": 400}
    return RequestShape(**{**fields, "output_tokens_asked": 100, **changes})


def make_heartbeat(provider: str, sent_at_ms: int = 1, **changes: Any) -> Heartbeat:
    fields = {"slots": 4, "free_slots": 4, "queued": 0, "queue_free": 8, "is_warm": True}
    return Heartbeat(provider, 1, sent_at_ms, **{**fields, **changes})


class MadeMarket:
    """Offers and what is known of them; everybody is funded unless `funds` says otherwise."""

    def __init__(
        self,
        offers: Iterable[ListedOffer] = (),
        *,
        policy: Policy = CHEAPEST,
        trial_share: float = 0.0,
        region: str = "",
        draws: Iterable[float] = (),
    ) -> None:
        self.clock = Clock()
        self.index = OfferIndex()
        self.health = HealthBook(self.clock)
        self.measured = MeasuredBook()
        self.presence = PresenceBook(self.clock)
        self.funds: dict[str, int] = {}
        self.draws = iter(draws)
        self.board = Board(
            self.index, self.health, self.measured, self.presence, self.clock, region
        )
        self.chooser = Chooser(
            self.board,
            lambda provider: self.funds.get(provider),
            lambda: self.funds.keys(),
            lambda: next(self.draws),
            policy=policy,
            trial_share=trial_share,
        )
        self.offer(offers)

    def offer(self, offers: Iterable[ListedOffer]) -> None:
        """These are on the market now."""
        held = list(offers)
        for listed in held:
            self.funds.setdefault(listed.provider, 10**15)
            self.verify(listed)
        self.index.replace_all(held)

    def verify(self, listed: ListedOffer, valid_s: float = 3_600.0) -> None:
        """Its machine was verified just now."""
        valid_until = self.clock() + valid_s
        self.board.attested.verify_until(listed.provider, listed.receipt_key, "made", valid_until)

    def measure(self, provider: str, first_s: float, token_s: float, answers: int = 3) -> None:
        """It gave answers of 101 tokens at this speed."""
        for _ in range(answers):
            self.measured.report_stream((provider, 1), first_s, first_s + 100 * token_s, 101)

    def choose(self, needs: Needs | None = None, **shape: Any) -> str:
        """Who is asked."""
        choice = self.chooser.choose(make_shape(**shape), needs or Needs(), self.clock())
        return choice.candidate.listed.provider

    def choose_why(self, needs: Needs | None = None, **shape: Any) -> tuple[str, str]:
        """Who is asked, and why."""
        choice = self.chooser.choose(make_shape(**shape), needs or Needs(), self.clock())
        return choice.candidate.listed.provider, choice.why

    def rank(self, needs: Needs | None = None, **shape: Any) -> Match:
        """Everybody."""
        return self.chooser.rank(make_shape(**shape), needs or Needs(), self.clock())
