"""What each cheat gains, and what finds it: the inputs of `benchmarks.sim_cheats`, with sources.

All amounts are parts of the price of one request. Nothing here is a measurement of its own: a
figure is quoted (`design` is verification.md, measured once on a 2-core CPU with SmolLM2-135M), or
computed from quoted ones (`arithmetic`), or assumed. Detections that `make bench-audit` printed
take the place of the quoted ones (`take_detections`, `make sim-cheats DETECTIONS=file`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hanse.verification.audits.bounds import get_rate_bound

COST = 0.7
"""What an honest answer costs its provider. Assumed: a margin of 30 %."""

PREFILL_TOKENS_PER_S, DECODE_TOKENS_PER_S = 364.0, 75.0
"""Of SmolLM2 Q4_0 on two cores, one user. Source: the project's measured facts on engines."""

PROMPT_TOKENS, SYSTEM_TOKENS, ANSWER_TOKENS = 700, 400, 256
"""A request with a persona of 400 tokens. Assumed; the answer is the market's expected length."""

_PREFILL_S = PROMPT_TOKENS / PREFILL_TOKENS_PER_S
_DECODE_S = ANSWER_TOKENS / DECODE_TOKENS_PER_S
_ANSWER_S = _PREFILL_S + _DECODE_S
_AUDIT_S = (PROMPT_TOKENS + ANSWER_TOKENS) / PREFILL_TOKENS_PER_S

AUDIT_OVER_GENERATION = _AUDIT_S / _ANSWER_S
"""One prefill over prompt and answer against making it, for this request: arithmetic."""

POWER = 0.99
"""Detection by one audit of what the design saw separated without overlap within 16 tokens. The
design's sample was small, so this is the bar of the product (99 % power), not the 100 % seen."""


@dataclass(frozen=True)
class Cheat:
    """One way to cheat, on every request.

    Attributes:
        name: as in `hanse provider start --cheat`.
        gain: parts of the price, each request.
        gain_source: where that is from.
        detection: probability that one audit of one answer finds it.
        detection_source: where that is from.
        found_by: `audit` at the rate of audits, or `user`, whose own check sees each request.
        penalty: `stake` if the finding is evidence for a penalty, else `record`: it only counts in
            the reputation.
    """

    name: str
    gain: float
    gain_source: str
    detection: float
    detection_source: str
    found_by: str = "audit"
    penalty: str = "stake"


CHEATS = (
    Cheat(
        "quantise",
        COST * (1 - 18 / 34),
        "arithmetic: Q8_0 reads 34 bytes for 32 weights, Q4_0 18, and decoding is bound by reading",
        POWER,
        "design: Q4 for Q8 found in 1 token by the fingerprint",
    ),
    Cheat(
        "swap",
        COST * 0.5,
        "assumed: a model that costs half",
        POWER,
        "design: anything but a full pass of this copy is found in 1 token",
    ),
    Cheat(
        "other-copy",
        0.01,
        "assumed: making and keeping an own copy",
        POWER,
        "design: another copy found in 1 token, error at least 0.91",
    ),
    Cheat(
        "skip-layer",
        COST / 30,
        "arithmetic: one of SmolLM2's 30 layers",
        POWER,
        "design: a skipped layer found in 1 token",
    ),
    Cheat(
        "kv4",
        COST * 0.2,
        "assumed: memory for a quarter more users at once",
        POWER,
        "design: a 4-bit KV cache found in 4 tokens",
    ),
    Cheat(
        "drop-system",
        COST * SYSTEM_TOKENS / PREFILL_TOKENS_PER_S / _ANSWER_S,
        "arithmetic: 400 tokens of prefill less",
        POWER,
        "design: a dropped system prompt found in 16 tokens",
    ),
    Cheat(
        "overbill",
        0.2,
        "assumed: a fifth more tokens on the bill, stated alike everywhere",
        1.0,
        "exact: the bill is above its commitment, both are signed; a breach for a dispute",
    ),
    Cheat(
        "forward",
        COST * 0.5,
        "assumed: another API sells the answer at half the cost",
        1.0,
        "exact: a bill without the promised commitment is a breach for a dispute",
    ),
    Cheat(
        "cheap-text-prefill",
        COST * (1 - (_AUDIT_S + 0.1 * _ANSWER_S) / _ANSWER_S),
        "arithmetic: text at a tenth of the cost, then one prefill of prompt and text",
        0.95,
        "assumed: only the draws show it; the verdict is inconclusive (docs/verification)",
        penalty="record",
    ),
    Cheat(
        "equivocate",
        1.0,
        "arithmetic: a second fee for one request",
        1.0,
        "exact: both receipts are the proof, and the user's side holds them (decision 12)",
        found_by="user",
    ),
    Cheat(
        "overclaim",
        1.0,
        "arithmetic: a second fee for one request",
        1.0,
        "exact: the claim is on the chain, the receipts are the user's (decision 12)",
        found_by="user",
    ),
)
"""The cheats of issue 5, in its order."""

ANSWER_TOKENS_MEASURED = 16
"""Tokens of one audited answer: what bench-audit has most of, and less than this table's answer has
(ANSWER_TOKENS), so that a detection is rather too low."""

CONFIDENCE = 0.95

RUNGS = {"stake": "V3", "record": "V2"}
"""What has to find a cheat: fingerprints are evidence for a penalty, draws count in the record."""

SIGNED = "V0"
"""The rung of what signatures show, with an answer's first token."""

SHARES = {"stake": "penalised", "record": "detected"}
"""What of a line counts: a stake is lost by the verdict cheat, not by what is above a threshold."""


def take_detections(cheats: Sequence[Cheat], lines: Iterable[str]) -> tuple[Cheat, ...]:
    """The table with what bench-audit measured; the lower bound at 95 % of each share.

    Raises:
        ValueError: a line is none of bench-audit's.
    """
    measured: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        document = json.loads(line)
        if "cheat" in document:
            tokens = 1 if document["rung"] == SIGNED else ANSWER_TOKENS_MEASURED
            if document.get("tokens") == tokens:
                measured[document["cheat"], document["rung"]] = document
    taken = []
    for cheat in cheats:
        rung, share = RUNGS[cheat.penalty], SHARES[cheat.penalty]
        if (cheat.name, SIGNED) in measured:  # no verdict is needed: the breach is the evidence
            rung, share = SIGNED, "detected"
        line_of = measured.get((cheat.name, rung))
        if line_of is None or cheat.found_by != "audit":
            taken.append(cheat)
            continue
        groups, tokens = int(line_of["groups"]), line_of["tokens"]
        found = round(line_of[share] * groups)
        taken.append(
            replace(
                cheat,
                detection=1 - get_rate_bound(groups - found, groups, CONFIDENCE),
                detection_source=f"measured: bench-audit, {found} of {groups} answers of "
                f"{tokens} tokens by {rung}, lower bound at 95 %",
            )
        )
    return tuple(taken)


FALSE_POSITIVE_MAX = 3e-4
"""Of an honest answer, by one audit: what 0 of 10,000 (the bar) still allows at 95 % (3/n)."""
