"""What one request may still spend, and the guard that asks it before each voucher.

The request itself counts once, when it is admitted. Tokens and money count by voucher: a repair, a
hedge or the rest of a broken stream is a voucher of its own, with a maximum of its own. So the
guard stands where vouchers are signed (`hanse.sdk.purchase.spending`) and learns there what each
came to. Whose request it is goes with the task, so that nothing between here and there has to know.

A voucher whose end nobody learns counts in full, from `UNKNOWN_S` on for good: the provider may
have served it.
"""

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from hanse.gateway.budgets.holds import Demand, Hold, Refusal
from hanse.gateway.budgets.ledger import Ledger
from hanse.protocol.errors import RequestError

UNKNOWN_S = 900.0
"""The end of a voucher is known within its deadline and some rounds of resuming, or not at all."""


class LimitError(RequestError):
    """A limit does not let a request through.

    `refusal` says which; a `RequestError` since trying elsewhere does not help.
    """

    def __init__(self, refusal: Refusal) -> None:
        demand, limit = refusal.demand, refusal.limit
        whose = _name(demand.subject)
        what = "base units" if refusal.measure == "money" else refusal.measure
        span = f"a {demand.window.name}"
        details = {
            "limit": str(limit),
            "spent": str(refusal.spent),
            "needed": str(refusal.needed),
            "available": str(max(0, limit - refusal.spent)),
            "measure": refusal.measure,
            "window": demand.window.name,
            "whose": whose,
        }
        if refusal.retry_after_s is None:
            fewer = "" if refusal.measure == "requests" else "ask for fewer tokens, or "
            message = (
                f"this request can take up to {refusal.needed} {what}, {whose} may take {limit} "
                f"{span}: {fewer}have the limit raised"
            )
        else:
            details["retry_after_s"] = str(round(refusal.retry_after_s, 1))
            message = (
                f"{whose} may take {limit} {what} {span}; {refusal.spent} are spent or at work, "
                f"this request can take up to {refusal.needed}: try again in "
                f"{refusal.retry_after_s:.0f} s"
            )
        code = "budget_exhausted" if refusal.measure == "money" else "rate_limited"
        super().__init__(code, message, details=details, retry_after_s=refusal.retry_after_s)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Purse:
    """The limits of tokens and money that one request's vouchers must be within."""

    demands: Sequence[Demand]


PURSE: ContextVar[Purse | None] = ContextVar("hanse_purse", default=None)
"""Of the request that this task works for; None where nothing is limited."""


class Guard:
    """A `SpendingGuard` over the ledger."""

    def __init__(self, ledger: Ledger, now_s: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._now_s = now_s
        self._open: dict[str, tuple[Hold, float]] = {}

    def watches(self) -> bool:
        """See `SpendingGuard.watches`."""
        return PURSE.get() is not None

    async def reserve(self, request_id: str, tokens: int, fee: int) -> None:
        """See `SpendingGuard.reserve`.

        Raises:
            LimitError: it is more than the request may still spend.
        """
        purse = PURSE.get()
        if purse is None:
            return
        held = await self._ledger.reserve(purse.demands, (0, tokens, fee))
        if isinstance(held, Refusal):
            raise LimitError(held)
        self._open[request_id] = held, self._now_s()

    def end(self, request_id: str, tokens: int, fee: int) -> None:
        """See `SpendingGuard.end`."""
        held, _ = self._open.pop(request_id, (None, 0.0))
        if held is not None:
            self._ledger.settle(held, (0, tokens, fee))

    def give_up(self) -> None:
        """Count in full what nobody will ever learn the end of."""
        before_s = self._now_s() - UNKNOWN_S
        for request_id, (held, since_s) in list(self._open.items()):
            if since_s > before_s:
                break  # they are in the order of their time
            del self._open[request_id]
            self._ledger.settle(held, held.amounts)


def _name(subject: str) -> str:
    kind = subject.partition(":")[0]
    return {"key": "this API key", "user": "this end user"}.get(kind, "this gateway")
