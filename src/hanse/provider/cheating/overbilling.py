"""Cheat `overbill`: half as many output tokens again are counted, priced and signed for.

The answer itself is not touched, so that what it states and what it holds contradict the receipt.
"""

import msgspec

from hanse.protocol.messages import Usage


def overbill(usage: Usage) -> Usage:
    """What is signed for; an empty answer stays one, since it must cost nothing."""
    more = (usage.output_tokens + 1) // 2
    return msgspec.structs.replace(usage, output_tokens=usage.output_tokens + more)
