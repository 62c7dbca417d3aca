"""The schedule: after the commitment, alike for everybody, and never silent about lack of stake."""

from hashlib import sha256

import msgspec

from hanse.protocol.commitments.lottery import DELAY_BLOCKS_MIN, PPM, Exposure
from hanse.verification.audits.schedule import Candidate, Draw, make_schedule

EXPOSURE = Exposure(stake=1_000_000, gain=20_000, detection_ppm=900_000)


def make_candidates(count: int, exposure: Exposure = EXPOSURE) -> list[Candidate]:
    return [
        Candidate("0x" + sha256(bytes([at // 256, at % 256])).hexdigest(), "0x" + "22" * 20,
                  100 + at % 5, exposure)
        for at in range(count)
    ]  # fmt: skip


HASHES = {number: "0x" + sha256(number.to_bytes(4, "big")).hexdigest() for number in range(200)}


def test_about_as_many_are_due_as_the_rate_says_and_everybody_draws_the_same() -> None:
    first = make_schedule(make_candidates(2_000), HASHES)
    assert first == make_schedule(make_candidates(2_000), HASHES)
    due = [one for one in first if one.draw is Draw.DUE]
    expected = 2_000 * first[0].rate_ppm / PPM  # 54
    assert abs(len(due) - expected) < 4 * expected**0.5
    assert all(one.deciding_block == one.candidate.committed_block + DELAY_BLOCKS_MIN
               for one in first)  # fmt: skip


def test_nobody_is_drawn_before_the_deciding_block() -> None:
    known = {number: text for number, text in HASHES.items() if number < 104}
    plan = make_schedule(make_candidates(50), known)
    waiting = {one.deciding_block for one in plan if one.draw is Draw.WAITING}
    assert waiting == {104, 105, 106}


def test_another_block_draws_others() -> None:
    candidates = make_candidates(500)
    other = {number: "0x" + sha256(text.encode()).hexdigest() for number, text in HASHES.items()}
    plans = [
        [one.candidate.receipt_hash for one in make_schedule(candidates, hashes)
         if one.draw is Draw.DUE]
        for hashes in (HASHES, other)
    ]  # fmt: skip
    assert plans[0] != plans[1]


def test_a_provider_without_stake_is_always_audited_and_named() -> None:
    poor = msgspec.structs.replace(EXPOSURE, stake=0, detection_ppm=500_000)
    (one,) = make_schedule(make_candidates(1, poor), HASHES)
    assert (one.draw, one.rate_ppm, one.is_deterred) == (Draw.DUE, PPM, False)
