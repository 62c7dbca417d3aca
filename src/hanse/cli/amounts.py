"""Amounts as people read and write them: whole units of the asset with its symbol.

    units = AssetUnits("hUSD", 6)
    units.parse("12.5")          # 12500000
    units.format(12_500_000)     # "12.5 hUSD"

Prices are per million tokens and written the same way.
"""

from dataclasses import dataclass

from hanse.protocol.units import format_amount, parse_amount


@dataclass(frozen=True)
class AssetUnits:
    """How this network's asset is written.

    Attributes:
        symbol: such as `USDC`.
        decimals: decimal places of one whole unit.
    """

    symbol: str
    decimals: int

    def parse(self, text: str) -> int:
        """Base units of an amount such as `12.5`; a trailing symbol is allowed.

        Raises:
            RequestError: `amount_malformed` if it is not exact.
        """
        return parse_amount(text.strip().removesuffix(self.symbol), self.decimals)

    def format(self, amount: int) -> str:
        """The amount with its symbol, exactly."""
        return f"{format_amount(amount, self.decimals)} {self.symbol}"

    def format_number(self, amount: int) -> str:
        """The amount alone, for a column whose head names the symbol."""
        return format_amount(amount, self.decimals)
