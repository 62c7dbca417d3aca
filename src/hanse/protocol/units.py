"""Money and prices as integers.

Every amount inside Hanse is an `int` of the asset's base units; text appears only at the edges and
floats nowhere. The two roundings of the protocol live here: a fee rounds up, once a request, in the
provider's favour; text that an amount is read from must be exact.

Source: `docs/protocol.md`, section "Amounts".
"""

from typing import NewType

from hanse.protocol.errors import RequestError
from hanse.protocol.limits import AMOUNT_MAX, ASSET_DECIMALS_MAX

Amount = NewType("Amount", int)
"""Base units of the asset, 0 .. 2**96 - 1 (one sub-account's half of a storage word)."""

TOKENS_PER_PRICE_UNIT = 1_000_000
"""A price is base units per this many tokens."""


def get_fee(counts_and_prices: tuple[tuple[int, int], ...]) -> int:
    """Price times usage, rounded up once over the sum.

    Args:
        counts_and_prices: pairs of a token count and its price in base units per million tokens.

    Returns:
        The fee in base units, rounded up (in the provider's favour) by less than one base unit.
    """
    total = 0
    for count, price in counts_and_prices:
        total += count * price
    return -(-total // TOKENS_PER_PRICE_UNIT)


def parse_amount(text: str, decimals: int) -> int:
    """Read an amount as people write it ("12.5") into base units, exactly.

    Args:
        text: digits with at most one point; no sign, no exponent, no separators.
        decimals: decimal places of the asset, 0 .. 36.

    Raises:
        RequestError: `amount_malformed` if the text is no such number, has more decimal places than
            the asset (nothing is ever rounded away here), or is above 2**96 - 1 base units.
    """
    _check_decimals(decimals)
    whole, point, fraction = text.strip().partition(".")
    digits = whole + fraction
    if len(digits) > 60 or not digits.isascii() or not digits.isdigit() or (point and not fraction):
        raise RequestError("amount_malformed", f"{text[:80]!r} is not an amount such as 12 or 12.5")
    if len(fraction) > decimals:
        raise RequestError(
            "amount_malformed",
            f"{text!r} has {len(fraction)} decimal places, the asset has {decimals}",
        )
    scale: int = 10**decimals
    amount = int(whole or "0") * scale + int(fraction.ljust(decimals, "0") or "0")
    if amount > AMOUNT_MAX:
        raise RequestError(
            "amount_malformed", f"{text!r} is above the most that is possible, {AMOUNT_MAX}"
        )
    return amount


def format_amount(amount: int, decimals: int) -> str:
    """Write base units as people read them, exactly: 12500000 with 6 decimals is "12.5"."""
    _check_decimals(decimals)
    sign, digits = ("-", -amount) if amount < 0 else ("", amount)
    whole, fraction = divmod(digits, 10**decimals)
    tail = f"{fraction:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{sign}{whole}.{tail}" if tail else f"{sign}{whole}"


def _check_decimals(decimals: int) -> None:
    if not 0 <= decimals <= ASSET_DECIMALS_MAX:
        raise RequestError(
            "amount_malformed", f"{decimals} decimals is outside 0 .. {ASSET_DECIMALS_MAX}"
        )
