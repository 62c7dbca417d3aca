"""Which receipts are audited, and how often: drawn by everybody alike, after the fact.

A receipt is drawn by the hash of a block that comes after the receipt was committed:

    draw = keccak("hanse lottery 1" || block hash || receipt hash), as a number below 2**256
    audited if draw < rate / 1,000,000 * 2**256

The provider has signed tokens and fingerprints by then, so it cannot cheat only where nobody looks.

**How good is the chain's own randomness?** Whoever makes the deciding block knows its hash first. A
proposer that also cheats as a provider can throw a block away and hope for the next, at the price
of that block's reward: with k tries a receipt that is drawn with probability p stays out with
1 - p**k. On a rollup one sequencer orders everything and can try for nothing. So this draw keeps
strangers from knowing what is audited; against a provider that is in league with its chain's
sequencer it does nothing, and users' own audits (nobody else's draw) are what is left.

**The rate.** One request's cheat gains g. It is found with probability p d and then costs the stake
S: it never pays if p > g / (d S). But a stake is lost once, however many requests were cheated on
before the first finding takes effect. Over the n requests of that window

    n g  <  (1 - (1 - p d)**n) S

must hold, which asks for more than the formula of one request. Where even p = 1 is not enough,
`find_audit_rate_ppm` says so: no rate deters a provider whose stake is below n g. The fees of the
window count as kept. Nothing keeps a provider from claiming them between finding and effect; were
they withheld, S + n g would be lost instead, and lower rates would do.

**Why the hash, and not `prevrandao`.** On Ethereum that would be better: its last proposer has one
bit a slot (to propose, or to let the slot pass), where the maker of a hash has as many tries as it
can compute, since it may shuffle a block's contents. But markets live on rollups, for their fees,
and there it is no randomness of the block: Arbitrum tells a constant, OP chains that of an older
block of Ethereum, which is known minutes before. A draw by it would be foreseen, or be the same for
ever. The hash of a later block is foreseen by nobody there but the sequencer. So it is the hash on
every chain, with the weakness above.

All of it is integers, rounded against the provider, so that everyone computes the same rate.

Source: `docs/decisions/0028-commitments-and-audits.md`.
"""

import msgspec

from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.signatures import Hash32, keccak, to_bytes

LOTTERY_TAG = b"hanse lottery 1"
PPM = 1_000_000

RATE_PPM_MIN = 1_000
"""One in a thousand: nobody is beyond being looked at, and it costs a thousandth of a prefill."""

DELAY_BLOCKS_MIN = 2
"""Blocks between the one that holds the commitment and the one that decides: its proposer is not
yet known when the receipt is signed, where proposers are drawn by the block."""

WINDOW_REQUESTS_MAX = 2**20
"""Requests of one provider within one audit window; a rate over more is computed as over these."""

NEWCOMER_RECEIPTS = 1_000
"""A provider with fewer finished receipts is a newcomer and audited more."""

NEWCOMER_FACTOR = 10
"""How much more at the first receipt; falls in a line to 1 at NEWCOMER_RECEIPTS."""

SUSPICION_FACTOR_MAX = 100
"""The most by which a bad record multiplies the rate."""

MARGIN_PPM = 1_250_000
"""The rate is a quarter above the one at which cheating stops to pay: estimates are estimates."""

_SCALE_BITS = 96
_ONE = 1 << _SCALE_BITS


class Exposure(msgspec.Struct, frozen=True):
    """What one provider could gain by cheating, and lose.

    Attributes:
        stake: base units that a proven cheat loses.
        gain: base units that cheating on one request saves or earns; at most the request's fee.
        detection_ppm: probability, in parts per million, that one audit finds the cheat.
        window_requests: requests that it can finish before the first finding takes effect.
        receipts: finished by this provider before, all of them; says how new it is.
        clean_audits: audits that found nothing since the last that did.
        failed_audits: audits that found a cheat or could not be made for lack of an opening, with
            whatever decay the reader's reputation gives them.
    """

    stake: int
    gain: int
    detection_ppm: int
    window_requests: int = 1
    receipts: int = NEWCOMER_RECEIPTS
    clean_audits: int = 0
    failed_audits: int = 0


def is_drawn(block_hash: Hash32, receipt_hash: Hash32, rate_ppm: int) -> bool:
    """Whether a receipt is audited.

    The caller still owes: that the block is the deciding one (`get_deciding_block`), confirmed.

    Raises:
        ValueError: the rate is outside 0 .. 1,000,000.
    """
    if not 0 <= rate_ppm <= PPM:
        raise ValueError(f"a rate of {rate_ppm} ppm is outside 0 .. {PPM}")
    digest = keccak(LOTTERY_TAG + to_bytes(block_hash) + to_bytes(receipt_hash))
    return int.from_bytes(digest, "big") * PPM < rate_ppm << 256


def get_deciding_block(committed_block: int, delay_blocks: int = DELAY_BLOCKS_MIN) -> int:
    """The number of the block that decides about what was committed in `committed_block`.

    Raises:
        ValueError: the delay is below DELAY_BLOCKS_MIN; the provider might know the block.
    """
    if delay_blocks < DELAY_BLOCKS_MIN:
        raise ValueError(f"a delay of {delay_blocks} blocks, at least {DELAY_BLOCKS_MIN}")
    return committed_block + delay_blocks


def find_audit_rate_ppm(exposure: Exposure) -> int | None:
    """The rate, in parts per million, from which cheating does not pay, with MARGIN_PPM.

    Returns:
        RATE_PPM_MIN .. 1,000,000, raised for newcomers and bad records; None if even auditing every
        request would leave a cheat profitable: ask for more stake, or a shorter window.

    Raises:
        ValueError: a field is out of range.
    """
    _check(exposure)
    if _is_profitable(exposure, PPM):
        return None
    low, high = 0, PPM
    while low < high:
        middle = (low + high) // 2
        if _is_profitable(exposure, middle):
            low = middle + 1
        else:
            high = middle
    rate = -(-low * MARGIN_PPM // PPM)
    rate = max(rate, RATE_PPM_MIN) * _get_suspicion(exposure)
    return min(PPM, -(-rate * _get_newcomer_ppm(exposure.receipts) // PPM))


def _is_profitable(exposure: Exposure, rate_ppm: int) -> bool:
    """Whether cheating all through one window gains more than it is expected to lose.

    What is gained stays gained: the fees of the window are paid out.
    """
    count = min(exposure.window_requests, WINDOW_REQUESTS_MAX)
    caught = rate_ppm * exposure.detection_ppm * _ONE // PPM**2
    missed = _ONE
    base, left = _ONE - caught, count
    while left:  # (1 - p d)**n by squaring; rounding up leaves the cheat the better odds
        if left & 1:
            missed = -(-missed * base >> _SCALE_BITS)
        base = -(-base * base >> _SCALE_BITS)
        left >>= 1
    return count * exposure.gain * _ONE > (_ONE - missed) * exposure.stake


def _get_newcomer_ppm(receipts: int) -> int:
    missing = max(0, NEWCOMER_RECEIPTS - receipts)
    return PPM + (NEWCOMER_FACTOR - 1) * PPM * missing // NEWCOMER_RECEIPTS


def _get_suspicion(exposure: Exposure) -> int:
    """1 for a clean record; each failure tenfold, halved by every hundred clean audits since."""
    if not exposure.failed_audits:
        return 1
    raised = 10 * exposure.failed_audits >> min(exposure.clean_audits // 100, 64)
    return max(1, min(SUSPICION_FACTOR_MAX, raised))


def _check(exposure: Exposure) -> None:
    for name, value, most in (
        ("stake", exposure.stake, AMOUNT_MAX),
        ("gain", exposure.gain, AMOUNT_MAX),
        ("detection_ppm", exposure.detection_ppm, PPM),
    ):
        if not 0 <= value <= most:
            raise ValueError(f"{name} is {value}, outside 0 .. {most}")
    counts = (exposure.receipts, exposure.clean_audits, exposure.failed_audits)
    if exposure.window_requests < 1 or min(counts) < 0:
        raise ValueError("a window has at least one request, and counts are not negative")
