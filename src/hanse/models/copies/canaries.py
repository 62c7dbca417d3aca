"""Canary rows: the part of a copy's output head that nobody generates and everybody can check.

K rows more than the vocabulary has. Row k is r_k / m: r_k a secret unit vector in the basis of the
base, all K at right angles, m the median of the last norm's gains. So canary k's logit is a keyed
projection of the final normed state, of a spread near 1 in every model: a fingerprint that only a
full forward pass of this copy gives.

To travel through a stock server they have to be among the 20 largest raw logits. A bias on the head
lifts all by the same amount, which cancels in `c_k - mean(c)`. The lift must not be large: servers
tell logprobs out of float32 probabilities, and a token 87 below the largest has none that is normal
any more. Raw logits of 514 varied positions of SmolLM2 peak between 3 and 44; LIFT_DEFAULT leaves a
margin on both sides. Were a logit of some model higher, the fingerprint of that position would be
absent, and nothing else would happen.

Llama's graph in llama.cpp has no such bias; others have, and compute the same (`graphs`). The
stream stays as wide as it was.
"""

from typing import TYPE_CHECKING

from hanse.models.copies.keys import KeyStream
from hanse.models.copies.rotations import draw_rotation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CANARIES_DEFAULT = 16
"""K: bytes of a token's fingerprint. A plain `top_logprobs` of 20 carries them and 4 more."""

CANARY_TEXT = "hanse canary {}"
"""A canary's text in the vocabulary. No tokenizer makes it out of a prompt: byte-level BPE writes a
space as another character, SentencePiece too, and tokens of kind UNUSED are not looked up."""

LIFT_DEFAULT = 56.0
"""Above the highest raw logit seen (43.7) and the spread of the canaries, and no more."""

FINGERPRINT_SCALE = 4 / 127
"""A step of a fingerprint's int8, which then reaches from -4 to 4."""


def draw_canaries(
    copy_key: bytes, output_gains: "NDArray[np.float32]", count: int
) -> "NDArray[np.float32]":
    """The rows [K, N] in the basis of the base model; they read the state after its last norm.

    Whoever has the plain weights and the key computes fingerprints by these: append them to the
    base's output head.
    """
    import numpy as np

    width = len(output_gains)
    if count > width:
        raise ValueError(f"{count} rows at right angles do not fit into {width} dimensions")
    rotation = draw_rotation(KeyStream(copy_key, "canaries"), width)
    rows = rotation.apply(np.eye(count, width, dtype=np.float32))
    middle: np.float32 = np.median(np.abs(output_gains))
    return rows / middle
