"""What providers are worth trusting with, computed alike by everybody from public evidence.

    testimony   one staked witness's word on a provider: an audit, a failure, a time
    observation a signed word on a failure or a time, which nobody can run again
    fading      how the weight of a word halves, in integers
    computing   `compute_reputation`: the share of requests and audits that is expected to fail

    reputation = compute_reputation(provider, testimonies, stakes, registered_at_s, now_s)
    health.take_reputation(provider, reputation.risk_ppm)     # matching goes by it from now on
    reputation.explain()    # which testimony gave what, in lines for people

Integers only and no order: whoever holds the same evidence, the same stakes and the same block time
gets the same number on any machine. What a gateway has seen itself is another matter and stays in
`hanse.market.health`.

Source: `docs/decisions/0034-reputation.md`.
"""

from hanse.market.reputation.computing import (
    Part,
    Reputation,
    compute_reputation,
    get_risk_step,
)
from hanse.market.reputation.testimony import Testimony, Word

__all__ = [
    "Part",
    "Reputation",
    "Testimony",
    "Word",
    "compute_reputation",
    "get_risk_step",
]
