"""Auditors: lots bought and given back, and what is credited paid out.

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md, section "Auditors".
"""

from dataclasses import replace

from hanse.protocol.ledger.panels.parts import (
    LOTS_PER_CALL_MAX,
    Now,
    get_auditor,
    get_rules,
    put,
    with_panels,
)
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.state import Effect, Emitted, Ledger, Moved, Step
from hanse.protocol.signatures import Address


def apply_join(ledger: Ledger, auditor: Address, count: int, now: Now) -> Step:
    """Buy lots, fill up what fines took, come back. Refuses "lots"."""
    lot_stake, panels = get_rules(ledger).lot_stake, ledger.panels
    before = get_auditor(panels, auditor)
    if count > LOTS_PER_CALL_MAX:
        raise refuse("lots", f"{count} lots, at most {LOTS_PER_CALL_MAX} at once")
    stake = (before.lots + count) * lot_stake
    amount = stake - before.stake
    comes_back = before.eligible_from_s == 0 and before.lots > 0
    if amount == 0 and not comes_back:
        raise refuse("lots", f"{auditor} has {before.lots} whole lots and asks for 0 more")
    was_out = before.eligible_from_s == 0 or before.stake < before.lots * lot_stake
    after = replace(
        before,
        lots=before.lots + count,
        stake=stake,
        eligible_from_s=now.time_s if was_out else before.eligible_from_s,
    )
    fields = {"auditor": auditor, "amount": amount, "lots": after.lots, "stake": stake}
    effects: list[Effect] = [Emitted("Joined", fields)]
    if amount:
        effects.append(Moved(auditor, amount))
    joined = with_panels(
        ledger,
        auditors=put(panels.auditors, auditor, after),
        lots=panels.lots + tuple((auditor, before.lots + more) for more in range(count)),
        held=panels.held + amount,
    )
    return Step(joined, tuple(effects))


def apply_retire(ledger: Ledger, auditor: Address) -> Step:
    """Be drawn no more. Refuses "lots", "drawing"."""
    panels = ledger.panels
    before = get_auditor(panels, auditor)
    if before.eligible_from_s == 0:
        raise refuse("lots", f"{auditor} is not drawn anyway")
    _check_no_draw(ledger)
    retired = replace(before, eligible_from_s=0)
    after = with_panels(ledger, auditors=put(panels.auditors, auditor, retired))
    return Step(after, (Emitted("Retired", {"auditor": auditor}),))


def apply_leave(ledger: Ledger, auditor: Address, count: int) -> Step:
    """Give lots back; their stake becomes a credit. Refuses "lots", "seated", "drawing"."""
    lot_stake, panels = get_rules(ledger).lot_stake, ledger.panels
    before = get_auditor(panels, auditor)
    if not 0 < count <= min(LOTS_PER_CALL_MAX, before.lots):
        raise refuse("lots", f"{count} of {before.lots} lots, at most {LOTS_PER_CALL_MAX} at once")
    if before.open_seats:
        raise refuse("seated", f"{auditor} has {before.open_seats} open seats")
    _check_no_draw(ledger)
    lots = before.lots - count
    amount = max(0, before.stake - lots * lot_stake)
    after = replace(
        before,
        lots=lots,
        stake=before.stake - amount,
        eligible_from_s=before.eligible_from_s if lots else 0,
    )
    fields = {"auditor": auditor, "amount": amount, "lots": lots, "stake": after.stake}
    left = with_panels(
        ledger,
        auditors=put(panels.auditors, auditor, after),
        lots=_take_lots(panels.lots, auditor, before.lots, count),
        credits=put(panels.credits, auditor, panels.credits.get(auditor, 0) + amount),
    )
    return Step(left, (Emitted("Left", fields),))


def apply_withdraw_credit(ledger: Ledger, holder: Address) -> Step:
    """Pay out all that is credited. Refuses "balance"."""
    panels = ledger.panels
    amount = panels.credits.get(holder, 0)
    if amount == 0:
        raise refuse("balance", f"nothing is credited to {holder}")
    after = with_panels(ledger, credits=put(panels.credits, holder, 0), held=panels.held - amount)
    effect = Emitted("Withdrawn", {"holder": holder, "amount": amount})
    return Step(after, (effect, Moved(holder, -amount)))


def _take_lots(
    lots: tuple[tuple[Address, int], ...], auditor: Address, before: int, count: int
) -> tuple[tuple[Address, int], ...]:
    """The auditor's last lots go; each time the very last lot of all moves to where it was."""
    left = list(lots)
    for rank in range(before - 1, before - 1 - count, -1):
        number, moved = left.index((auditor, rank)), left.pop()
        if number < len(left):
            left[number] = moved
    return tuple(left)


def _check_no_draw(ledger: Ledger) -> None:
    pending = ledger.panels.pending_draws
    if pending:
        raise refuse("drawing", f"{pending} panels are not drawn yet; draw them first")
