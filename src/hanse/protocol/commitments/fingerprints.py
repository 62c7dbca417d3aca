"""The fingerprint of a token: what the model's final state looked like when it chose the token.

A copy's output head has a few secret rows more than the vocabulary, the canaries. Their logits are
projections of the final hidden state, so they come from nothing but a full forward pass of that
copy over all that came before. The differences between them are kept, one signed byte each:

    q_k = round((c_k - mean(c)) / scale), held to -127 .. 127

The mean is taken off because whatever all canaries share (a lift that makes them the largest
logits, the log-sum-exp of logprobs) says nothing about the state, and cancels so.

    quantise(logits)          a token's canary logits -> its fingerprint
    get_error(served, own)    how far the served one lies from the auditor's own
    get_mean_error(errors)    of several positions

Errors are rational arithmetic of bytes, so whoever holds both fingerprints computes the same one.

Source: `docs/verification/audits.md`; the measurements behind scale and bytes are there.
"""

import math
import struct
from collections.abc import Sequence

CANARIES = 16
"""Rows of a copy's output head beyond the vocabulary."""

FINGERPRINT_BYTES = CANARIES
"""One signed byte a canary; TOPLOC takes 8 bytes a token and says nothing about which copy ran."""

SCALE = 4 / 127
"""Of logits to one step of a byte: a canary's row is a unit vector and the state is normed, so that
differences beyond 4 are rare. A copy whose rows are longer states a factor of its own."""

Q_MAX = 127

ABSENT = b"\x80" * FINGERPRINT_BYTES
"""In place of a fingerprint that the serving engine could not read, such as for a token that ends
inside a character. No step is -128, so it is never a real one. It is no evidence for anybody: an
auditor passes over such a position, and judges by how many there are.
"""


_pack = struct.Struct(f"{FINGERPRINT_BYTES}b").pack


def quantise(logits: Sequence[float], scale: float = SCALE) -> bytes:
    """The fingerprint of one token from its canaries' logits (or logprobs).

    Raises:
        ValueError: not CANARIES numbers, one of them not finite, or a scale that is no length.
    """
    if len(logits) != CANARIES:
        raise ValueError(f"{len(logits)} canary logits, a fingerprint takes {CANARIES}")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale {scale} is not a positive number")
    mean = math.fsum(logits) / CANARIES
    if not math.isfinite(mean):
        raise ValueError("a canary's logit is not a finite number")
    steps = [round((value - mean) / scale) for value in logits]
    if max(steps) > Q_MAX or min(steps) < -Q_MAX:  # rare, and this runs for every token served
        steps = [max(-Q_MAX, min(Q_MAX, step)) for step in steps]
    return _pack(*steps)


def get_steps(fingerprint: bytes) -> tuple[int, ...]:
    """The signed bytes of a fingerprint.

    Raises:
        ValueError: not FINGERPRINT_BYTES bytes.
    """
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError(f"{len(fingerprint)} bytes, a fingerprint has {FINGERPRINT_BYTES}")
    return tuple(byte - 256 if byte > Q_MAX else byte for byte in fingerprint)


def get_error(served: bytes, own: bytes) -> float:
    """Length of the difference over the length of the auditor's own; 0 is equal, 1.4 unrelated.

    An own fingerprint of zeros counts as one step long: it can only come from a broken file, and
    then nothing agrees with it by dividing by zero.

    Raises:
        ValueError: one of them is ABSENT.
    """
    if ABSENT in (served, own):
        raise ValueError("an absent fingerprint agrees and disagrees with nothing")
    wanted = get_steps(own)
    apart = sum((a - b) ** 2 for a, b in zip(get_steps(served), wanted, strict=True))
    return math.sqrt(apart / max(1, sum(step**2 for step in wanted)))


def get_mean_error(errors: Sequence[float]) -> float:
    """The mean over positions.

    Raises:
        ValueError: there is none; nothing was looked at, and that is no agreement.
    """
    if not errors:
        raise ValueError("no position was compared")
    return math.fsum(errors) / len(errors)
