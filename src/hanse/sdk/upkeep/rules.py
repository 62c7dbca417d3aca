"""What to move next, as a pure function of what is there. One move at a time; amounts base units.

| if | then |
| --- | --- |
| a refund's lock time is over | complete it |
| a wanted provider has less than `refill_below` free, and a refund waits there | take that back |
| the same, and none waits | fund it up to `target`, all such in one transaction |
| an unwanted provider was not used for `idle_s`, and has something free | ask it back |
| nothing was used for `idle_s`, nothing is wanted, and the account holds something | withdraw it |
| the same, and the wallet holds something | send it to `return_to` |

Where some models are always wanted, those that were only asked for may not use more than half of
`daily_cap`: whoever asks for others cannot keep these from being filled up. Funding takes from the
account, and what is missing from the wallet. It stops at `daily_cap` within any 24 hours, counted
when a move is decided, whatever becomes of it unless it failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hanse.protocol.errors import RequestError
from hanse.protocol.limits import AMOUNT_MAX, SUB_ACCOUNTS_PER_OPEN_MAX
from hanse.protocol.signatures import Address

SMALLEST_PART = 4
"""A provider is funded with at least a quarter of its target: less is not worth a transaction."""

DAY_S = 86_400


@dataclass(frozen=True)
class UpkeepSettings:
    """How far the money may be moved without asking.

    Attributes:
        target: what a wanted provider is filled up to.
        refill_below: it is filled up once less than this is free.
        daily_cap: most that goes into sub-accounts within any 24 hours.
        idle_s: after so long without use, money is asked back; 0 for never.
        providers_max: providers kept for each model, the cheapest.
        models: always wanted; others are once they were asked for in vain, for `idle_s` (for good
            if that is 0).
        excluded: providers that are never funded: oneself, for a gateway that sells what it buys.
        return_to: who gets what is idle; empty leaves it in the account.
        look_s: between looks.
        wait_s: how long a request may wait for its first sub-account.
    """

    target: int
    refill_below: int
    daily_cap: int
    idle_s: float = 0.0
    providers_max: int = 2
    models: tuple[str, ...] = ()
    excluded: frozenset[Address] = frozenset()
    return_to: Address = ""
    look_s: float = 5.0
    wait_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what could not work; raises RequestError `configuration_invalid`."""
        if not 0 < self.refill_below <= self.target <= AMOUNT_MAX:
            raise RequestError(
                "configuration_invalid",
                f"fill up below {self.refill_below} to {self.target}: the first must be above 0 "
                "and at most the second",
            )
        if self.daily_cap * SMALLEST_PART < self.target:
            raise RequestError(
                "configuration_invalid",
                f"the daily cap is {self.daily_cap}, less than a quarter of the target, "
                f"{self.target}: nothing could ever be funded",
            )
        if not 0 < self.providers_max <= SUB_ACCOUNTS_PER_OPEN_MAX:
            raise RequestError(
                "configuration_invalid",
                f"{self.providers_max} providers a model, expected 1 .. "
                f"{SUB_ACCOUNTS_PER_OPEN_MAX}",
            )


@dataclass(frozen=True)
class Kept:
    """One sub-account as it stands.

    Attributes:
        available: may be committed to new requests.
        refund: asked back and not completed.
        is_due: whether its lock time is over.
        idle_for_s: since it was last seen to be used.
    """

    available: int
    refund: int = 0
    is_due: bool = False
    idle_for_s: float = 0.0


@dataclass(frozen=True)
class Facts:
    """All that a move follows from.

    Attributes:
        wanted: providers that should have money, most wanted first.
        kept: every sub-account of this signer.
        account, wallet: where funding is taken from.
        moved: into sub-accounts within the last 24 hours.
        idle_for_s: since anything was used or moved.
        asked: those of `wanted` that stand there only because a request asked for their model while
            others are always wanted; they get half of the daily cap at most.
    """

    wanted: tuple[Address, ...]
    kept: Mapping[Address, Kept]
    account: int
    wallet: int
    moved: int
    idle_for_s: float = 0.0
    asked: frozenset[Address] = frozenset()


@dataclass(frozen=True)
class Move:
    """One transaction.

    Attributes:
        kind: `fund`, `cancel`, `claim`, `refund`, `withdraw` or `send`.
        amount: of it; of `fund` what is deposited from the wallet first.
        funds: base units by provider, of `fund`; else the one provider, if there is one.
    """

    kind: str
    amount: int = 0
    funds: dict[Address, int] = field(default_factory=dict)

    @property
    def funded(self) -> int:
        """What it puts into sub-accounts, and counts against the cap."""
        return sum(self.funds.values()) if self.kind == "fund" else 0

    def to_document(self) -> dict[str, Any]:
        """As it is stored, amounts as text."""
        funds = {provider: str(amount) for provider, amount in self.funds.items()}
        return {"kind": self.kind, "amount": str(self.amount), "funds": funds}


def plan(facts: Facts, settings: UpkeepSettings) -> Move | None:
    """The next move; None if all is as it should be."""
    for provider, kept in sorted(facts.kept.items()):
        if kept.is_due:
            return Move("claim", kept.refund, {provider: kept.refund})
    return _plan_fund(facts, settings) or _plan_return(facts, settings)


def _plan_fund(facts: Facts, settings: UpkeepSettings) -> Move | None:
    left = min(settings.daily_cap - facts.moved, facts.account + facts.wallet)
    funds: dict[Address, int] = {}
    for provider in facts.wanted[:SUB_ACCOUNTS_PER_OPEN_MAX]:
        kept = facts.kept.get(provider, Kept(0))
        if kept.available >= settings.refill_below:
            continue
        if kept.refund:
            return Move("cancel", kept.refund, {provider: kept.refund})
        most = left
        if provider in facts.asked:
            most = settings.daily_cap // 2 - facts.moved - sum(funds.values())
        amount = min(settings.target - kept.available, left, most)
        if amount * SMALLEST_PART >= settings.target - kept.available:
            funds[provider] = amount
            left -= amount
    if not funds:
        return None
    return Move("fund", max(0, sum(funds.values()) - facts.account), funds)


def _plan_return(facts: Facts, settings: UpkeepSettings) -> Move | None:
    if not settings.idle_s:
        return None
    for provider, kept in sorted(facts.kept.items()):
        is_idle = kept.idle_for_s >= settings.idle_s and provider not in facts.wanted
        if is_idle and kept.available and not kept.refund:
            return Move("refund", kept.available, {provider: kept.available})
    if not settings.return_to or facts.wanted or facts.idle_for_s < settings.idle_s:
        return None
    if facts.account:
        return Move("withdraw", facts.account)
    return Move("send", facts.wallet) if facts.wallet else None
