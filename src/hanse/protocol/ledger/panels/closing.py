"""The end of a challenge: whose answer it was, who is paid, who pays.

Seats that voted for the verdict get their fee, each payer what of its fees is left. What the
loser gives is the pot: half of its bond, or the provider's stake, or half of what a known answer's
wrong voters are fined. From the pot the user has its fee back, an appellant who was right the fees
that its panel took, and the winner the rest.

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md, section "Who gets what".
"""

from dataclasses import dataclass, replace

from hanse.protocol.ledger.disputes import slash
from hanse.protocol.ledger.panels.parts import (
    ABSENCE_PART,
    MISTAKE_PART,
    Now,
    get_round,
    get_rules,
    put,
    require_stage,
    with_panels,
)
from hanse.protocol.ledger.panels.sealing import Verdict, seal_answer
from hanse.protocol.ledger.panels.state import (
    APPEAL_ROUND,
    FIRST_ROUND,
    BallotStatus,
    Challenge,
    Panels,
    Stage,
)
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.state import NO_PROVIDER, Effect, Emitted, Ledger, Step
from hanse.protocol.signatures import Address, Hash32


def apply_open_answer(ledger: Ledger, name: Hash32, answer: int, salt: Hash32, now: Now) -> Step:
    """Open the answer and close. Refuses "stage", "early", "answer"."""
    found = require_stage(ledger.panels, name, Stage.DECIDED)
    if now.time_s < found.until_s:
        raise refuse("early", f"an appeal is possible until {found.until_s}, it is {now.time_s}")
    known = answer in tuple(Verdict)
    if not known or seal_answer(found.challenger, Verdict(answer), salt) != found.sealed_answer:
        raise refuse("answer", f"answer {answer} and this salt are not what was sealed")
    return _close(ledger, name, found, Verdict(answer), True, now)


def apply_close(ledger: Ledger, name: Hash32, now: Now) -> Step:
    """Close without the answer. Refuses "stage", "early"."""
    found = require_stage(ledger.panels, name, Stage.DECIDED)
    wait_s = get_rules(ledger).answer_time_s if get_verdict(ledger.panels, name) else 0
    if now.time_s < found.until_s + wait_s:
        raise refuse(
            "early", f"the challenger has until {found.until_s + wait_s}, it is {now.time_s}"
        )
    return _close(ledger, name, found, Verdict.NONE, False, now)


def get_verdict(panels: Panels, name: Hash32) -> Verdict:
    """The appeal's verdict if it has one, else the first."""
    second = get_round(panels, name, APPEAL_ROUND).verdict
    return second or get_round(panels, name, FIRST_ROUND).verdict


def has_won(verdict: Verdict, answer: Verdict) -> bool:
    """Whether the challenger was right: by the panel, or with it about a planted case."""
    return verdict == (answer or Verdict.UPHELD)


@dataclass
class _Account:
    """One closing's bookkeeping: what the contract does to storage, step by step."""

    name: Hash32
    ledger: Ledger
    effects: list[Effect]

    def credit(self, holder: Address, amount: int) -> None:
        if amount:
            credits = self.ledger.panels.credits
            changed = put(credits, holder, credits.get(holder, 0) + amount)
            self.ledger = with_panels(self.ledger, credits=changed)
            self.emit("Credited", holder=holder, amount=amount)

    def burn(self, amount: int) -> None:
        if amount:
            self.ledger = with_panels(self.ledger, burned=self.ledger.panels.burned + amount)
            self.emit("Burned", amount=amount)

    def burn_half(self, amount: int) -> int:
        """Rounded up; returns the rest."""
        self.burn(amount - amount // 2)
        return amount // 2

    def fine(self, auditor: Address, amount: int) -> int:
        known = self.ledger.panels.auditors[auditor]
        taken = min(known.stake, amount)
        changed = replace(known, stake=known.stake - taken)
        self.put_auditor(auditor, changed.stake, changed.open_seats)
        self.emit("Fined", auditor=auditor, amount=taken, stake=changed.stake)
        return taken

    def put_auditor(self, auditor: Address, stake: int, open_seats: int) -> None:
        auditors = self.ledger.panels.auditors
        changed = replace(auditors[auditor], stake=stake, open_seats=open_seats)
        self.ledger = with_panels(self.ledger, auditors=put(auditors, auditor, changed))

    def emit(self, event: str, **fields: object) -> None:
        self.effects.append(Emitted(event, {"challenge": self.name, **fields}))


def _close(
    ledger: Ledger, name: Hash32, found: Challenge, answer: Verdict, opened: bool, now: Now
) -> Step:
    rules, book = get_rules(ledger), _Account(name, ledger, [])
    challenges = put(ledger.panels.challenges, name, replace(found, stage=Stage.CLOSED))
    left = ledger.panels.open_challenges - 1
    book.ledger = with_panels(ledger, challenges=challenges, open_challenges=left)
    verdict = get_verdict(ledger.panels, name)
    won, pot, fees = has_won(verdict, answer), 0, {FIRST_ROUND: 0, APPEAL_ROUND: 0}
    for number in range(FIRST_ROUND, found.round + 1):
        fees[number], fines = _pay_seats(book, number, verdict, bool(answer) and won)
        pot += fines
    book.credit(found.challenger, rules.get_fees(FIRST_ROUND) - fees[FIRST_ROUND])
    flipped = False
    if found.round == APPEAL_ROUND:
        first, second = (get_round(ledger.panels, name, n).verdict for n in (1, 2))
        flipped = bool(second) and second != first
        book.credit(found.appellant, rules.get_fees(APPEAL_ROUND) - fees[APPEAL_ROUND])
    slashed = compensation = 0
    if not verdict:
        book.credit(found.challenger, rules.bond)
    elif not won:
        pot += book.burn_half(rules.bond)
    else:
        _pay_challenger(book, found, rules.bond, opened)
        if not answer:
            due, fee = _get_due(book, found)
            due += fees[FIRST_ROUND] + flipped * fees[APPEAL_ROUND]
            slashed = _slash(book, found.provider, due, now)
            compensation = min(fee, slashed)
            book.credit(found.user, compensation)
            pot += slashed - compensation
    if found.round == APPEAL_ROUND:
        pot = _settle_appeal(book, found, pot, fees[APPEAL_ROUND], flipped)
    if won:
        _pay_challenger(book, found, pot, opened)
    else:
        book.credit(found.provider, pot)
    book.emit(
        "Closed",
        provider=found.provider,
        verdict=verdict,
        answer=answer,
        opened=opened,
        slashed=slashed,
        compensation=compensation,
    )
    return Step(book.ledger, tuple(book.effects))


def _get_due(book: _Account, found: Challenge) -> tuple[int, int]:
    """The user's fee and the challenger's reward, and the fee alone: once for each receipt."""
    panels = book.ledger.panels
    receipt_hash = panels.receipt_hashes[book.name]
    if receipt_hash in panels.paid_receipts:
        return 0, 0
    paid = panels.paid_receipts | {receipt_hash}
    book.ledger = with_panels(book.ledger, paid_receipts=paid)
    return get_rules(book.ledger).bond + found.fee, found.fee


def _pay_seats(
    book: _Account, number: int, verdict: Verdict, known_answer: bool
) -> tuple[int, int]:
    """Fees paid, and the half of fines that is not burned."""
    rules, panels, paid, fines = get_rules(book.ledger), book.ledger.panels, 0, 0
    for auditor in panels.panels.get((book.name, number), ()):
        known = book.ledger.panels.auditors[auditor]
        book.put_auditor(auditor, known.stake, known.open_seats - 1)
        vote = panels.ballots[book.name, number, auditor].status
        if vote not in (BallotStatus.UPHELD, BallotStatus.REJECTED):
            book.burn(book.fine(auditor, rules.lot_stake // ABSENCE_PART))
        elif not verdict or vote == BallotStatus(verdict):
            book.credit(auditor, rules.seat_fee)
            paid += rules.seat_fee
        elif known_answer:
            fines += book.burn_half(book.fine(auditor, rules.lot_stake // MISTAKE_PART))
    return paid, fines


def _settle_appeal(book: _Account, found: Challenge, pot: int, fees: int, flipped: bool) -> int:
    """The appellant's bond and fees; returns what is left in the pot."""
    bond = 2 * get_rules(book.ledger).bond
    if get_round(book.ledger.panels, book.name, APPEAL_ROUND).verdict and not flipped:
        return pot + book.burn_half(bond)
    book.credit(found.appellant, bond)
    if not flipped:
        return pot
    back = min(pot, fees)
    book.credit(found.appellant, back)
    return pot - back


def _pay_challenger(book: _Account, found: Challenge, amount: int, opened: bool) -> None:
    if opened:
        book.credit(found.challenger, amount)
    else:
        book.burn(amount)


def _slash(book: _Account, provider: Address, due: int, now: Now) -> int:
    """What the provider's stake gives; 0 if it is gone."""
    entry = book.ledger.providers.get(provider, NO_PROVIDER)
    in_window = now.time_s < entry.condemned_until_s
    if not (entry.stake or (in_window and entry.pool)):
        return 0
    slashed, paid, effects = slash(book.ledger, provider, due, now.time_s, "Disputes")
    book.ledger = with_panels(slashed, held=slashed.panels.held + paid)
    book.effects += effects
    return paid
