"""Disputes raised by the user's side itself: every claim is checked, every cheat is proven.

    await hanse.get_disputes()                 what was found, and what became of it
    await prove(outbox, escrow, evidence)      raise one from a file, for whoever it concerns

watching   Disputes: look, store, raise, follow up; a loop of `Hanse` does it
rounds     what a look knows of all disputes together
proving    what a proof says, and sending it once
alarms     what a person should look at, beside the alarms of the money
opening    from settings to Disputes

Source: `docs/decisions/0016-disputes.md`.
"""

from hanse.sdk.disputes.alarms import find_dispute_alarms
from hanse.sdk.disputes.opening import open_disputes
from hanse.sdk.disputes.proving import build_proof, describe, prove
from hanse.sdk.disputes.watching import ClaimsView, Disputes

__all__ = [
    "ClaimsView",
    "Disputes",
    "build_proof",
    "describe",
    "find_dispute_alarms",
    "open_disputes",
    "prove",
]
