"""What quantisations are called: by offers, by copies, and by llama.cpp's server.

A copy of another type than the served one makes an honest answer look like a cheat's, so types are
compared before anything is run.
"""

import re

UNKNOWN = "unknown"
"""The quantisation of an offer whose engine does not know it, and of a calibration by --manifest.
An offer of such a one, or of one that is none, is held against all copies of its provider: words of
its own choice must not keep it from being audited.
"""

FLOATS = ("f32", "f16", "bf16")
"""Types without rounding to steps: what audits copies of all others, where it was calibrated so."""

_SIZES = {"small": "_s", "medium": "_m", "large": "_l"}
_ALIASES = {
    "q2_k_m": "q2_k", "fp32": "f32", "float32": "f32", "fp16": "f16", "float16": "f16",
    "half": "f16", "bfloat16": "bf16",
}  # fmt: skip
_TYPE = re.compile(r"(i?q|tq|f|bf|fp|int|mxfp|nvfp)[0-9]{1,2}(_[a-z0-9]{1,4}){0,3}|awq|gptq")


def to_type(text: str) -> str:
    """A quantisation in one spelling: llama.cpp's server says `Q4_K - Medium` of `Q4_K_M`.

    And `all F32`, `IQ4_NL - 4.5 bpw`, or `(guessed) Q8_0` where a file does not say it. What looks
    like no type at all is UNKNOWN.
    """
    plain = text.casefold().removeprefix("(guessed) ").removeprefix("all ")
    name, _, rest = plain.partition(" - ")
    name += _SIZES.get(rest, "")
    name = _ALIASES.get(name, name)
    return name if _TYPE.fullmatch(name) else UNKNOWN


def can_audit(copy: str, offered: str) -> bool:
    """Whether a copy of one type can say anything about answers of an offered one."""
    own, wanted = to_type(copy), to_type(offered)
    return own == wanted or own in FLOATS or UNKNOWN in (own, wanted)
