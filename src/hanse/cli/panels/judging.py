"""Auditors' acts, and the steps that anyone may take with a challenge."""

import dataclasses
from pathlib import Path
from typing import Any

from hanse.chain import Call, OutboxEntry
from hanse.cli.panels.court import Case, Court, find_next_step, open_court
from hanse.cli.panels.sealed import Sealed, find_sealed, get_path, make_sealed, save_sealed
from hanse.cli.panels.showing import VERDICTS, case_to_document, render_case
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict, seal_vote
from hanse.protocol.ledger.panels.state import Stage
from hanse.protocol.signatures import Hash32


async def seal(session: Session, wanted: str, word: str, key: str, keyring: bool) -> None:
    """Keep a vote with its salt, then send its seal."""
    verdict = VERDICTS[word]
    async with open_court(session, key, can_send=True, use_keyring=keyring) as court:
        case = await court.get_case(wanted)
        number = case.challenge.round
        path = _get_vote_path(session, court, case)
        sealed = find_sealed(path)
        if sealed is None:
            sealed = make_sealed(verdict)
            save_sealed(path, sealed)
        elif sealed.verdict != verdict:
            raise RequestError(
                "usage", f"another vote is kept in {path.name}; it may be on the chain already"
            )
        sealed_vote = seal_vote(case.name, number, court.address, verdict, sealed.salt)
        call = court.disputes.seal_vote(case.name, sealed_vote)
        await send_and_show(session, court, case, call)


def get_vote(session: Session, court: Court, case: Case) -> tuple[Sealed, Verdict]:
    """The vote that this key sealed in the present round.

    Raises:
        RequestError: `not_found` if this home has none.
    """
    sealed = find_sealed(_get_vote_path(session, court, case))
    if sealed is None:
        raise RequestError(
            "not_found", f"this home has no vote of {court.address} on {case.name} kept"
        )
    return sealed, Verdict(sealed.verdict)


def build_next(session: Session, court: Court, case: Case) -> Call:
    """The call that takes a challenge on.

    Raises:
        RequestError: `unprocessable` if nothing can be done yet, or any more.
    """
    step = find_next_step(case, court.now_s, court.block, court.terms)
    answer = find_sealed(get_path(session.home, case.name, case.challenge.challenger, "answer"))
    if step in ("open", "close") and answer is not None:
        return court.disputes.open_answer(case.name, Verdict(answer.verdict), answer.salt)
    calls = {"draw": court.disputes.draw, "tally": court.disputes.tally}
    if step in calls:
        return calls[step](case.name)
    undecided = step == "open" and case.round.verdict == Verdict.NONE
    if step == "close" or undecided:
        return court.disputes.close(case.name)
    if case.challenge.stage == Stage.CLOSED:
        raise RequestError("unprocessable", "the challenge is closed")
    whose = "the challenger has to open its answer" if step == "open" else "its time has not come"
    raise RequestError(
        "unprocessable", f"the challenge is {case.challenge.stage.name.lower()}; {whose}"
    )


async def join(session: Session, lots: int, key: str, keyring: bool) -> None:
    """Buy lots, and fill up."""
    async with open_court(session, key, can_send=True, use_keyring=keyring) as court:
        known = await court.disputes.read_auditor(court.address, block=court.block)
        pays = (known.lots + lots) * court.terms.lot_stake - known.stake
        await send_and_show(session, court, None, court.disputes.join(lots), pays)


async def send_and_show(
    session: Session,
    court: Court,
    case: Case | None,
    call: Call,
    pays: int = 0,
) -> None:
    """Send, and show what stands afterwards: the challenge, or the key's own seat in the court."""
    with session.output.wait(f"{call.label}, until the transaction is confirmed ..."):
        entry = await court.send(call, pays=pays)
    await show_after(session, court, entry, case.name if case is not None else "")


async def show_after(session: Session, court: Court, entry: OutboxEntry, name: Hash32) -> None:
    """Show what stands after a transaction: this challenge, or without one the key's own seat."""
    head = await court.rpc.fetch_head()
    later = dataclasses.replace(court, block=head.number, now_s=head.timestamp_s)
    if name:
        after = await later.get_case(name)
        document = case_to_document(later, after) | {"transaction_hash": entry.transaction_hash}
        session.output.show(document, lambda: render_case(session, later, after))
        return
    document = await _read_seat(later) | {"transaction_hash": entry.transaction_hash}
    units = court.network.units
    amounts = ("stake", "credit")
    session.output.show(
        document,
        lambda: session.output.fields(
            (name, units.format(int(value)) if name in amounts else value)
            for name, value in document.items()
        ),
    )


async def _read_seat(court: Court) -> dict[str, Any]:
    known = await court.disputes.read_auditor(court.address, block=court.block)
    credit = await court.disputes.read_credit(court.address, block=court.block)
    return {
        "auditor": court.address,
        "lots": known.lots,
        "stake": str(known.stake),
        "open_seats": known.open_seats,
        "drawn_since_s": known.eligible_from_s,
        "credit": str(credit),
    }


def _get_vote_path(session: Session, court: Court, case: Case) -> Path:
    what = f"vote-{case.challenge.round}"
    return get_path(session.home, case.name, court.address, what)
