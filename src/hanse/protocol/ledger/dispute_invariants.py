"""What must hold of slashing and of records after every step; see `invariants`.

Source: docs/decisions/0012-disputes-and-slashing.md and 0013-records-heads.md.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hanse.protocol.eip712 import hash_word, uint_word
from hanse.protocol.ledger.invariants import get_staked, require, require_equal
from hanse.protocol.ledger.state import (
    NO_RECORDS,
    NO_SUB_ACCOUNT,
    Effect,
    Emitted,
    Ledger,
    SubAccountId,
)
from hanse.protocol.messages import Receipt
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, keccak, to_hex

_STAKE_FIELDS = {
    "Registered": ("stake", 1),
    "StakeAdded": ("amount", 1),
    "UnbondingFinished": ("stake", -1),
    "Slashed": ("amount", -1),
}
"""Event -> the field that says how much entered Registry (1) or left it (-1)."""


@dataclass(frozen=True)
class Commit:
    """What a recorder committed."""

    root: Hash32
    count: int
    fee_total: int


def stake_is_conserved(before: Ledger, after: Ledger, effects: Sequence[Effect]) -> None:
    """Stakes + pools + burned change by what the events say came in, went home or to a victim."""
    moved = 0
    for effect in effects:
        if isinstance(effect, Emitted) and effect.name in _STAKE_FIELDS:
            field, sign = _STAKE_FIELDS[effect.name]
            moved += sign * effect.fields[field]
    require_equal("staked", get_staked(after), "before + moved", get_staked(before) + moved)


def condemned_is_for_ever(before: Ledger, after: Ledger) -> None:
    """No stake, no unbonding, no new pool, no other window; and what is burned stays burned."""
    for owner, old in before.providers.items():
        new = after.providers[owner]
        if old.condemned_until_s:
            same = new.condemned_until_s == old.condemned_until_s and new.pool <= old.pool
            require(same, f"{owner} was condemned: {old} became {new}")
        if new.condemned_until_s:
            nothing = new.stake == 0 and new.unbonding_until_s == 0
            require(nothing, f"{owner} is condemned and has {new}")
    require(after.burned >= before.burned, f"burned fell from {before.burned} to {after.burned}")


def half_of_a_slashed_stake_is_burned(before: Ledger, after: Ledger) -> None:
    """At once, rounded up: so no accusation, not even of oneself, brings more than half of it."""
    for owner, new in after.providers.items():
        old = before.providers.get(owner)
        if old and new.condemned_until_s and not old.condemned_until_s:
            burned = after.burned - before.burned
            require(burned * 2 >= old.stake, f"{owner}: {burned} of {old.stake} were burned")


def victim_never_paid_above_loss(
    ledger: Ledger, receipts: Mapping[SubAccountId, Sequence[Receipt]]
) -> None:
    """However many proofs there were: at most what was claimed above the cheapest receipt.

    Args:
        ledger: the state.
        receipts: every receipt that the providers ever signed.
    """
    for key, paid in ledger.compensations.items():
        claimed = ledger.sub_accounts.get(key, NO_SUB_ACCOUNT).claimed
        cheapest = min((r.cumulative_fee for r in receipts.get(key, ())), default=claimed)
        loss = max(0, claimed - cheapest)
        require(paid <= loss, f"{key}: paid back {paid}, claimed {claimed}, receipt {cheapest}")


def honest_provider_is_never_slashed(ledger: Ledger, cheats: Collection[Address]) -> None:
    """Nobody is condemned who has not broken a rule of honesty with its own key before.

    Args:
        ledger: the state.
        cheats: whom `find_cheats` found in this state or an earlier one.
    """
    for owner, entry in ledger.providers.items():
        require(
            not entry.condemned_until_s or owner in cheats,
            f"{owner} is condemned until {entry.condemned_until_s} and never cheated",
        )


def numbers_are_consecutive(before: Ledger, after: Ledger) -> None:
    """A recorder's commits are 1, 2, 3, ..., one at a time."""
    for recorder, new in after.records.items():
        old = before.records.get(recorder, NO_RECORDS)
        require(new.number - old.number in (0, 1), f"{recorder}: {old.number}, then {new.number}")


def head_names_all_commits(ledger: Ledger, commits: Mapping[Address, Sequence[Commit]]) -> None:
    """A head is the hash chain over everything that its recorder committed, in order."""
    for recorder, made in commits.items():
        head = ZERO_HASH
        for commit in made:
            words = hash_word(commit.root), uint_word(commit.count), uint_word(commit.fee_total)
            head = to_hex(keccak(hash_word(head) + b"".join(words)))
        found = ledger.records.get(recorder, NO_RECORDS)
        require_equal(f"head of {recorder}", found.head, "chain of its commits", head)
        require_equal(f"number of {recorder}", found.number, "its commits", len(made))


def only_the_recorder_extends_its_chain(before: Ledger, after: Ledger, actor: Address) -> None:
    """No other caller changes a recorder's head."""
    for recorder, new in after.records.items():
        same = before.records.get(recorder, NO_RECORDS) == new
        require(same or recorder == actor, f"{actor} changed the head of {recorder}")
