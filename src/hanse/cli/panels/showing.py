"""A challenge in words and as JSON."""

from typing import TYPE_CHECKING, Any

from hanse.auditor.panels.court import Case, Court, find_next_step
from hanse.cli.moments import format_time
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.protocol.ledger.panels.state import Stage

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hanse.cli.session import Session

VERDICTS = {"upheld": Verdict.UPHELD, "rejected": Verdict.REJECTED}
"""As they are written on the command line."""


def case_to_document(court: Court, case: Case) -> dict[str, Any]:
    """One challenge, JSON-ready."""
    found, current = case.challenge, case.round
    return {
        "challenge": case.name,
        "stage": found.stage.name.lower(),
        "round": found.round,
        "provider": found.provider,
        "challenger": found.challenger,
        "user": found.user,
        "receipt_hash": case.event.receipt_hash,
        "evidence_hash": case.event.evidence_hash,
        "uri": case.event.uri,
        "panel": list(case.panel),
        "sealed": current.sealed,
        "upheld": current.upheld,
        "rejected": current.revealed - current.upheld,
        "verdict": current.verdict.name.lower(),
        "vote_until_s": current.vote_until_s,
        "reveal_until_s": current.reveal_until_s,
        "appeal_until_s": found.until_s if found.round == 1 else 0,
        "next": find_next_step(case, court.now_s, court.block, court.terms),
    }


def render_case(session: "Session", court: Court, case: Case) -> "RenderableType":
    """One challenge for people."""
    found, current = case.challenge, case.round
    return session.output.fields(
        (
            ("challenge", case.name),
            ("stage", f"{found.stage.name.lower()}, round {found.round}"),
            ("provider", found.provider),
            ("challenger", found.challenger),
            ("evidence", f"{case.event.evidence_hash} at {case.event.uri or 'no address'}"),
            ("panel", ", ".join(case.panel) or "not drawn yet"),
            (
                "votes",
                f"{current.sealed} sealed, {current.upheld} upheld, "
                f"{current.revealed - current.upheld} rejected",
            ),
            ("verdict", current.verdict.name.lower()),
            ("until", describe_time(case)),
            ("next", find_next_step(case, court.now_s, court.block, court.terms) or "wait"),
        )
    )


def describe_time(case: Case) -> str:
    """What the stage waits for."""
    found, current = case.challenge, case.round
    if found.stage == Stage.DRAWING:
        return f"block {current.seed_block}, the seed of the draw"
    if found.stage == Stage.VOTING:
        return (
            f"votes are sealed until {format_time(current.vote_until_s)}, "
            f"revealed until {format_time(current.reveal_until_s)}"
        )
    if found.stage == Stage.DECIDED:
        return f"an appeal is possible until {format_time(found.until_s)}"
    return "closed"
