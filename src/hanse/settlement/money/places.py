"""A place that holds money, with its words; and what is wrong with money, as alarms.

    Place("account", 1_000_000, why="...", until="...", command="hanse account withdraw all")
    Alarm("refund_overdue", 500_000, since_s, "...", "hanse account refund 0x... --claim")

The places of one party divide its money: each unit is in one of them, and what they hold adds up to
what the chain holds for it. Alarms count nothing; they say which unit should have moved by now.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.money.journal import Origin

REFUND_GRACE_S = 900
"""A broker looks every 30 s and waits for confirmations; a refund later than that is left lying."""

ALARM_CODES = (
    "refund_overdue",
    "settlement_overdue",
    "claim_at_risk",
    "unbonding_overdue",
    "condemned",
    "dispute_waits",
    "books_differ",
)
"""Every alarm there is; a closed set, so that metrics have a series for each from the start."""


@dataclass(frozen=True)
class Place:
    """Base units at one place.

    Attributes:
        place: its name; `user_money` and `provider_money` have the tables.
        amount: base units.
        provider, signer: of the sub-account; empty elsewhere.
        transaction_hash: of the newest transaction that put units there, or asked them back; empty
            if none did since we read the chain.
        unlock_time_s: when it comes free, unix seconds; 0 where no time frees it.
        why: why it is there, in words.
        until: until when, in words.
        command: what would free it, or move it on; empty if nobody of this side can.
        origins: the units by the transaction that put them there, newest first; they add up.
    """

    place: str
    amount: int
    provider: Address = ""
    signer: Address = ""
    transaction_hash: Hash32 = ""
    unlock_time_s: int = 0
    why: str = ""
    until: str = ""
    command: str = ""
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True)
class Alarm:
    """Something about money that a person should look at.

    Attributes:
        code: one of `ALARM_CODES`.
        amount: base units that it is about.
        since_s: since when, unix seconds; 0 if that is not known.
        message: what is wrong, in words.
        command: what to do; empty if the message says it.
    """

    code: str
    amount: int
    since_s: int
    message: str
    command: str = ""


def sum_by_place(places: Iterable[Place]) -> dict[str, int]:
    """Base units by the name of the place."""
    sums: dict[str, int] = {}
    for place in places:
        sums[place.place] = sums.get(place.place, 0) + place.amount
    return sums


def sum_by_code(alarms: Iterable[Alarm]) -> dict[str, int]:
    """How many alarms of each code; every code is there."""
    counts = dict.fromkeys(ALARM_CODES, 0)
    for alarm in alarms:
        counts[alarm.code] += 1
    return counts


def place_to_json(place: Place) -> dict[str, object]:
    """A place as a JSON document; amounts are decimal strings, as everywhere on the wire."""
    return {
        "place": place.place,
        "amount": str(place.amount),
        "provider": place.provider,
        "signer": place.signer,
        "transaction_hash": place.transaction_hash,
        "unlock_time_s": place.unlock_time_s,
        "why": place.why,
        "until": place.until,
        "command": place.command,
        "origins": [
            {
                "amount": str(origin.amount),
                "event": origin.event,
                "transaction_hash": origin.transaction_hash,
                "block_number": origin.block_number,
            }
            for origin in place.origins
        ],
    }


def alarm_to_json(alarm: Alarm) -> dict[str, object]:
    """An alarm as a JSON document."""
    return {
        "code": alarm.code,
        "amount": str(alarm.amount),
        "since_s": alarm.since_s,
        "message": alarm.message,
        "command": alarm.command,
    }


def format_duration(seconds: int) -> str:
    """A length of time in its largest two units: `1 d 4 h`."""
    parts = []
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"
