"""The gateway's eye on its owner's money: alarms for `/health`, figures for `/metrics`.

    watch = MoneyWatch(client, metrics)
    task = asyncio.create_task(watch.run(60.0))
    watch.alarms                               # codes, for anyone who asks for the health
    advise(error, watch.last, "user")          # a 402 or 503 names the command that mends it

Amounts and words are for holders of an API key, at `GET /hanse/v1/money`; the health says only
which alarms there are. A look takes some reads of the chain's node, so it is made once in a while
and never by a request for health.

An application that gets a 402 or a 503 can do little itself; who reads its log can. So the error
carries the command in `error.hanse.next_step`, and its message ends with it: SDKs show the message.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from hanse.gateway.client import MarketClient
from hanse.gateway.metrics import GatewayMetrics
from hanse.protocol.errors import HanseError
from hanse.protocol.units import format_amount

if TYPE_CHECKING:
    from hanse.sdk.money import Money

_LOG = logging.getLogger("hanse.gateway")

DEFAULT_KEY = "user"
"""Whose money the commands move unless told otherwise."""

AMOUNT_DIGITS_MAX = 29
"""Of 2^96, above every amount."""

_UNSERVED = frozenset(("no_provider", "provider_unreachable", "engine_unavailable"))


class MoneyWatch:
    """Looks at the money once in a while.

    Attributes:
        alarms: their codes as of the last look, each once.
        last: what the last look found; None before the first.
    """

    def __init__(self, client: MarketClient, metrics: GatewayMetrics) -> None:
        self._client = client
        self._metrics = metrics
        self.alarms: tuple[str, ...] = ()
        self.last: Money | None = None

    async def read_document(self) -> dict[str, Any]:
        """Every place with its words, for `GET /hanse/v1/money`.

        Raises:
            TransientError: `chain_unavailable`.
        """
        # the chain's libraries take long to import, and keys need none of them
        from hanse.sdk.money import money_to_json, sum_by_code, sum_by_place

        self.last = money = await self._client.read_money()
        document = money_to_json(money)
        self._metrics.show_money(sum_by_place(money.places), sum_by_code(money.alarms))
        self.alarms = tuple(sorted({alarm.code for alarm in money.alarms}))
        return document

    async def run(self, every_s: float) -> None:
        """Look for ever; what the chain or the store refuse is asked again the next time."""
        while True:
            try:
                await self.read_document()
            except HanseError as error:
                _LOG.warning("the money could not be looked at: %s", error.message)
            await asyncio.sleep(every_s)


def advise(error: HanseError, money: "Money | None", wallet_key: str) -> None:
    """Add the next step to an error that has one.

    Args:
        error: of the market, with amounts and names in its details.
        money: as the gateway last saw it; None if it could not look yet.
        wallet_key: name of the paying key, where it is not the commands' default.
    """
    if error.code == "insufficient_balance":
        step = _get_funding(error, money)
        step += "" if wallet_key == DEFAULT_KEY else f" --key {wallet_key}"
    elif error.code in _UNSERVED and "upstream" not in error.details:  # servers of one's own
        step = "hanse offers"
    else:
        return
    error.details["next_step"] = step
    error.message = f"{error.message}. Whoever runs this gateway can do: {step}"


def _read_amount(text: object) -> int:
    """An amount in decimal digits; 0 for anything else."""
    if not isinstance(text, str) or len(text) > AMOUNT_DIGITS_MAX:
        return 0
    return int(text) if text.isascii() and text.isdecimal() else 0


def _get_funding(error: HanseError, money: "Money | None") -> str:
    """From the account where it has enough, else from the wallet in the same transaction."""
    details = error.details
    provider, signer = details.get("provider"), details.get("signer")
    missing = _read_amount(details.get("missing"))  # a provider's word
    if not provider or not missing or money is None:
        return "hanse money, then hanse account fund PROVIDER AMOUNT"
    amount = format_amount(missing, money.decimals)
    by = f" --signer {signer}" if signer and signer != money.user else ""
    held = sum(place.amount for place in money.places if place.place == "account")
    if held >= missing:
        return f"hanse account fund {provider} {amount}{by}"
    needed = format_amount(missing - held, money.decimals)
    return f"hanse account open --deposit {needed} {provider}={amount}{by}"
