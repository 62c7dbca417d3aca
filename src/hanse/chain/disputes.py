"""Disputes with types: auditors, challenges, panels and their votes.

    disputes = open_disputes(rpc, deployment)
    challenge = await disputes.read_challenge(name, block=confirmed)

Reads are views at `block`; writes return a `Call`. Promises and revert reasons stand in
`Disputes.vy`; how names, sealed votes and answers are hashed in `protocol.ledger.panels.sealing`.

Source: docs/decisions/0032-disputes-by-panel.md.
"""

from dataclasses import dataclass, replace
from typing import Any

from hanse.chain.chain_types import BlockNumber, Call, Event
from hanse.chain.contract import Contract
from hanse.chain.escrow import get_receipt_arguments
from hanse.chain.rpc import Rpc
from hanse.contracts.artifacts import load_artifact
from hanse.contracts.deployment import PanelTerms
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.protocol.ledger.panels.state import (
    Auditor,
    Ballot,
    BallotStatus,
    Challenge,
    Round,
    Stage,
)
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import to_bytes, to_hex


@dataclass(frozen=True)
class Challenged:
    """A challenge, as its event tells it: what an auditor needs to find and check the evidence."""

    challenge: str
    provider: str
    challenger: str
    user: str
    receipt_hash: str
    evidence_hash: str
    uri: str
    sealed_answer: str
    seed_block: int


@dataclass(frozen=True)
class Closed:
    """How a challenge ended; amounts in base units."""

    challenge: str
    provider: str
    verdict: Verdict
    answer: Verdict
    opened: bool
    slashed: int
    compensation: int


class Disputes:
    """Disputes at an address, through one node."""

    def __init__(self, rpc: Rpc, address: str) -> None:
        self.contract = Contract(rpc, load_artifact("Disputes"), address)
        self.address = self.contract.address

    # reads

    async def read_terms(self, *, block: BlockNumber) -> PanelTerms:
        """What was fixed at the deployment."""
        (found,) = await self.contract.read("terms", block=block)
        return PanelTerms(*found)

    async def read_auditor(self, auditor: str, *, block: BlockNumber) -> Auditor:
        """Lots, stake and open seats; zeros if it never joined."""
        (found,) = await self.contract.read("get_auditor", auditor, block=block)
        return Auditor(*found)

    async def read_auditor_count(self, *, block: BlockNumber) -> int:
        """How many auditors have a lot."""
        (found,) = await self.contract.read("auditor_count", block=block)
        return int(found)

    async def read_credit(self, holder: str, *, block: BlockNumber) -> int:
        """Base units that `withdraw` would pay to it."""
        (found,) = await self.contract.read("credits", holder, block=block)
        return int(found)

    async def read_challenge(self, challenge: str, *, block: BlockNumber) -> Challenge:
        """One challenge; stage 0 if there is none of this name."""
        name = to_bytes(challenge)
        (found,) = await self.contract.read("get_challenge", name, block=block)
        challenger, provider, user, fee, sealed, stage, number, until_s, appellant = found
        return Challenge(
            challenger,
            provider,
            user,
            fee,
            to_hex(sealed),
            Stage(stage),
            number,
            until_s,
            appellant,
        )

    async def read_round(
        self, challenge: str, round_number: int, *, block: BlockNumber
    ) -> tuple[Round, tuple[str, ...]]:
        """One panel's times and votes, and who sits on it; round 1, or 2 for the appeal."""
        arguments = to_bytes(challenge), round_number
        (found,) = await self.contract.read("get_round", *arguments, block=block)
        (panel,) = await self.contract.read("get_panel", *arguments, block=block)
        return replace(Round(*found), verdict=Verdict(found[-1])), tuple(panel)

    async def read_ballot(
        self, challenge: str, round_number: int, auditor: str, *, block: BlockNumber
    ) -> Ballot:
        """What one auditor did with its seat."""
        arguments = to_bytes(challenge), round_number, auditor
        (found,) = await self.contract.read("get_ballot", *arguments, block=block)
        return Ballot(BallotStatus(found[0]), to_hex(found[1]))

    # the auditors' calls

    def join(self, count: int) -> Call:
        """Buy lots, or fill up after fines; the asset's allowance for Disputes must cover it."""
        return self.contract.build("join", count, label=f"join with {count} lots")

    def retire(self) -> Call:
        """Be drawn no more."""
        return self.contract.build("retire", label="retire as auditor")

    def leave(self, count: int) -> Call:
        """Give lots back; their stake becomes a credit."""
        return self.contract.build("leave", count, label=f"leave with {count} lots")

    def seal_vote(self, challenge: str, sealed_vote: str) -> Call:
        """Fix a vote without showing it."""
        return self.contract.build(
            "seal_vote", to_bytes(challenge), to_bytes(sealed_vote), label=f"vote on {challenge}"
        )

    def reveal_vote(self, challenge: str, verdict: Verdict, salt: str) -> Call:
        """Show a sealed vote."""
        return self.contract.build(
            "reveal_vote",
            to_bytes(challenge),
            int(verdict),
            to_bytes(salt),
            label=f"reveal the vote on {challenge}",
        )

    # the parties' calls

    def challenge(
        self, signed: SignedReceipt, evidence_hash: str, uri: str, sealed_answer: str
    ) -> Call:
        """Accuse; the asset's allowance for Disputes must cover bond and fees."""
        return self.contract.build(
            "challenge",
            *get_receipt_arguments(signed),
            to_bytes(evidence_hash),
            uri,
            to_bytes(sealed_answer),
            label=f"challenge a receipt of {signed.receipt.provider}",
        )

    def respond(self, challenge: str, evidence_hash: str, uri: str) -> Call:
        """Lay the provider's own evidence beside the challenger's."""
        arguments = to_bytes(challenge), to_bytes(evidence_hash), uri
        return self.contract.build("respond", *arguments, label=f"respond to {challenge}")

    def appeal(self, challenge: str) -> Call:
        """Have a larger panel judge; the allowance must cover twice the bond and the fees."""
        return self.contract.build("appeal", to_bytes(challenge), label=f"appeal {challenge}")

    def open_answer(self, challenge: str, answer: Verdict, salt: str) -> Call:
        """Open a challenge's sealed answer and close it."""
        arguments = to_bytes(challenge), int(answer), to_bytes(salt)
        return self.contract.build("open_answer", *arguments, label=f"close {challenge}")

    # anyone's calls

    def draw(self, challenge: str) -> Call:
        """Draw the panel."""
        return self.contract.build("draw", to_bytes(challenge), label=f"draw for {challenge}")

    def tally(self, challenge: str) -> Call:
        """Count the votes."""
        return self.contract.build("tally", to_bytes(challenge), label=f"tally {challenge}")

    def close(self, challenge: str) -> Call:
        """Close a challenge whose answer was not opened in time, or that has no verdict."""
        return self.contract.build("close", to_bytes(challenge), label=f"close {challenge}")

    def withdraw(self) -> Call:
        """Take what the sender is credited with."""
        return self.contract.build("withdraw", label="withdraw credit of Disputes")


def parse_challenged(event: Event) -> Challenged:
    """A `Challenged` event of Disputes with its types.

    Raises:
        ValueError: it is another event.
    """
    return Challenged(**_get_fields(event, "Challenged"))


def parse_closed(event: Event) -> Closed:
    """A `Closed` event of Disputes with its types.

    Raises:
        ValueError: it is another event.
    """
    fields = _get_fields(event, "Closed")
    verdict, answer = Verdict(fields["verdict"]), Verdict(fields["answer"])
    return Closed(**{**fields, "verdict": verdict, "answer": answer})


def _get_fields(event: Event, name: str) -> dict[str, Any]:
    if (event.contract, event.name) != ("Disputes", name):
        raise ValueError(f"Disputes.{name} expected, {event.contract}.{event.name} given")
    return {
        field: to_hex(value) if isinstance(value, bytes) else value
        for field, value in event.fields.items()
    }
