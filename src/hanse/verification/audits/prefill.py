"""What an audit needs of whatever runs the model: one prefill over prompt and answer.

`cli` wires an implementation in; `hanse.engines.proving` has those of llama.cpp and torch. Another
runtime takes part by a class with these two methods, which needs to import nothing from here.

Shapes: n tokens of the answer, K canaries, V tokens of the vocabulary, canaries left out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Scores(Protocol):
    """What the model computed at the positions that chose the answer's tokens.

    Row i belongs to answer token i: it is what the model gave after prompt and answer up to, and
    without, token i.
    """

    @property
    def canaries(self) -> "NDArray[Any]":
        """Raw logits of the canaries, [n, K] float32; [n, 0] of a model without."""

    @property
    def logits(self) -> "NDArray[Any]":
        """Raw logits of the vocabulary, [n, V] float32, canaries left out."""


class Prefill(Protocol):
    """Runs one model over tokens that are already there."""

    @property
    def runtime(self) -> str:
        """Name and build of the runtime, as a calibration names it: `llama.cpp b6987 cpu`."""

    def score(self, prompt_tokens: Sequence[int], answer_tokens: Sequence[int]) -> Scores:
        """One prefill.

        Raises:
            RequestError: `context_length_exceeded` where both do not fit the model's context.
        """


class Reader(Protocol):
    """Reads requests and answers as the model does: chat template and vocabulary."""

    @property
    def vocabulary(self) -> int:
        """How many tokens answers are made of; a copy's canaries are none of them.

        What a provider commits to is its own choice: a token from here on is never looked up.
        """

    def get_prompt_tokens(self, path: str, body: bytes) -> Sequence[int]:
        """The prompt of a request, as the served template makes it.

        Raises:
            RequestError: the request is none that it can read; the message says why.
        """

    def get_text(self, tokens: Sequence[int]) -> bytes:
        """What tokens spell; special tokens that end an answer spell nothing."""
