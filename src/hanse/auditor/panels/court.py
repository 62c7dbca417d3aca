"""The Disputes contract at one block: looked at by anyone, moved by a key that can send.

    court = await read_court(rpc, deployment, address, outbox)
    entry = await court.send(court.disputes.join(1), pays=lot_stake)

What is sent is tried on the node first: a refusal costs no gas and is told in words.
"""

import secrets
from dataclasses import dataclass

from hanse.chain import Asset, Call, ChainError, Deployment, Outbox, OutboxEntry, Rpc
from hanse.chain.deployment import open_disputes
from hanse.chain.disputes import Challenged, Disputes, parse_challenged
from hanse.contracts.deployment import PanelTerms
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger import REVERT_REASONS
from hanse.protocol.ledger.panels.state import Challenge, Round, Stage
from hanse.protocol.signatures import Address, Hash32, to_hex

LOG_BLOCKS_MAX = 50_000
"""Blocks asked for in one look for events; nodes refuse much larger ranges."""


@dataclass(frozen=True)
class Case:
    """One challenge as it stands, with the panel of its present round."""

    name: Hash32
    event: Challenged
    challenge: Challenge
    round: Round
    panel: tuple[Address, ...]


@dataclass(frozen=True)
class Court:
    """Disputes at one block, and who acts.

    Attributes:
        deployment: the market's contracts.
        rpc: its node.
        disputes: the contract.
        terms: what it was deployed with.
        block: the head when it was read; what is decided by it is tried there again.
        now_s: its time.
        address: of the key that acts; the zero-length string if only looked at without one.
        outbox: None if only looked at.
    """

    deployment: Deployment
    rpc: Rpc
    disputes: Disputes
    terms: PanelTerms
    block: int
    now_s: int
    address: Address
    outbox: Outbox | None

    async def send(self, call: Call, *, pays: int = 0) -> OutboxEntry:
        """Try a call, approve what it takes, send it and wait until it is final.

        Raises:
            ChainError: it would be refused; the reason in words.
        """
        assert self.outbox is not None, "the court was opened to look at"
        if pays:
            asset = Asset(self.rpc, self.deployment.asset)
            allowed = await asset.read_allowance(
                self.address, self.disputes.address, block=self.block
            )
            if allowed < pays:
                approval = asset.approve(self.disputes.address, pays)
                await self.outbox.submit(f"panel-{secrets.token_hex(8)}", approval)
        try:
            await self.outbox.verify_sendable(call)
        except ChainError as error:
            known = REVERT_REASONS.get(error.reason)
            if not error.is_revert or known is None:
                raise
            raise ChainError(
                f"Disputes refuses it ({error.reason}): {known.meaning}",
                reason=error.reason,
                is_revert=True,
            ) from None
        return await self.outbox.submit(f"panel-{secrets.token_hex(8)}", call)

    async def list_challenges(self) -> list[Challenged]:
        """Every challenge there ever was, oldest first."""
        contract, found = self.disputes.contract, []
        topic = to_hex(contract.artifact.events["Challenged"].topic)
        first = self.deployment.start_block
        for start in range(first, self.block + 1, LOG_BLOCKS_MAX):
            last = min(self.block, start + LOG_BLOCKS_MAX - 1)
            logs = await self.rpc.fetch_logs(
                [contract.address], first=start, last=last, topics=[topic]
            )
            events = [contract.find_event(log, 0) for log in logs]
            found += [parse_challenged(event) for event in events if event is not None]
        return found

    async def read_case(self, event: Challenged) -> Case:
        """One challenge as it stands."""
        name, block = event.challenge, self.block
        challenge = await self.disputes.read_challenge(name, block=block)
        current, panel = await self.disputes.read_round(name, challenge.round, block=block)
        return Case(name, event, challenge, current, panel)

    async def get_case(self, wanted: str) -> Case:
        """The challenge whose name begins so.

        Raises:
            RequestError: `not_found`, or `usage` if several do.
        """
        events = await self.list_challenges()
        matching = [event for event in events if event.challenge.startswith(wanted.lower())]
        if not matching:
            raise RequestError(
                "not_found", f"none of {len(events)} challenges begins with {wanted!r:.80}"
            )
        if len(matching) > 1:
            raise RequestError(
                "usage", f"{len(matching)} challenges begin with {wanted!r:.80}: say more"
            )
        return await self.read_case(matching[0])


async def read_court(
    rpc: Rpc, deployment: Deployment, address: Address, outbox: Outbox | None
) -> Court:
    """The market's Disputes as it stands at the head; `outbox` None to look only."""
    disputes, head = open_disputes(rpc, deployment), await rpc.fetch_head()
    terms = await disputes.read_terms(block=head.number)
    return Court(deployment, rpc, disputes, terms, head.number, head.timestamp_s, address, outbox)


def find_next_step(case: Case, now_s: int, block: int, terms: PanelTerms) -> str:
    """What anyone could do now: "draw", "tally", "open" (the challenger), "close", or "".

    A time counts by the chain's clock; the transaction comes a little later than `now_s`.
    """
    found, current = case.challenge, case.round
    if found.stage == Stage.DRAWING:
        return "draw" if block >= current.seed_block else ""
    if found.stage == Stage.VOTING:
        seats = terms.seats if found.round == 1 else terms.appeal_seats
        over = now_s >= current.reveal_until_s or current.revealed == seats
        return "tally" if over else ""
    if found.stage == Stage.DECIDED and now_s >= found.until_s:
        return "close" if now_s >= found.until_s + terms.answer_time_s else "open"
    return ""
