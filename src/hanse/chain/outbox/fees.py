"""What a transaction offers for its place in a block: EIP-1559 fees under a cap, and their raises.

Pure arithmetic; the outbox asks the node and the clock.

Source: EIP-1559; the 10 % replacement rule of geth's and reth's transaction pools (12.5 % in older
clients, which is what `RAISE_PERCENT` meets).
"""

from dataclasses import dataclass, replace

GWEI = 10**9

RAISE_PERCENT = 13
"""A replacement pays this much more in both fees; pools refuse less than 10 to 12.5 %."""


@dataclass(frozen=True)
class FeePolicy:
    """How much to pay for gas, and when to insist.

    Attributes:
        max_fee_cap_wei: never offer more for one gas, whatever the market asks; then wait.
        tip_wei: the tip a gas; None takes the node's proposal.
        gas_margin_percent: added to an estimate, as state may change before the transaction runs.
        rebroadcast_after_s: send the same bytes again, in case the node forgot them.
        raise_after_s: sign again with higher fees.
    """

    max_fee_cap_wei: int = 500 * GWEI
    tip_wei: int | None = None
    gas_margin_percent: int = 25
    rebroadcast_after_s: float = 10.0
    raise_after_s: float = 60.0

    def capped(self, fee_cap_wei: int) -> "FeePolicy":
        """For one call that is not worth more than this for one gas; 0 changes nothing."""
        cap = min(self.max_fee_cap_wei, fee_cap_wei or self.max_fee_cap_wei)
        return replace(self, max_fee_cap_wei=cap)


@dataclass(frozen=True)
class Fee:
    """Offer for one gas, in wei; `max_fee_wei` includes the tip."""

    tip_wei: int
    max_fee_wei: int


def find_fee(policy: FeePolicy, base_fee_wei: int, proposed_tip_wei: int) -> Fee | None:
    """The fee for a first attempt; None while the market is above the cap.

    Twice the base fee leaves room for six full blocks of rises (12.5 % each).
    """
    tip = min(
        policy.tip_wei if policy.tip_wei is not None else proposed_tip_wei, policy.max_fee_cap_wei
    )
    if base_fee_wei + tip > policy.max_fee_cap_wei:
        return None
    return Fee(tip, min(2 * base_fee_wei + tip, policy.max_fee_cap_wei))


def find_raised_fee(policy: FeePolicy, last: Fee, market: Fee) -> Fee | None:
    """The fee for a replacement; None if the cap leaves no room for one that pools accept."""
    raised = Fee(
        max(market.tip_wei, _raise(last.tip_wei)), max(market.max_fee_wei, _raise(last.max_fee_wei))
    )
    return raised if raised.max_fee_wei <= policy.max_fee_cap_wei else None


def _raise(wei: int) -> int:
    # Rounded up, so that a fee of a few wei rises too.
    return -(-wei * (100 + RAISE_PERCENT) // 100)
