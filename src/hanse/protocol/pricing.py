"""The maximum fee of a request, by a rule that both sides compute alike without a tokenizer.

A token is at least one byte of text, so a body's length bounds its tokens; the chat template adds a
few. Reserving a little too much costs nobody anything: the fee is what was metered.

Source: `docs/protocol.md`, section "Maximum fee".
"""

from hanse.protocol.messages import Offer, Usage
from hanse.protocol.units import get_fee

TEMPLATE_TOKENS = 512
"""Tokens that a chat template may add to what is in the body: a default system prompt, role marks,
tool rules.
"""


def get_maximum_usage(offer: Offer, body_bytes: int, output_tokens_max: int) -> Usage:
    """The most tokens that a body of this length can be metered for.

    Args:
        offer: whose limits apply.
        body_bytes: length of the request's body.
        output_tokens_max: output tokens asked for, over all choices (`n` times `max_tokens`); 0
            for embeddings. Speech and transcriptions have none; their units are characters and
            seconds (`hanse.protocol.wire.operations`).
    """
    if offer.service_type in ("speech", "transcription"):
        # A character is at least one byte of the body, and so is a second of audio: the leanest
        # speech codecs take hundreds. No template adds to them.
        return Usage(input_tokens=min(body_bytes, offer.context_tokens))
    input_tokens = body_bytes + TEMPLATE_TOKENS
    if output_tokens_max > 0:  # an embeddings request has a context for each of its texts
        input_tokens = min(input_tokens, offer.context_tokens)
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens_max)


def get_maximum_fee(offer: Offer, body_bytes: int, output_tokens_max: int) -> int:
    """What a request must authorise at least, in base units.

    Cached input is taken at the dearer of the two input prices.
    """
    usage, prices = get_maximum_usage(offer, body_bytes, output_tokens_max), offer.prices
    input_price = max(prices.input_per_mtok, prices.cached_per_mtok)
    return get_fee(
        ((usage.input_tokens, input_price), (usage.output_tokens, prices.output_per_mtok))
    )
