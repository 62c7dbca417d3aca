"""What an answer's numbers come to: a handful of statistics, each in millionths, higher is worse.

| name | is | says |
| --- | --- | --- |
| `fingerprint/4` `/16` `/64` | worst mean error of a block of so many positions | another run |
| `sampling` | share of tokens that lie further than FAR_PPM from what the seed gives | other text |
| `sampling/sorted` | the same where top-k or top-p sort the tokens | other text |
| `greedy` | at temperature 0, share more than FAR_MILLILOGITS below the best | other text |

Blocks, and the worst of them, because a provider may swap its model in the middle of an answer,
where a mean over all of it would drown. The last block ends with the answer, so no token is left
out. Positions without a fingerprint are passed over.

An answer too short for a statistic has none of it, and is not judged by it.
"""

from collections.abc import Sequence

from hanse.protocol.commitments.fingerprints import ABSENT, get_error
from hanse.verification.audits.sampling import Chain

PPM = 1_000_000

BLOCKS = (4, 16, 64)
"""Positions of a block; below four the noise of one token decides."""

SAMPLED_TOKENS_MIN = 16
"""Tokens from which the shares are computed; one odd token is then a sixteenth."""

FAR_PPM = 50_000
"""Distance from the interval of a token's draw that counts as far. Between two honest runs of one
file 0 of 440 tokens lay so far; of Q4 for Q8, 37 % (`shared/design/verification.md`)."""

FAR_MILLILOGITS = 500
"""The same for greedy answers, in logits below the best token."""

CHOICE_PPM = 990_000
"""A token with higher odds was no choice: whatever made the text would have taken it."""

FINGERPRINT = tuple(f"fingerprint/{block}" for block in BLOCKS)
SAMPLING = "sampling"
SORTED = "sampling/sorted"
GREEDY = "greedy"
NAMES = (*FINGERPRINT, SAMPLING, SORTED, GREEDY)

FLOORS_PPM = {SAMPLING: 62_500, SORTED: 62_500, GREEDY: 62_500}
"""A threshold is never below this: of most honest answers the share is 0, and then one odd token in
the shortest answer that is judged must not be too many."""


def get_fingerprint_statistics(served: Sequence[bytes], own: Sequence[bytes]) -> dict[str, int]:
    """The worst block's mean error, for each length of block that the answer has."""
    pairs = zip(served, own, strict=True)
    errors = [get_error(one, other) for one, other in pairs if one != ABSENT]
    found = {}
    for name, block in zip(FINGERPRINT, BLOCKS, strict=True):
        if len(errors) >= block:
            starts = [*range(0, len(errors) - block, block), len(errors) - block]
            worst = max(sum(errors[start : start + block]) / block for start in starts)
            found[name] = round(worst * PPM)
    return found


def get_sampling_statistics(misses: Sequence[int], chain: Chain) -> dict[str, int]:
    """The share of far tokens; empty of a short answer."""
    if len(misses) < SAMPLED_TOKENS_MIN:
        return {}
    limit = FAR_MILLILOGITS if chain.is_greedy else FAR_PPM
    far = sum(miss > limit for miss in misses)
    return {get_sampling_name(chain): far * PPM // len(misses)}


def get_sampling_name(chain: Chain) -> str:
    """The statistic by which answers of this sampler are judged."""
    if chain.is_greedy:
        return GREEDY
    return SORTED if chain.is_sorted else SAMPLING


def count_choices(odds: Sequence[int]) -> int:
    """Tokens at which there was anything to choose."""
    return sum(one < CHOICE_PPM for one in odds)
