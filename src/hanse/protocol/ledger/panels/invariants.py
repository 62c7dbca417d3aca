"""What must hold of Disputes after every step, by the names of the contract's NatSpec.

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from hanse.protocol.ledger.invariants import require, require_equal
from hanse.protocol.ledger.panels.closing import get_verdict, has_won
from hanse.protocol.ledger.panels.drawing import draw_lot, make_seed
from hanse.protocol.ledger.panels.parts import SEATS_PER_LOT, get_round, get_rules
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.protocol.ledger.panels.state import (
    APPEAL_ROUND,
    FIRST_ROUND,
    NO_AUDITOR,
    NO_BALLOT,
    BallotStatus,
    Challenge,
    RoundId,
    Stage,
)
from hanse.protocol.ledger.state import Effect, Emitted, Ledger
from hanse.protocol.signatures import Address, Hash32


def disputes_hold_what_they_owe(ledger: Ledger) -> None:
    """Stakes + credits + what open challenges hold + burned, to the unit."""
    panels = ledger.panels
    stakes = sum(auditor.stake for auditor in panels.auditors.values())
    credits = sum(panels.credits.values())
    held = sum(
        get_deposit(ledger, found, role)
        for found in panels.challenges.values()
        if found.stage != Stage.CLOSED
        for role in (FIRST_ROUND, APPEAL_ROUND)
    )
    owed = stakes + credits + held + panels.burned
    require_equal("Disputes' asset", panels.held, "stakes + credits + challenges + burned", owed)


def every_lot_has_one_owner(ledger: Ledger) -> None:
    """Lots are numbered without gaps, and each auditor's are as many as it bought."""
    owned = Counter(owner for owner, _ in ledger.panels.lots)
    ranks = {owner: set[int]() for owner in owned}
    for owner, rank in ledger.panels.lots:
        ranks[owner].add(rank)
    for owner, known in ledger.panels.auditors.items():
        require_equal(f"lots of {owner}", owned.get(owner, 0), "bought", known.lots)
        require_equal("ranks", ranks.get(owner, set()), "0, 1, ...", set(range(known.lots)))


def panel_is_of_others(ledger: Ledger) -> None:
    """No party sits on its own panel, nobody twice, nobody again on the appeal's."""
    for (name, number), panel in ledger.panels.panels.items():
        found = ledger.panels.challenges[name]
        parties = {found.challenger, found.user, found.provider}
        if number == APPEAL_ROUND:
            parties |= {found.appellant, *ledger.panels.panels.get((name, FIRST_ROUND), ())}
        require(len(set(panel)) == len(panel), f"somebody sits twice in {panel}")
        require(not parties & set(panel), f"{parties & set(panel)} sits on its own panel")


def draw_follows_the_seed(
    ledger: Ledger,
    lots_then: Mapping[RoundId, Sequence[Address]],
    block_hashes: Mapping[int, Hash32],
) -> None:
    """Whoever sits had a lot, when the draw was asked for, that the seed gave.

    Args:
        ledger: the state.
        lots_then: owners of the lots when each round was opened.
        block_hashes: by number.
    """
    for (name, number), panel in ledger.panels.panels.items():
        current = get_round(ledger.panels, name, number)
        if not panel:
            continue
        seed = make_seed(block_hashes[current.seed_block], name, number)
        owners = lots_then[name, number]
        drawn = {owners[draw_lot(seed, draw, len(owners))] for draw in range(current.draws)}
        require(set(panel) <= drawn, f"{set(panel) - drawn} sits and was not drawn")


def verdict_needs_half_the_seats(ledger: Ledger) -> None:
    """More than half of the seats voted for it."""
    for (name, number), current in ledger.panels.rounds.items():
        if current.verdict:
            panel = ledger.panels.panels[name, number]
            votes = [
                ledger.panels.ballots.get((name, number, auditor), NO_BALLOT).status
                for auditor in panel
            ]
            for_it = votes.count(BallotStatus(current.verdict))
            seats = get_rules(ledger).get_seats(number)
            require(2 * for_it > seats, f"{current.verdict!r} by {for_it} of {seats} seats")


def seats_are_backed(before: Ledger, after: Ledger, effects: Sequence[Effect]) -> None:
    """Open seats are counted, and whoever has one loses stake by fines alone."""
    panels = after.panels
    open_seats = Counter(
        auditor
        for (name, number, auditor), _ in panels.ballots.items()
        if panels.challenges[name].stage != Stage.CLOSED
    )
    fines = _sum_by(effects, "Fined", "auditor")
    for auditor, known in panels.auditors.items():
        require_equal(f"seats of {auditor}", known.open_seats, "open", open_seats[auditor])
        old = before.panels.auditors.get(auditor, NO_AUDITOR)
        if old.open_seats:
            kept = known.stake + fines[auditor] >= old.stake
            require(kept, f"{auditor} sat, and its stake fell from {old.stake} to {known.stake}")


def only_an_upheld_challenge_condemns(
    before: Ledger, after: Ledger, effects: Sequence[Effect]
) -> None:
    """No other step of Disputes slashes, and a planted challenge never."""
    closed = [e.fields for e in effects if isinstance(e, Emitted) and e.name == "Closed"]
    upheld = {
        fields["provider"]
        for fields in closed
        if fields["verdict"] == Verdict.UPHELD and fields["answer"] == Verdict.NONE
    }
    for owner, new in after.providers.items():
        old = before.providers.get(owner)
        touched = old is not None and (new.stake, new.pool) < (old.stake, old.pool)
        slashed = touched and new.condemned_until_s != 0
        require(not slashed or owner in upheld, f"{owner}: {old} became {new}")


def nobody_wins_by_losing(before: Ledger, after: Ledger, effects: Sequence[Effect]) -> None:
    """Who loses a challenge or an appeal gets back less than it put in."""
    credited = _sum_by(effects, "Credited", "holder")
    for effect in effects:
        if not (isinstance(effect, Emitted) and effect.name == "Closed"):
            continue
        name = effect.fields["challenge"]
        found, verdict = after.panels.challenges[name], get_verdict(after.panels, name)
        won = has_won(verdict, effect.fields["answer"])
        winner = found.challenger if won else found.provider
        losers = {found.challenger} if verdict and not won else set()
        first, second = (get_round(after.panels, name, number).verdict for number in (1, 2))
        if second and second == first:
            losers.add(found.appellant)
        for loser in losers - {winner}:
            put_in = sum(
                get_deposit(after, found, role)
                for role, payer in (
                    (FIRST_ROUND, found.challenger),
                    (APPEAL_ROUND, found.appellant),
                )
                if payer == loser
            )
            require(
                credited[loser] < put_in, f"{loser} lost, put in {put_in}, got {credited[loser]}"
            )


def burned_never_falls(before: Ledger, after: Ledger, actor: Address) -> None:
    """And no credit falls but by its owner's withdrawal."""
    old, new = before.panels, after.panels
    require(new.burned >= old.burned, f"burned fell from {old.burned} to {new.burned}")
    for holder, amount in old.credits.items():
        left = new.credits.get(holder, 0)
        require(left >= amount or holder == actor, f"{actor} took {amount - left} of {holder}")


def a_receipt_pays_once(before: Ledger, after: Ledger, effects: Sequence[Effect]) -> None:
    """Its fee and a challenger's reward, however many challenge it."""
    rules = get_rules(after)
    for effect in effects:
        if not (isinstance(effect, Emitted) and effect.name == "Closed"):
            continue
        receipt_hash = after.panels.receipt_hashes[effect.fields["challenge"]]
        if receipt_hash not in before.panels.paid_receipts:
            continue
        slashed, fees = effect.fields["slashed"], sum(rules.get_fees(number) for number in (1, 2))
        require_equal("paid again", effect.fields["compensation"], "for one receipt", 0)
        require(slashed <= fees, f"{slashed} slashed again, fees were {fees} at most")


def seats_are_left_for_all(ledger: Ledger) -> None:
    """As many challenges are open as there were auditors; whoever sits has a place for each seat.

    Auditors may leave while challenges are open, so that the number is held by seats.
    """
    panels = ledger.panels
    found = sum(1 for one in panels.challenges.values() if one.stage != Stage.CLOSED)
    require_equal("open challenges", panels.open_challenges, "counted", found)
    for auditor, known in panels.auditors.items():
        most = max(1, known.lots) * SEATS_PER_LOT
        require(known.open_seats <= most, f"{auditor} has {known.open_seats} seats")


def get_deposit(ledger: Ledger, found: Challenge, role: int) -> int:
    """What a challenge (role 1) or its appeal (2) took from who brought it."""
    rules = get_rules(ledger)
    if role > found.round:
        return 0
    return role * rules.bond + rules.get_fees(role)


def _sum_by(effects: Sequence[Effect], name: str, field: str) -> Counter[Address]:
    sums: Counter[Address] = Counter()
    for effect in effects:
        if isinstance(effect, Emitted) and effect.name == name:
            sums[effect.fields[field]] += effect.fields["amount"]
    return sums
