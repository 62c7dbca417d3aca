"""Auditors' acts from the command line: a vote sealed, lots bought, and what stands afterwards."""

import dataclasses
from typing import Any

from hanse.auditor.panels.court import Case, Court
from hanse.auditor.panels.sealed import find_sealed, make_sealed, save_sealed
from hanse.auditor.panels.steps import get_vote_path
from hanse.chain import Call, OutboxEntry
from hanse.cli.network import load_network
from hanse.cli.panels.opening import open_court
from hanse.cli.panels.showing import VERDICTS, case_to_document, render_case
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import seal_vote
from hanse.protocol.signatures import Hash32


async def seal(session: Session, wanted: str, word: str, key: str, keyring: bool) -> None:
    """Keep a vote with its salt, then send its seal."""
    verdict = VERDICTS[word]
    async with open_court(session, key, can_send=True, use_keyring=keyring) as court:
        case = await court.get_case(wanted)
        number = case.challenge.round
        path = get_vote_path(session.home, court, case)
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


async def join(session: Session, lots: int, key: str, keyring: bool) -> None:
    """Buy lots, and fill up."""
    async with open_court(session, key, can_send=True, use_keyring=keyring) as court:
        known = await court.disputes.read_auditor(court.address, block=court.block)
        pays = (known.lots + lots) * court.terms.lot_stake - known.stake
        await send_and_show(session, court, None, court.disputes.join(lots), pays)


async def withdraw(session: Session, key: str, keyring: bool) -> None:
    """Take the key's credit; the contract's event says how much was paid."""
    async with open_court(session, key, can_send=True, use_keyring=keyring) as court:
        entry = await _send(session, court, court.disputes.withdraw())
        paid = await _read_withdrawn(court, entry)
        await show_after(session, court, entry, "", {"withdrawn": str(paid)})


async def send_and_show(
    session: Session,
    court: Court,
    case: Case | None,
    call: Call,
    pays: int = 0,
) -> None:
    """Send, and show what stands afterwards: the challenge, or the key's own seat in the court."""
    entry = await _send(session, court, call, pays)
    await show_after(session, court, entry, case.name if case is not None else "")


async def show_after(
    session: Session,
    court: Court,
    entry: OutboxEntry,
    name: Hash32,
    facts: dict[str, str] | None = None,
) -> None:
    """Show what stands after a transaction: this challenge, or without one the key's own seat.

    Args:
        session: whose output.
        court: that the transaction was sent to.
        entry: the transaction.
        name: of the challenge; empty for none.
        facts: of the transaction itself, shown before the seat.
    """
    head = await court.rpc.fetch_head()
    later = dataclasses.replace(court, block=head.number, now_s=head.timestamp_s)
    if name:
        after = await later.get_case(name)
        document = case_to_document(later, after) | {"transaction_hash": entry.transaction_hash}
        session.output.show(document, lambda: render_case(session, later, after))
        return
    document = (facts or {}) | await _read_seat(later)
    document["transaction_hash"] = entry.transaction_hash
    units = load_network(session.home).units
    amounts = ("withdrawn", "stake", "credit")
    session.output.show(
        document,
        lambda: session.output.fields(
            (name, units.format(int(value)) if name in amounts else value)
            for name, value in document.items()
        ),
    )


async def _send(session: Session, court: Court, call: Call, pays: int = 0) -> OutboxEntry:
    with session.output.wait(f"{call.label}, until the transaction is confirmed ..."):
        return await court.send(call, pays=pays)


async def _read_withdrawn(court: Court, entry: OutboxEntry) -> int:
    assert entry.transaction_hash is not None  # it is confirmed
    receipt = await court.rpc.fetch_receipt(entry.transaction_hash)
    contract = court.disputes.contract
    events = [contract.find_event(log, 0) for log in (receipt.logs if receipt else ())]
    return sum(event.fields["amount"] for event in events if event and event.name == "Withdrawn")


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
