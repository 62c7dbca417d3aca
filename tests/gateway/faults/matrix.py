"""The fault matrix: what each fault shows the application, and what it costs, as measured.

Two providers of one model, a cheap one that is at fault and a dear one that is not; a request of 12
tokens. `test_matrix` runs every row against a real gateway over real HTTP and compares what it
measures with the words here, letter by letter; `docs/gateway/staying-up.md` shows the same words.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hanse.engines.echo_engine import Fault
from tests.gateway.faults.hostile import (
    ChangesWords,
    DiesAmid,
    DiesAtOnce,
    EndsTwice,
    NeverAnswers,
    SaysServerError,
    SignsWithAnotherKey,
    SpeaksNonsense,
)

TOKENS = 12
WHOLE = f"one whole stream of {TOKENS} tokens"
BODY = "one whole answer"
OTHER_ALL = f"other {TOKENS}"


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        fault: what goes wrong at the cheap provider.
        saw: what the application saw.
        paid: output tokens paid to each, by its receipts; `3+` is 3 and at most 3 more that it
            had handed to the network when the connection ended.
        stream: whether the answer is streamed.
        choices: how many answers are asked for.
        engine: a fault of its engine.
        front: what stands before its broker.
        stopped: whether nothing listens there.
        settings: of the gateway.
        deadline_ms: that the application sets.
        both: whether the dear provider has the same fault of the engine.
        breaks_promises: whether it bills an `embedded` offer without a commitment.
    """

    fault: str
    saw: str
    paid: str
    stream: bool = True
    choices: int = 1
    engine: Fault | None = None
    front: Callable[[Any], Any] | None = None
    stopped: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    deadline_ms: int = 0
    both: bool = False
    breaks_promises: bool = False


def amid(kind: str, tokens: int = 3) -> Fault:
    return Fault(kind=kind, after_tokens=tokens)  # type: ignore[arg-type]


ROWS = [
    Row("nothing listens", WHOLE, OTHER_ALL, stopped=True),
    Row("nothing listens, whole answer", BODY, OTHER_ALL, stream=False, stopped=True),
    Row("dead before the first byte", WHOLE, OTHER_ALL, front=DiesAtOnce),
    Row(
        "dead amid the stream",
        f"{WHOLE}, continued after 3",
        "at fault 3+; other 9",
        front=DiesAmid,
    ),
    Row(
        "engine breaks before the first token",
        WHOLE,
        f"at fault 0; {OTHER_ALL}",
        engine=amid("refuse"),
    ),
    Row(
        "engine breaks amid the stream",
        f"{WHOLE}, continued after 3",
        "at fault 3; other 9",
        engine=amid("break"),
    ),
    Row(
        "engine breaks amid two choices",
        f"one whole stream of 2 x {TOKENS} tokens, continued after 3",
        "at fault 6; other 18",
        choices=2,
        engine=amid("break"),
    ),
    Row(
        "both engines break amid the stream",
        "6 tokens, then `engine_unavailable`",
        "at fault 3; other 3",
        engine=amid("break"),
        both=True,
    ),
    Row("answers 500", WHOLE, OTHER_ALL, front=SaysServerError),
    Row("hangs before its head", WHOLE, OTHER_ALL, front=NeverAnswers),
    Row(
        "hangs amid the stream",
        f"{WHOLE}, continued after 3",
        "at fault 3; other 9",
        engine=amid("hang"),
        settings={"silence_s": 0.2},
    ),
    Row(
        "hangs amid two choices",
        f"one whole stream of 2 x {TOKENS} tokens, continued after 3",
        "at fault 6; other 18",
        choices=2,
        engine=amid("hang"),
        settings={"silence_s": 0.2},
    ),
    Row(
        "slow: first token late, hedged",
        WHOLE,
        f"at fault 0; {OTHER_ALL}",
        engine=amid("hang", 0),
        settings={"hedge_after_s": 0.1},
    ),
    Row(
        "slow: past the deadline",
        "3 tokens, then `request_timeout`",
        "at fault 3",
        engine=amid("hang"),
        deadline_ms=300,
    ),
    Row(
        "malformed frames amid the stream",
        f"{WHOLE}, continued after 3",
        "at fault 3+; other 9",
        front=SpeaksNonsense,
    ),
    Row("answers 500, whole answer", BODY, OTHER_ALL, stream=False, front=SaysServerError),
    Row(
        "engine breaks, whole answer",
        BODY,
        f"at fault 0; {OTHER_ALL}",
        stream=False,
        engine=amid("break"),
    ),
    Row(
        "lying usage",
        f"{TOKENS} tokens, then `response_mismatch`",
        "at fault 24",
        engine=amid("overstate"),
    ),
    Row(
        "lying usage, whole answer",
        BODY,
        f"at fault 24; {OTHER_ALL}",
        stream=False,
        engine=amid("overstate"),
    ),
    Row("a bill without its commitment", WHOLE, "at fault 12", breaks_promises=True),
    Row(
        "receipt of another key",
        f"{TOKENS} tokens, then `receipt_invalid`",
        "at fault 12",
        front=SignsWithAnotherKey,
    ),
    Row(
        "receipt of another key, whole answer",
        BODY,
        f"at fault 12; {OTHER_ALL}",
        stream=False,
        front=SignsWithAnotherKey,
    ),
    Row(
        "two receipts",
        f"{TOKENS} tokens, then `response_malformed`",
        "at fault 12",
        front=EndsTwice,
    ),
    Row(
        "other words than were signed",
        f"{TOKENS} tokens, then `response_mismatch`",
        "at fault 12",
        front=ChangesWords,
    ),
    Row(
        "other words than were signed, whole answer",
        BODY,
        f"at fault 12; {OTHER_ALL}",
        stream=False,
        front=ChangesWords,
    ),
    Row(
        "all are dead, with a canned answer",
        "one whole stream of 1 tokens, `canned` after `no_provider`",
        "nothing",
        engine=amid("refuse"),
        both=True,
        settings={"canned_text": "Come back later."},
    ),
]
