"""Challenges: a provider accused by one of its receipts, its answer to that, and the appeal.

| stage   | event               | next    |
| ------- | ------------------- | ------- |
| unknown | challenge           | drawing |
| drawing | draw                | voting, or decided without a panel |
| voting  | tally               | decided |
| decided | appeal              | drawing |
| decided | open_answer, close  | closed  |

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md.
"""

from dataclasses import replace

from hanse.protocol.ledger.disputes import check_signature
from hanse.protocol.ledger.panels.parts import (
    Now,
    get_auditor,
    get_rules,
    open_round,
    put,
    require_stage,
    with_panels,
)
from hanse.protocol.ledger.panels.sealing import name_challenge
from hanse.protocol.ledger.panels.state import APPEAL_ROUND, FIRST_ROUND, Challenge, Stage
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.registry import find_payee
from hanse.protocol.ledger.state import NO_PROVIDER, Emitted, Ledger, Moved, Step
from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, to_hex


def apply_challenge(
    ledger: Ledger,
    challenger: Address,
    signed: SignedReceipt,
    evidence_hash: Hash32,
    uri: str,
    sealed_answer: Hash32,
    now: Now,
) -> Step:
    """Accuse a provider by a receipt; takes bond and fees.

    Refuses "evidence", "answer", "window", "signature", "condemned", "stake", "known", "auditors",
    "busy".
    """
    rules, receipt = get_rules(ledger), signed.receipt
    _check_challenge(ledger, signed, evidence_hash, sealed_answer, now)
    receipt_hash = to_hex(ledger.rules.domain.digest(receipt.struct_hash()))
    name = name_challenge(receipt_hash, challenger, evidence_hash)
    if name in ledger.panels.challenges:
        raise refuse("known", f"{name} is the same receipt, evidence and challenger")
    _check_auditors(ledger, rules.seats)
    _check_not_busy(ledger)
    made = Challenge(
        challenger=challenger,
        provider=receipt.provider,
        user=receipt.user,
        fee=min(receipt.fee, AMOUNT_MAX),
        sealed_answer=sealed_answer,
        stage=Stage.DRAWING,
        round=FIRST_ROUND,
    )
    amount = rules.bond + rules.get_fees(FIRST_ROUND)
    opened, seed_block = open_round(ledger, name, FIRST_ROUND, now)
    after = with_panels(
        opened,
        challenges=put(ledger.panels.challenges, name, made),
        receipt_hashes=put(ledger.panels.receipt_hashes, name, receipt_hash),
        open_challenges=ledger.panels.open_challenges + 1,
        held=ledger.panels.held + amount,
    )
    fields = {
        "challenge": name,
        "provider": receipt.provider,
        "challenger": challenger,
        "user": receipt.user,
        "receipt_hash": receipt_hash,
        "evidence_hash": evidence_hash,
        "uri": uri,
        "sealed_answer": sealed_answer,
        "seed_block": seed_block,
    }
    return Step(after, (Emitted("Challenged", fields), Moved(challenger, amount)))


def apply_respond(
    ledger: Ledger, caller: Address, name: Hash32, evidence_hash: Hash32, uri: str
) -> Step:
    """The accused provider's own evidence. Refuses "stage", "not permitted", "evidence"."""
    found = require_stage(ledger.panels, name, Stage.DRAWING, Stage.VOTING, Stage.DECIDED)
    if find_payee(ledger, found.provider, caller) is None:
        raise refuse("not permitted", f"{caller} is no key of {found.provider}")
    if evidence_hash == ZERO_HASH:
        raise refuse("evidence", "the evidence's hash is zero")
    fields = {"challenge": name, "evidence_hash": evidence_hash, "uri": uri}
    return Step(ledger, (Emitted("Responded", fields),))


def apply_appeal(ledger: Ledger, appellant: Address, name: Hash32, now: Now) -> Step:
    """Have a larger panel of others judge. Refuses "stage", "appealed", "late", "auditors"."""
    rules = get_rules(ledger)
    found = require_stage(ledger.panels, name, Stage.DECIDED)
    if found.round != FIRST_ROUND:
        raise refuse("appealed", f"{found.appellant} appealed before")
    if now.time_s >= found.until_s:
        raise refuse("late", f"an appeal was possible until {found.until_s}, it is {now.time_s}")
    _check_auditors(ledger, rules.seats + rules.appeal_seats)
    amount = 2 * rules.bond + rules.get_fees(APPEAL_ROUND)
    appealed = replace(found, stage=Stage.DRAWING, round=APPEAL_ROUND, appellant=appellant)
    opened, seed_block = open_round(ledger, name, APPEAL_ROUND, now)
    after = with_panels(
        opened,
        challenges=put(ledger.panels.challenges, name, appealed),
        held=ledger.panels.held + amount,
    )
    fields = {"challenge": name, "appellant": appellant, "seed_block": seed_block}
    return Step(after, (Emitted("Appealed", fields), Moved(appellant, amount)))


def _check_challenge(
    ledger: Ledger, signed: SignedReceipt, evidence_hash: Hash32, sealed_answer: Hash32, now: Now
) -> None:
    receipt = signed.receipt
    if evidence_hash == ZERO_HASH:
        raise refuse("evidence", "the evidence's hash is zero")
    if sealed_answer == ZERO_HASH:
        raise refuse("answer", "the sealed answer is zero")
    oldest_s = max(0, now.time_s - get_rules(ledger).audit_window_s)
    if receipt.finished_at < oldest_s:
        raise refuse(
            "window",
            f"the answer finished at {receipt.finished_at}; from {oldest_s} on it could be"
            " challenged",
        )
    check_signature(ledger, signed)
    entry = ledger.providers.get(receipt.provider, NO_PROVIDER)
    if entry.condemned_until_s:
        raise refuse("condemned", f"{receipt.provider} was condemned before")
    if entry.stake == 0:
        raise refuse("stake", f"{receipt.provider} has no stake to answer with")


def _check_auditors(ledger: Ledger, needed: int) -> None:
    panels = ledger.panels
    known = sum(1 for auditor in panels.auditors if get_auditor(panels, auditor).lots)
    if known < needed:
        raise refuse("auditors", f"there are {known} auditors, {needed} are needed")


def _check_not_busy(ledger: Ledger) -> None:
    """As many challenges as auditors: more could fill the seats of all who are honest."""
    panels = ledger.panels
    known = sum(1 for auditor in panels.auditors if get_auditor(panels, auditor).lots)
    if panels.open_challenges >= known:
        raise refuse(
            "busy", f"{panels.open_challenges} challenges are open, as many as there are auditors"
        )
