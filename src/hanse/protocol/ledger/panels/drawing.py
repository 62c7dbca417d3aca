"""The draw of a panel: lots by the hash of a block that nobody knew when it was asked for.

Source: `Disputes.vy`; docs/decisions/0032-disputes-by-panel.md, section "The draw".
"""

from dataclasses import replace

from hanse.protocol.eip712 import hash_word, uint_word
from hanse.protocol.ledger.panels.parts import (
    BLOCK_HASHES,
    DRAWS_MAX,
    DRAWS_PER_CALL,
    SEATS_PER_LOT,
    SEED_DELAY_BLOCKS,
    Now,
    get_auditor,
    get_round,
    get_rules,
    put,
    require_stage,
    with_panels,
)
from hanse.protocol.ledger.panels.state import (
    APPEAL_ROUND,
    FIRST_ROUND,
    Ballot,
    BallotStatus,
    Challenge,
    Round,
    Stage,
)
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.state import Emitted, Ledger, Step
from hanse.protocol.signatures import Address, Hash32, keccak


def apply_draw(ledger: Ledger, name: Hash32, now: Now, block_hash: Hash32) -> Step:
    """Draw, or go on drawing, or take a new seed if the old one is lost. Refuses "stage", "early".

    Args:
        ledger: the state.
        name: of the challenge.
        now: the transaction's block.
        block_hash: hash of the round's seed block; looked at only while the EVM still has it.
    """
    found = require_stage(ledger.panels, name, Stage.DRAWING)
    current = get_round(ledger.panels, name, found.round)
    if now.block <= current.seed_block:
        raise refuse("early", f"the seed is block {current.seed_block}, this is {now.block}")
    if now.block > current.seed_block + BLOCK_HASHES:
        return _take_new_seed(ledger, name, found, current, now)
    seats = get_rules(ledger).get_seats(found.round)
    seed = make_seed(block_hash, name, found.round)
    panel = list(ledger.panels.panels.get((name, found.round), ()))
    draws = current.draws
    for _ in range(DRAWS_PER_CALL):
        if len(panel) == seats or draws == DRAWS_MAX:
            break
        auditor, _rank = ledger.panels.lots[draw_lot(seed, draws, current.lots)]
        draws += 1
        if auditor not in panel and is_eligible(ledger, name, found, current, auditor):
            panel.append(auditor)
    drawn = replace(current, draws=draws)
    if len(panel) < seats and draws < DRAWS_MAX:
        return Step(_with_round(ledger, name, found, drawn, tuple(panel)), ())
    return _seat(ledger, name, found, drawn, tuple(panel), now)


def make_seed(block_hash: Hash32, name: Hash32, number: int) -> bytes:
    """What all draws of one round follow from."""
    return keccak(hash_word(block_hash) + hash_word(name) + uint_word(number))


def draw_lot(seed: bytes, draw: int, lots: int) -> int:
    """Number of the lot that one draw gives, of so many."""
    return int.from_bytes(keccak(seed + uint_word(draw)), "big") % lots


def is_eligible(
    ledger: Ledger, name: Hash32, found: Challenge, current: Round, auditor: Address
) -> bool:
    """Whether an auditor may sit: no party, none of the first panel, in before, whole, free."""
    panels = ledger.panels
    if auditor in (found.challenger, found.user, found.provider, found.appellant):
        return False
    if found.round == APPEAL_ROUND and (name, FIRST_ROUND, auditor) in panels.ballots:
        return False
    known = get_auditor(panels, auditor)
    return (
        0 < known.eligible_from_s < current.opened_s
        and known.stake >= known.lots * get_rules(ledger).lot_stake
        and known.open_seats < known.lots * SEATS_PER_LOT
    )


def _take_new_seed(
    ledger: Ledger, name: Hash32, found: Challenge, current: Round, now: Now
) -> Step:
    seed_block = now.block + SEED_DELAY_BLOCKS
    after = _with_round(ledger, name, found, replace(current, seed_block=seed_block, draws=0), ())
    fields = {"challenge": name, "round": found.round, "seed_block": seed_block}
    return Step(after, (Emitted("SeedMissed", fields),))


def _seat(
    ledger: Ledger,
    name: Hash32,
    found: Challenge,
    drawn: Round,
    panel: tuple[Address, ...],
    now: Now,
) -> Step:
    """Drawing is over: with a full panel the vote begins, with a short one there is none."""
    rules, panels = get_rules(ledger), ledger.panels
    auditors, ballots = dict(panels.auditors), dict(panels.ballots)
    if len(panel) == rules.get_seats(found.round):
        for auditor in panel:
            seats = auditors[auditor].open_seats + 1
            auditors[auditor] = replace(auditors[auditor], open_seats=seats)
            ballots[name, found.round, auditor] = Ballot(BallotStatus.SEATED)
        found = replace(found, stage=Stage.VOTING)
        vote_until_s = now.time_s + rules.vote_time_s
        drawn = replace(
            drawn, vote_until_s=vote_until_s, reveal_until_s=vote_until_s + rules.reveal_time_s
        )
    else:
        panel, found = (), replace(found, stage=Stage.DECIDED, until_s=now.time_s)
    after = with_panels(
        _with_round(ledger, name, found, drawn, panel),
        auditors=auditors,
        ballots=ballots,
        pending_draws=panels.pending_draws - 1,
    )
    fields = {
        "challenge": name,
        "round": found.round,
        "panel": panel,
        "vote_until_s": drawn.vote_until_s,
        "reveal_until_s": drawn.reveal_until_s,
    }
    return Step(after, (Emitted("PanelDrawn", fields),))


def _with_round(
    ledger: Ledger, name: Hash32, found: Challenge, current: Round, panel: tuple[Address, ...]
) -> Ledger:
    panels = ledger.panels
    return with_panels(
        ledger,
        challenges=put(panels.challenges, name, found),
        rounds=put(panels.rounds, (name, found.round), current),
        panels=put(panels.panels, (name, found.round), panel),
    )
