"""Each invariant of slashing and records refuses the state that it is there against."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import InvariantError
from hanse.protocol.ledger import (
    Emitted,
    Ledger,
    Provider,
    RecordsHead,
    Rules,
    SubAccount,
    SubAccountId,
    find_cheats,
)
from hanse.protocol.ledger import dispute_invariants as named
from hanse.protocol.messages import FinishReason, Receipt, Usage

USER, PROVIDER, SIGNER, RECORDER = ("0x" + digits * 20 for digits in ("11", "22", "33", "44"))
KEY = SubAccountId(USER, PROVIDER, SIGNER)
HASH = "0x" + "ab" * 32
EMPTY = Ledger(Rules(Domain(1, "0x" + "ee" * 20), 3_600, 10, 3_600, 7_200, 3_600))
STAKED = replace(EMPTY, providers={PROVIDER: Provider(stake=11)}, registry_held=11)
CONDEMNED = replace(
    EMPTY,
    providers={PROVIDER: Provider(pool=5, condemned_until_s=9)},
    burned=6,
    registry_held=11,
)


def make_receipt(sequence: int, cumulative_fee: int) -> Receipt:
    return Receipt(
        user=USER,
        provider=PROVIDER,
        signer=SIGNER,
        sequence=sequence,
        request_hash=HASH,
        response_hash=HASH,
        usage=Usage(1, 0, 1),
        fee=1,
        cumulative_fee=cumulative_fee,
        finish_reason=FinishReason.STOP,
        finished_at=1,
        commitment_root=HASH,
    )


def with_provider(ledger: Ledger, **changes: int) -> Ledger:
    entry = replace(ledger.providers[PROVIDER], **changes)  # type: ignore[arg-type]
    return replace(ledger, providers={PROVIDER: entry})


def with_claimed(claimed: int, sequence: int, compensation: int = 0) -> Ledger:
    return replace(
        EMPTY,
        sub_accounts={KEY: SubAccount(10, claimed, sequence)},
        compensations={KEY: compensation},
    )


def head_of(number: int, digits: str) -> Ledger:
    return replace(EMPTY, records={RECORDER: RecordsHead(number, "0x" + digits * 32)})


CASES: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
    "stake burned without a trace": (
        lambda: named.stake_is_conserved(STAKED, CONDEMNED, ()),
        lambda: named.stake_is_conserved(STAKED, replace(CONDEMNED, burned=5), ()),
    ),
    "paid to a victim and still there": (
        lambda: named.stake_is_conserved(
            CONDEMNED, with_provider(CONDEMNED, pool=3), (Emitted("Slashed", {"amount": 2}),)
        ),
        lambda: named.stake_is_conserved(
            CONDEMNED, CONDEMNED, (Emitted("Slashed", {"amount": 2}),)
        ),
    ),
    "condemned with a stake": (
        lambda: named.condemned_is_for_ever(CONDEMNED, CONDEMNED),
        lambda: named.condemned_is_for_ever(CONDEMNED, with_provider(CONDEMNED, stake=1)),
    ),
    "condemned that unbonds": (
        lambda: named.condemned_is_for_ever(STAKED, CONDEMNED),
        lambda: named.condemned_is_for_ever(STAKED, with_provider(CONDEMNED, unbonding_until_s=1)),
    ),
    "a pardon": (
        lambda: named.condemned_is_for_ever(CONDEMNED, with_provider(CONDEMNED, pool=0)),
        lambda: named.condemned_is_for_ever(
            CONDEMNED, with_provider(CONDEMNED, condemned_until_s=0)
        ),
    ),
    "a pool that grows": (
        lambda: named.condemned_is_for_ever(CONDEMNED, with_provider(CONDEMNED, pool=4)),
        lambda: named.condemned_is_for_ever(CONDEMNED, with_provider(CONDEMNED, pool=6)),
    ),
    "something unburned": (
        lambda: named.condemned_is_for_ever(CONDEMNED, replace(CONDEMNED, burned=7)),
        lambda: named.condemned_is_for_ever(CONDEMNED, replace(CONDEMNED, burned=5)),
    ),
    "less than half burned": (
        lambda: named.half_of_a_slashed_stake_is_burned(STAKED, CONDEMNED),
        lambda: named.half_of_a_slashed_stake_is_burned(STAKED, replace(CONDEMNED, burned=5)),
    ),
    "more paid back than lost": (
        lambda: named.victim_never_paid_above_loss(
            with_claimed(100, 2, 30), {KEY: [make_receipt(2, 70), make_receipt(2, 90)]}
        ),
        lambda: named.victim_never_paid_above_loss(
            with_claimed(100, 2, 31), {KEY: [make_receipt(2, 70), make_receipt(2, 90)]}
        ),
    ),
    "paid back without a receipt": (
        lambda: named.victim_never_paid_above_loss(with_claimed(100, 2, 0), {}),
        lambda: named.victim_never_paid_above_loss(with_claimed(100, 2, 1), {}),
    ),
    "an honest provider condemned": (
        lambda: named.honest_provider_is_never_slashed(CONDEMNED, {PROVIDER}),
        lambda: named.honest_provider_is_never_slashed(CONDEMNED, {USER}),
    ),
    "a number left out": (
        lambda: named.numbers_are_consecutive(head_of(1, "0a"), head_of(2, "0b")),
        lambda: named.numbers_are_consecutive(head_of(1, "0a"), head_of(3, "0b")),
    ),
    "a head of something else": (
        lambda: named.head_names_all_commits(EMPTY, {RECORDER: []}),
        lambda: named.head_names_all_commits(
            head_of(1, "0a"), {RECORDER: [named.Commit(HASH, 1, 1)]}
        ),
    ),
    "somebody else's commit": (
        lambda: named.only_the_recorder_extends_its_chain(
            head_of(1, "0a"), head_of(2, "0b"), RECORDER
        ),
        lambda: named.only_the_recorder_extends_its_chain(head_of(1, "0a"), head_of(2, "0b"), USER),
    ),
}


@pytest.mark.parametrize(("holds", "breaks"), CASES.values(), ids=CASES)
def test_a_broken_state_is_refused_and_the_right_one_is_not(
    holds: Callable[[], None], breaks: Callable[[], None]
) -> None:
    holds()
    with pytest.raises(InvariantError):
        breaks()


@pytest.mark.parametrize(
    ("claimed", "sequence", "receipts", "is_cheat"),
    [
        (0, 0, [(1, 5), (2, 5), (3, 9)], False),
        (9, 3, [(1, 5), (2, 5), (3, 9)], False),
        (8, 3, [(3, 9)], False),
        (9, 4, [(1, 5), (3, 8)], False),
        (9, 3, [(3, 8)], True),
        (9, 3, [(2, 1), (4, 8)], True),
        (0, 0, [(3, 9), (3, 8)], True),
        (0, 0, [(3, 9), (4, 8)], True),
        (0, 0, [(3, 9), (3, 9)], False),
    ],
)
def test_who_could_be_accused(
    claimed: int, sequence: int, receipts: list[tuple[int, int]], is_cheat: bool
) -> None:
    signed = [make_receipt(*one) for one in receipts]
    found = find_cheats(with_claimed(claimed, sequence), {KEY: signed})
    assert (PROVIDER in found) is is_cheat


def test_a_difference_in_any_field_makes_a_cheat() -> None:
    twin = msgspec.structs.replace(make_receipt(3, 9), commitment_root="0x" + "cd" * 32)
    assert find_cheats(EMPTY, {KEY: [make_receipt(3, 9), twin]}) == {PROVIDER}
