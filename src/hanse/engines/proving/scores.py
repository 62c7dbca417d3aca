"""What one prefill gives, in whichever runtime: rows of raw logits, the canaries apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class CopyScores:
    """Raw logits at the n positions that chose the answer's tokens, float32.

    Attributes:
        canaries: [n, K]; [n, 0] of a model without.
        logits: [n, V], of the vocabulary without the canaries.
    """

    canaries: "NDArray[Any]"
    logits: "NDArray[Any]"


def join_rows(rows: "Sequence[NDArray[Any]]", vocabulary: int, canaries: int) -> CopyScores:
    """Rows as a model gives them, whose canaries stand right behind the vocabulary."""
    import numpy as np

    whole = np.stack(rows)
    return CopyScores(whole[:, vocabulary : vocabulary + canaries], whole[:, :vocabulary])


def check_length(
    prompt_tokens: Sequence[int],
    answer_tokens: Sequence[int],
    context_tokens: int,
    token_count: int,
) -> None:
    """Refuse what a model cannot be run over.

    Raises:
        RequestError: `context_length_exceeded`, or `unprocessable` if a part is empty or a token is
            outside the model's.
    """
    if not prompt_tokens or not answer_tokens:
        raise RequestError("unprocessable", "prompt and answer must have a token each.")
    length = len(prompt_tokens) + len(answer_tokens)
    if length > context_tokens:
        raise RequestError(
            "context_length_exceeded",
            f"prompt and answer have {length} tokens, this prefill takes {context_tokens}.",
        )
    for token in (*prompt_tokens, *answer_tokens):
        if not 0 <= token < token_count:
            raise RequestError(
                "unprocessable", f"token {token} is none of the model's {token_count}."
            )
