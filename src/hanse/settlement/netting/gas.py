"""What gas costs in the asset, by the chain's prices and the provider's rules. Pure.

Gas is paid in native coin, settlements bring the asset; `native_price` joins the two. Costs and
what they may be are compared in units of 10**-18 base units, so that nothing is rounded where it
decides.

Source: docs/decisions/0015-netting.md; the gas figures: docs/measurements.md.
"""

from dataclasses import dataclass

from hanse.protocol.limits import CLAIMS_PER_SETTLEMENT_MAX

SETTLE_GAS = 60_000
"""Of one settlement whatever its claims: 57,200 measured, rounded up."""

CLAIM_GAS = 13_000
"""Of one more claim: 12,450 measured, rounded up to the bar that bench-gas holds."""

REFUND_GAS = 70_000
"""Of completing one refund into an account that was empty."""

BLOCK_GAS = 30_000_000
"""A block's gas where the node names none."""

GAS_MARGIN_PERCENT = 25
"""What the outbox adds to an estimate: a transaction needs that much room in a block too."""

WEI_PER_NATIVE = 10**18
PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class GasMarket:
    """What the chain asks at this moment.

    Attributes:
        gas_price_wei: base fee and tip of one gas.
        block_gas_limit: 0 if the node names none.
        time_s: of the chain's head, unix seconds: refunds unlock by the chain's clock.
    """

    gas_price_wei: int
    block_gas_limit: int
    time_s: int


@dataclass(frozen=True, slots=True)
class SettlementRules:
    """What the provider decided.

    Attributes:
        interval_s: how long something may wait; 0: the clock never calls for a settlement.
        refund_margin_s: a refund calls for its claim this long before it unlocks.
        exposure_max: base units that may wait; more calls for a settlement. 0: no limit.
        value_min: base units below which only a person and refunds call for one.
        gas_share_ppm: most of a claim's value that gas may take, in parts per million.
        native_price: base units for 10**18 wei of the native coin; 0: gas costs nothing here.
        block_share_percent: of a block's gas that one transaction may need: one that wants a whole
            block waits for an empty one.
        overdue_after_s: past its time, after which a settlement is an alarm.
    """

    interval_s: float = 86_400.0
    refund_margin_s: float = 3_600.0
    exposure_max: int = 0
    value_min: int = 1
    gas_share_ppm: int = 10_000
    native_price: int = 0
    block_share_percent: int = 50
    overdue_after_s: float = 3_600.0


def get_cost(gas: int, market: GasMarket, rules: SettlementRules) -> int:
    """Of so much gas, in base units, rounded up."""
    return -(-get_scaled_cost(gas, market, rules) // WEI_PER_NATIVE)


def is_refund_worth_completing(
    refund: int, owed: int, market: GasMarket, rules: SettlementRules
) -> bool:
    """Whether completing somebody's refund costs at most the gas share of what it moves.

    What its sub-account still owes counts as a cost, since it is lost with the refund. Nobody
    repays the provider for any of it; but whoever asks for refunds to make it spend has spent more
    gas on them, and has a hundred times the cost lying in each.
    """
    cost = get_scaled_cost(REFUND_GAS, market, rules) + owed * WEI_PER_NATIVE
    return cost <= get_scaled_share(refund, rules)


def get_refund_fee_cap(refund: int, owed: int, rules: SettlementRules) -> int:
    """The price of one gas, wei, above which completing a refund is not worth it; 0: none is."""
    if not rules.native_price:
        return 0
    worth = get_scaled_share(refund, rules) - owed * WEI_PER_NATIVE
    return worth // (REFUND_GAS * rules.native_price)


def get_claims_max(market: GasMarket, rules: SettlementRules) -> int:
    """Claims of one transaction that leaves room in a block for others; at least one."""
    block = market.block_gas_limit or BLOCK_GAS
    room = block * rules.block_share_percent // (100 + GAS_MARGIN_PERCENT)
    return max(1, min(CLAIMS_PER_SETTLEMENT_MAX, (room - SETTLE_GAS) // CLAIM_GAS))


def get_scaled_cost(gas: int, market: GasMarket, rules: SettlementRules) -> int:
    """Of so much gas, exactly, in 10**-18 base units."""
    return gas * market.gas_price_wei * rules.native_price


def get_scaled_share(value: int, rules: SettlementRules) -> int:
    """What gas may take of so many base units, exactly, in 10**-18 of them."""
    return value * rules.gas_share_ppm * (WEI_PER_NATIVE // PPM)
