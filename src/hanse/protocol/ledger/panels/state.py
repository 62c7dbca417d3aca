"""What Disputes stores, as frozen values in the order of its structs.

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.protocol.signatures import ZERO_ADDRESS, ZERO_HASH, Address, Hash32

FIRST_ROUND, APPEAL_ROUND = 1, 2


class Stage(IntEnum):
    """Where a challenge stands; the numbers are the contract's."""

    UNKNOWN = 0
    DRAWING = 1
    VOTING = 2
    DECIDED = 3
    CLOSED = 4


class BallotStatus(IntEnum):
    """What became of a seat; a revealed vote has its verdict's number."""

    NONE = 0
    UPHELD = 1
    REJECTED = 2
    SEATED = 3
    SEALED = 4


@dataclass(frozen=True)
class PanelRules:
    """What a deployment fixes for good; see `contracts.deployment.PanelTerms`."""

    lot_stake: int
    bond: int
    seat_fee: int
    seats: int
    appeal_seats: int
    audit_window_s: int
    vote_time_s: int
    reveal_time_s: int
    appeal_time_s: int
    answer_time_s: int

    def get_seats(self, round_number: int) -> int:
        """Seats of a round's panel."""
        return self.seats if round_number == FIRST_ROUND else self.appeal_seats

    def get_fees(self, round_number: int) -> int:
        """Base units that a round's payer puts in for all its seats."""
        return self.get_seats(round_number) * self.seat_fee


@dataclass(frozen=True)
class Auditor:
    """Stake in base units; `eligible_from_s` of 0 means retired, or never joined."""

    lots: int = 0
    stake: int = 0
    open_seats: int = 0
    eligible_from_s: int = 0


@dataclass(frozen=True)
class Challenge:
    """An accusation that a panel decides.

    Attributes:
        challenger: who brought it.
        provider: who is accused.
        user: whose receipt it is.
        fee: the receipt's, base units.
        sealed_answer: see `seal_answer`.
        stage: where it stands.
        round: 1, or 2 in appeal.
        until_s: when a decided one can no longer be appealed.
        appellant: who appealed.
    """

    challenger: Address = ZERO_ADDRESS
    provider: Address = ZERO_ADDRESS
    user: Address = ZERO_ADDRESS
    fee: int = 0
    sealed_answer: Hash32 = ZERO_HASH
    stage: Stage = Stage.UNKNOWN
    round: int = 0
    until_s: int = 0
    appellant: Address = ZERO_ADDRESS


@dataclass(frozen=True)
class Round:
    """One panel's draw and votes.

    Attributes:
        seed_block: whose hash is the seed.
        lots: lots that stood when the draw was asked for.
        opened_s: when that was.
        draws: how often was drawn.
        vote_until_s, reveal_until_s: until when votes are sealed, and revealed.
        sealed, revealed, upheld: votes so far.
        verdict: what more than half of the seats voted.
    """

    seed_block: int = 0
    lots: int = 0
    opened_s: int = 0
    draws: int = 0
    vote_until_s: int = 0
    reveal_until_s: int = 0
    sealed: int = 0
    revealed: int = 0
    upheld: int = 0
    verdict: Verdict = Verdict.NONE


@dataclass(frozen=True)
class Ballot:
    """One seat's vote."""

    status: BallotStatus = BallotStatus.NONE
    sealed_vote: Hash32 = ZERO_HASH


NO_AUDITOR = Auditor()
NO_CHALLENGE = Challenge()
NO_ROUND = Round()
NO_BALLOT = Ballot()

RoundId = tuple[Hash32, int]
SeatId = tuple[Hash32, int, Address]


def _empty() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Panels:
    """All of Disputes' state. Missing keys mean zeros, as in the contract's storage.

    Attributes:
        auditors: who ever joined.
        lots: by number: whose it is, and which of the owner's, from 0.
        pending_draws: panels that are not drawn yet.
        open_challenges: challenges that are not closed yet.
        challenges: by name.
        receipt_hashes: EIP-712 digest of each challenge's receipt.
        paid_receipts: digests of receipts for which user and challenger had their due.
        rounds, panels: by name and round.
        ballots: by name, round and auditor.
        credits: base units that can be withdrawn.
        burned: base units that nobody can have any more.
        held: base units of the asset that Disputes holds.
    """

    auditors: Mapping[Address, Auditor] = field(default_factory=_empty)
    lots: tuple[tuple[Address, int], ...] = ()
    pending_draws: int = 0
    open_challenges: int = 0
    challenges: Mapping[Hash32, Challenge] = field(default_factory=_empty)
    receipt_hashes: Mapping[Hash32, Hash32] = field(default_factory=_empty)
    paid_receipts: frozenset[Hash32] = frozenset()
    rounds: Mapping[RoundId, Round] = field(default_factory=_empty)
    panels: Mapping[RoundId, tuple[Address, ...]] = field(default_factory=_empty)
    ballots: Mapping[SeatId, Ballot] = field(default_factory=_empty)
    credits: Mapping[Address, int] = field(default_factory=_empty)
    burned: int = 0
    held: int = 0
