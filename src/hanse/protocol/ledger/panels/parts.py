"""What the transitions of Disputes share: looking things up, and writing them back.

Source: `Disputes.vy`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hanse.protocol.ledger.panels.state import (
    NO_AUDITOR,
    NO_CHALLENGE,
    NO_ROUND,
    Auditor,
    Challenge,
    PanelRules,
    Panels,
    Round,
    Stage,
)
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.state import Ledger
from hanse.protocol.signatures import Address, Hash32

LOTS_PER_CALL_MAX = 20
DRAWS_PER_CALL = 64
DRAWS_MAX = 640
SEED_DELAY_BLOCKS = 2
BLOCK_HASHES = 256
SEATS_PER_LOT = 32
MISTAKE_PART = 4
ABSENCE_PART = 16
"""The contract's, by the same names; a test compares them."""

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Now:
    """When a transaction is: its block's number and time."""

    block: int
    time_s: int


def get_rules(ledger: Ledger) -> PanelRules:
    """What Disputes was deployed with."""
    rules = ledger.rules.panels
    assert rules is not None, "this ledger was made without Disputes"
    return rules


def get_auditor(panels: Panels, auditor: Address) -> Auditor:
    """One auditor; zeros if it never joined."""
    return panels.auditors.get(auditor, NO_AUDITOR)


def get_round(panels: Panels, name: Hash32, number: int) -> Round:
    """One round; zeros if there is none."""
    return panels.rounds.get((name, number), NO_ROUND)


def require_stage(panels: Panels, name: Hash32, *stages: Stage) -> Challenge:
    """The challenge, if it is at one of these stages. Refuses "stage"."""
    found = panels.challenges.get(name, NO_CHALLENGE)
    if found.stage not in stages:
        wanted = " or ".join(stage.name.lower() for stage in stages)
        raise refuse("stage", f"the challenge is {found.stage.name.lower()}, not {wanted}")
    return found


def put(mapping: Mapping[Key, Value], key: Key, value: Value) -> Mapping[Key, Value]:
    """The mapping with one entry changed."""
    return {**mapping, key: value}


def with_panels(ledger: Ledger, **changes: Any) -> Ledger:
    """The ledger with fields of `Panels` changed."""
    return replace(ledger, panels=replace(ledger.panels, **changes))


def open_round(ledger: Ledger, name: Hash32, number: int, now: Now) -> tuple[Ledger, int]:
    """Ask for a draw among the lots that stand now; the seed is a block that nobody knows yet."""
    panels = ledger.panels
    seed_block = now.block + SEED_DELAY_BLOCKS
    opened = Round(seed_block=seed_block, lots=len(panels.lots), opened_s=now.time_s)
    after = with_panels(
        ledger,
        rounds=put(panels.rounds, (name, number), opened),
        pending_draws=panels.pending_draws + 1,
    )
    return after, seed_block
