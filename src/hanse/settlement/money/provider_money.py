"""A provider's money, place by place, in words. Pure: facts in, places and alarms out.

| place | means |
| --- | --- |
| wallet | the asset's own balance of the owner's address |
| stake | in Registry |
| sent | claimed by a settlement that is on its way and not confirmed |
| claimable | owed by receipts, and the sub-accounts hold it |
| uncovered | owed by receipts, but the sub-account holds less: it was refunded before |

What was earned is what was settled and these last three, to the last unit; a difference would say
that the book is behind the chain. Settled money is the payee's: `paid_to` says who that is. What is
reserved for requests at work is not earned yet and in no place.

Source: `Escrow.vy`, `Registry.vy`, `hanse.settlement.books`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.protocol.signatures import Address
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.money.places import (
    REFUND_GRACE_S,
    Alarm,
    Place,
    alarm_to_json,
    format_duration,
    place_to_json,
)
from hanse.settlement.money.stake import describe_stake, find_stake_alarm

SETTLEMENT_GRACE_S = 3_600
"""Beyond the schedule: a settlement waits for a cheap block and for its confirmations."""

SCHEDULE_S = 86_400
"""Once a day, for a broker that settles on command only: then too somebody should."""


@dataclass(frozen=True)
class OwedSubAccount:
    """What one sub-account owes by its receipts. Amounts in base units.

    Attributes:
        user, signer: which one.
        cumulative_fee: of the newest receipt.
        funds: as the chain shows them.
        sent: cumulative, as the newest settlement on its way claims it; 0 if none is.
        waiting_since_s: when the oldest request that is not settled was admitted; 0 if unknown.
    """

    user: Address
    signer: Address
    cumulative_fee: int
    funds: SubAccountFunds
    sent: int = 0
    waiting_since_s: int = 0

    @property
    def owed(self) -> int:
        """Beyond what the chain shows as claimed."""
        return max(0, self.cumulative_fee - self.funds.claimed)

    @property
    def payable(self) -> int:
        """What a claim would bring now."""
        return min(self.owed, self.funds.balance)

    @property
    def on_its_way(self) -> int:
        """Of it, what a settlement claims already."""
        return max(0, min(self.sent - self.funds.claimed, self.payable))

    @property
    def at_risk(self) -> int:
        """Of it, what a pending refund would take if it were completed first."""
        left = self.funds.balance - self.funds.pending_refund
        return max(0, self.payable - left)


@dataclass(frozen=True)
class ProviderFacts:
    """All that a provider's places follow from, at one confirmed block. Amounts in base units.

    Attributes:
        name: of its keys at its operator's, for the commands.
        provider: the owner's address.
        paid_to: where settlements go.
        block: the confirmed block.
        now_s: the chain's clock.
        wallet, stake: as the contracts say.
        unbonding_until_s: when the stake comes free; 0 if it stays.
        condemned: whether a proof against it was accepted.
        earned: by all receipts ever.
        at_work: the most that requests at work may bring.
        owed: every sub-account that owes something.
        refunds: the sub-accounts with a pending refund, as (user, signer, funds).
        schedule_s: between settlements; 0 if only on command.
        margin_s: how long before a refund's end its sub-account is settled.
        minimum: base units due in all, below which the schedule waits.
    """

    name: str
    provider: Address
    paid_to: Address
    block: int
    now_s: int
    wallet: int
    stake: int
    unbonding_until_s: int
    condemned: bool
    earned: int
    at_work: int
    owed: Sequence[OwedSubAccount]
    refunds: Sequence[tuple[Address, Address, SubAccountFunds]] = ()
    schedule_s: float = SCHEDULE_S
    margin_s: float = 3_600
    minimum: int = 1


@dataclass(frozen=True)
class ProviderMoney:
    """A provider's money in words; see the module.

    Attributes:
        facts: what it follows from.
        places: every place, also empty ones.
        settled: of what was earned, what the chain shows as claimed.
        alarms: what should have moved by now and did not.
        symbol, decimals: how the asset is written.
    """

    facts: ProviderFacts
    places: tuple[Place, ...]
    settled: int
    alarms: tuple[Alarm, ...]
    symbol: str = ""
    decimals: int = 0


def get_provider_money(facts: ProviderFacts, symbol: str = "", decimals: int = 0) -> ProviderMoney:
    """Places, sums and alarms of one provider."""
    owed = sum(of.owed for of in facts.owed)
    return ProviderMoney(
        facts,
        _get_places(facts),
        facts.earned - owed,
        tuple(_find_alarms(facts)),
        symbol,
        decimals,
    )


def provider_money_to_json(money: ProviderMoney) -> dict[str, object]:
    """All of it as a JSON document; amounts are decimal strings, as everywhere on the wire."""
    facts = money.facts
    return {
        "provider": facts.provider,
        "paid_to": facts.paid_to,
        "block": facts.block,
        "chain_time": facts.now_s,
        "asset": {"symbol": money.symbol, "decimals": money.decimals},
        "earned": str(facts.earned),
        "settled": str(money.settled),
        "at_work": str(facts.at_work),
        "places": [place_to_json(place) for place in money.places],
        "alarms": [alarm_to_json(alarm) for alarm in money.alarms],
    }


def _get_places(facts: ProviderFacts) -> tuple[Place, ...]:
    settle = f"hanse settle{_get_flag(facts)}"
    payable = sum(of.payable for of in facts.owed)
    sent = sum(of.on_its_way for of in facts.owed)
    uncovered = sum(of.owed for of in facts.owed) - payable
    why, until, command = describe_stake(facts.stake, facts.unbonding_until_s, facts.now_s)
    return (
        Place(
            "wallet",
            facts.wallet,
            why="held by the owner's address itself, outside Hanse's contracts",
            until="its key moves it",
        ),
        Place(
            "stake",
            facts.stake,
            unlock_time_s=facts.unbonding_until_s,
            why="burned and paid out to victims: a proof against this provider was accepted"
            if facts.condemned
            else why,
            until=until,
            command=f"{command}{_get_flag(facts)}" if facts.stake else "",
        ),
        Place(
            "sent",
            sent,
            why="claimed by a settlement that is on its way",
            until="its transaction is confirmed; it is sent again until then",
            command=settle if sent else "",
        ),
        Place(
            "claimable",
            payable - sent,
            why="earned by receipts, held by users' sub-accounts, not claimed yet",
            until=_describe_schedule(facts),
            command=settle if payable > sent else "",
        ),
        Place(
            "uncovered",
            uncovered,
            why="earned by receipts, but the sub-accounts hold less: what was refunded is gone",
            until="their users fund them again; until then nothing brings it",
        ),
    )


def _describe_schedule(facts: ProviderFacts) -> str:
    if not facts.schedule_s:
        return "somebody settles: this broker does so on command only, and before a refund ends"
    every = format_duration(int(facts.schedule_s))
    return f"the next settlement: every {every}, and before a refund ends"


def _find_alarms(facts: ProviderFacts) -> list[Alarm]:
    settle = f"hanse settle{_get_flag(facts)}"
    alarms = [*_find_overdue_settlement(facts, settle), *_find_claims_at_risk(facts, settle)]
    for user, signer, of in facts.refunds:
        late_s = facts.now_s - of.refund_unlock_s
        if of.pending_refund and late_s > REFUND_GRACE_S:
            message = (
                f"the refund of {user} under signer {signer} has been free for "
                f"{format_duration(late_s)} and nobody has completed it: a running broker does"
            )
            alarms.append(Alarm("refund_overdue", of.pending_refund, of.refund_unlock_s, message))
    for alarm in find_stake_alarm(
        facts.stake, facts.unbonding_until_s, facts.now_s, condemned=facts.condemned
    ):
        command = f"{alarm.command}{_get_flag(facts)}" if alarm.command else ""
        alarms.append(Alarm(alarm.code, alarm.amount, alarm.since_s, alarm.message, command))
    ahead = sum(max(0, of.funds.claimed - of.cumulative_fee) for of in facts.owed)
    if ahead:
        message = (
            f"the chain shows {ahead} base units more as claimed than this book has receipts for: "
            "the database is an old copy"
        )
        alarms.append(Alarm("books_differ", ahead, 0, message))
    return alarms


def _find_overdue_settlement(facts: ProviderFacts, command: str) -> list[Alarm]:
    limit_s = (facts.schedule_s or SCHEDULE_S) + SETTLEMENT_GRACE_S
    waiting = [of for of in facts.owed if of.payable and of.waiting_since_s]
    late = [of for of in waiting if facts.now_s - of.waiting_since_s > limit_s]
    if not late or sum(of.payable for of in facts.owed) < facts.minimum:
        return []
    since_s = min(of.waiting_since_s for of in late)
    amount = sum(of.payable for of in late)
    message = (
        f"{len(late)} sub-accounts owe {amount} base units, the oldest for "
        f"{format_duration(facts.now_s - since_s)}; "
        f"the schedule is {format_duration(int(facts.schedule_s or SCHEDULE_S))}, and "
        "hanse settle --plan says what it waits for"
    )
    return [Alarm("settlement_overdue", amount, since_s, message, command)]


def _find_claims_at_risk(facts: ProviderFacts, command: str) -> list[Alarm]:
    """Half of the margin: in the first half the broker settles by itself."""
    near_s = facts.now_s + facts.margin_s / 2
    risky = [of for of in facts.owed if of.at_risk and of.funds.refund_unlock_s <= near_s]
    if not risky:
        return []
    amount = sum(of.at_risk for of in risky)
    first_s = min(of.funds.refund_unlock_s for of in risky)
    when = format_duration(max(0, first_s - facts.now_s))
    message = (
        f"{amount} base units are lost unless they are claimed before refunds end, the first of "
        f"them in {when}"
    )
    return [Alarm("claim_at_risk", amount, first_s, message, command)]


def _get_flag(facts: ProviderFacts) -> str:
    return "" if facts.name == "provider" else f" --name {facts.name}"
