"""A user's money, place by place, in words. Pure: facts in, places and alarms out.

| place | means |
| --- | --- |
| wallet | the asset's own balance of the address |
| account | free in Escrow; `withdraw` pays it out |
| free | of a sub-account: may be committed to new requests |
| reserved | of a sub-account: for requests in flight |
| accrued | of a sub-account: receipted, not claimed by the provider yet |
| refund | of a sub-account: asked back, free at `unlock_time_s` |
| stake | in Registry, if the wallet is a provider too |
| auditing | in Disputes, the stake of its lots, if it is an auditor too |
| credit | in Disputes: what a challenge awarded, such as the part of a cheat's victim |

A sub-account's parts are its balance on the chain exactly. Accrued comes first, since the provider
can claim it already; then what is in flight, then the refund, then what is left. Where the balance
is too small for a part, the part is cut.

Source: `Escrow.vy`, `Registry.vy`; complaints 1 and 4 in the peers' notes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hanse.protocol.books import UserBook
from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.money.journal import (
    JournalEntry,
    Origin,
    get_account_change,
    get_stake_change,
    get_sub_account_change,
    get_wallet_change,
    split_origins,
    trace_origins,
)
from hanse.settlement.money.places import REFUND_GRACE_S, Alarm, Place, format_duration
from hanse.settlement.money.stake import describe_stake, find_stake_alarm

Name = tuple[Address, Address]
"""Provider and signer, which name a user's sub-account."""


@dataclass(frozen=True)
class UserFacts:
    """All that a user's places follow from, at one confirmed block. Amounts in base units.

    Attributes:
        user: whose money.
        now_s: the chain's clock, which decides when a lock ends.
        lock_time_s: how long a refund waits.
        start_block: the first block whose events were read.
        wallet, account, stake: as the contracts say.
        unbonding_until_s: when the stake comes free; 0 if it stays.
        funds: every sub-account, by events.
        books: what this side signed and acknowledged.
        deadlines: the last deadline of what is in flight.
        journal: of Escrow and Registry, oldest first.
        transfers: of the wallet, oldest first.
        by_events: the account as the journal adds up.
        condemned: whether a proof against the user as a provider was accepted.
        auditing, credit: as Disputes says.
    """

    user: Address
    now_s: int
    lock_time_s: int
    start_block: int
    wallet: int
    account: int
    stake: int = 0
    unbonding_until_s: int = 0
    funds: Mapping[Name, SubAccountFunds] = field(default_factory=dict)
    books: Mapping[Name, UserBook] = field(default_factory=dict)
    deadlines: Mapping[Name, int] = field(default_factory=dict)
    journal: tuple[JournalEntry, ...] = ()
    transfers: tuple[JournalEntry, ...] = ()
    by_events: int = 0
    condemned: bool = False
    auditing: int = 0
    credit: int = 0


def get_user_places(facts: UserFacts) -> tuple[Place, ...]:
    """Every place with its words, also empty ones; together they are all of the user's money."""
    places = [_get_wallet(facts), _get_account(facts)]
    for name in sorted(facts.funds):
        places += _split_sub_account(facts, name)
    if facts.stake:
        places.append(_get_stake(facts))
    if facts.auditing:
        why, until = "stands for an auditor's votes", "its lots are given back and no seat is open"
        places.append(
            Place("auditing", facts.auditing, why=why, until=until, command="hanse disputes leave")
        )
    if facts.credit:
        why, until = "awarded by Disputes: to a cheat's victim, or for a vote", "you take it"
        places.append(
            Place("credit", facts.credit, why=why, until=until, command="hanse disputes withdraw")
        )
    return tuple(places)


def find_differences(facts: UserFacts) -> list[str]:
    """What does not add up between events and chain, in words; empty if all does."""
    found = []
    if facts.by_events != facts.account:
        found.append(
            f"account: events make {facts.by_events}, the chain holds {facts.account}",
        )
    entered = sum(get_account_change(e) + get_sub_account_change(e) for e in facts.journal)
    inside = facts.account + sum(of.balance for of in facts.funds.values())
    if inside != entered:
        found.append(
            f"Escrow holds {inside} for the user; what was deposited and compensated, less what "
            f"was withdrawn and paid, makes {entered}"
        )
    moved = sum(get_wallet_change(e) for e in facts.transfers)
    if moved > facts.wallet:
        found.append(
            f"wallet: transfers since block {facts.start_block} make {moved}, the asset says "
            f"{facts.wallet}"
        )
    staked = sum(get_stake_change(e) for e in facts.journal)
    if staked != facts.stake:
        found.append(f"stake: events make {staked}, Registry says {facts.stake}")
    return found


def find_user_alarms(facts: UserFacts, differences: list[str]) -> tuple[Alarm, ...]:
    """What should have moved by now and did not."""
    alarms = []
    for (provider, signer), of in sorted(facts.funds.items()):
        late_s = facts.now_s - of.refund_unlock_s
        if of.pending_refund and late_s > REFUND_GRACE_S:
            alarms.append(
                Alarm(
                    "refund_overdue",
                    of.pending_refund,
                    of.refund_unlock_s,
                    f"a refund from {provider} has been free for {format_duration(late_s)} and "
                    "nobody has completed it; anyone may",
                    _get_refund_command(facts, provider, signer, " --claim"),
                )
            )
    alarms += find_stake_alarm(
        facts.stake, facts.unbonding_until_s, facts.now_s, condemned=facts.condemned
    )
    alarms += [Alarm("books_differ", 0, 0, difference) for difference in differences]
    return tuple(alarms)


def _get_wallet(facts: UserFacts) -> Place:
    origins = trace_origins(facts.wallet, facts.transfers, get_wallet_change, facts.start_block)
    return Place(
        "wallet",
        facts.wallet,
        transaction_hash=_get_newest(origins),
        why="held by the address itself, outside Hanse's contracts",
        until="its key moves it",
        command="hanse account deposit all" if facts.wallet else "",
        origins=origins,
    )


def _get_account(facts: UserFacts) -> Place:
    origins = trace_origins(facts.account, facts.journal, get_account_change, facts.start_block)
    return Place(
        "account",
        facts.account,
        transaction_hash=_get_newest(origins),
        why="in Escrow, set aside for no provider",
        until="you withdraw it, at once, or fund a provider with it",
        command="hanse account withdraw all" if facts.account else "",
        origins=origins,
    )


def _get_stake(facts: UserFacts) -> Place:
    why, until, command = describe_stake(facts.stake, facts.unbonding_until_s, facts.now_s)
    origins = trace_origins(facts.stake, facts.journal, get_stake_change, facts.start_block)
    return Place(
        "stake",
        facts.stake,
        transaction_hash=_get_newest(origins),
        unlock_time_s=facts.unbonding_until_s,
        why=why,
        until=until,
        command=command,
        origins=origins,
    )


def _split_sub_account(facts: UserFacts, name: Name) -> list[Place]:
    of = facts.funds[name]
    book = facts.books.get(name) or UserBook(acknowledged_fee=of.claimed)
    left = of.balance
    parts = {}
    for part, wanted in (
        ("accrued", book.acknowledged_fee - of.claimed),
        ("reserved", book.in_flight_fee),
        ("refund", of.pending_refund),
    ):
        parts[part] = max(0, min(wanted, left))
        left -= parts[part]
    parts["free"] = left
    names = ("free", "refund", "reserved", "accrued")  # the newest units are the last to be spent
    mine = [e for e in facts.journal if (e.provider, e.signer) == name]
    origins = trace_origins(of.balance, mine, get_sub_account_change, facts.start_block)
    origins_by_part = dict(
        zip(names, split_origins(origins, [parts[part] for part in names]), strict=True)
    )
    return [
        _get_part(facts, name, part, parts[part], book, origins_by_part[part], mine)
        for part in ("free", "reserved", "accrued", "refund")
    ]


def _get_part(
    facts: UserFacts,
    name: Name,
    part: str,
    amount: int,
    book: UserBook,
    origins: tuple[Origin, ...],
    mine: list[JournalEntry],
) -> Place:
    provider, signer = name
    unlock_s = facts.funds[name].refund_unlock_s
    is_refund = part == "refund" and amount > 0
    asked = [e.transaction_hash for e in mine if e.name == "RefundRequested"]
    why, until, command = _describe_part(facts, name, part, book)
    return Place(
        part,
        amount,
        provider,
        signer,
        transaction_hash=(asked[-1] if asked else "") if is_refund else _get_newest(origins),
        unlock_time_s=unlock_s if is_refund else 0,
        why=why,
        until=until,
        command=command if amount else "",
        origins=origins,
    )


def _describe_part(facts: UserFacts, name: Name, part: str, book: UserBook) -> tuple[str, str, str]:
    provider, signer = name
    if part == "free":
        return (
            "set aside for this provider, and no request uses it",
            f"you ask for it back; then {format_duration(facts.lock_time_s)}, in which the "
            "provider may claim what was signed to it",
            _get_refund_command(facts, provider, signer),
        )
    if part == "reserved":
        return (
            f"the most that {book.in_flight} request(s) in flight can cost",
            _describe_end(facts, name),
            "",
        )
    if part == "accrued":
        return (
            "owed by receipts for answers that came, and not claimed yet",
            "the provider settles, once a day as a rule; it does not come back",
            "",
        )
    why = "asked back; until then the provider may claim what was signed to it before"
    left_s = facts.funds[name].refund_unlock_s - facts.now_s
    if left_s > 0:
        until = f"its lock ends, in {format_duration(left_s)}; then anyone may complete it"
        return why, until, _get_refund_command(facts, provider, signer, " --cancel")
    done = _get_refund_command(facts, provider, signer, " --claim")
    return "asked back, and its lock is over", "anyone completes it", done


def _describe_end(facts: UserFacts, name: Name) -> str:
    deadline_s = facts.deadlines.get(name, 0)
    if not deadline_s:
        return "their receipts come"
    if deadline_s <= facts.now_s:
        return "the provider says what became of them; the gateway, or the next hanse chat, asks it"
    left = format_duration(deadline_s - facts.now_s)
    return f"their receipts come, or their deadlines pass, in {left} at the latest"


def _get_refund_command(
    facts: UserFacts, provider: Address, signer: Address, flag: str = ""
) -> str:
    by = "" if signer == facts.user else f" --signer {signer}"
    return f"hanse account refund {provider}{flag}{by}"


def _get_newest(origins: tuple[Origin, ...]) -> Hash32:
    return origins[0].transaction_hash if origins else ""
