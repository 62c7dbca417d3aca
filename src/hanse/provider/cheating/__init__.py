"""Cheats of a broker, for tests, the demo and the documentation; a development chain only.

    cheats = open_broker_cheats(["overbill"], receipt_key, domain)
    Broker(..., cheats=cheats)

An honest broker has None where each cheat would be, and looks no further. What each one gains and
what catches it: `docs/verification/cheats.md`. Those of engines: `hanse.engines.cheating`.

    overbill     overbilling.py    more tokens in the receipt than in the answer
    equivocate   equivocating.py   a second receipt for a sequence, when asked for the missing ones
    overclaim    overclaiming.py   the whole of the best voucher settled, not what receipts say
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from hanse.chain import Key
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Usage
from hanse.provider.cheating.equivocating import Equivocator
from hanse.provider.cheating.overbilling import overbill
from hanse.provider.cheating.overclaiming import overclaim
from hanse.settlement.books.receipt_records import DueClaim


@dataclass(frozen=True)
class BrokerCheats:
    """The hooks of a broker's path; None (and False) for what it does honestly.

    Attributes:
        usage: what is billed instead of what was delivered.
        receipts: what answers a query for receipts instead of those that are stored.
        claim: what is settled instead of what is owed.
        breaks_promises: whether an answer is billed that is not committed to as its offer says; an
            honest broker gives it away, and under a cheat's engine nothing else can be billed.
    """

    usage: Callable[[Usage], Usage] | None = None
    receipts: Equivocator | None = None
    claim: Callable[[DueClaim], DueClaim] | None = None
    breaks_promises: bool = False


HONEST = BrokerCheats()


def open_broker_cheats(names: Collection[str], key: Key, domain: Domain) -> BrokerCheats:
    """Those of `names` that a broker can do by itself; the receipt key signs what they need."""
    return BrokerCheats(
        overbill if "overbill" in names else None,
        Equivocator(key, domain) if "equivocate" in names else None,
        overclaim if "overclaim" in names else None,
        bool(names),
    )
