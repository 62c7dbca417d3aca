"""The proof out of vLLM's server, by what its OpenAI API offers; for a copy that vLLM serves.

The canaries are asked for by number (`logprob_token_ids`, from vLLM 0.26 on), so they need no lift,
and a copy for vLLM has none: a folder of `hanse models rebase`, of the base's own class. vLLM takes
the logprobs from the raw logits (`logprobs_mode` is `raw_logprobs`), before biases and the sampler,
and tells them of every token that it counts, also of those that end inside a character and of the
end. The canaries are masked by `logit_bias`, which vLLM holds to -100: rows that nobody lifted are
then some hundred below the best token, which no sampler takes. A token that is one of them all the
same is not passed on, whatever a server does.

Run against vLLM 0.32 on a processor; on no graphics card yet. What a caller must know: with a copy
there are no logprobs, as the numbers that are asked for take their place; and vLLM's sampler draws
otherwise than llama.cpp's, so that audits compare its fingerprints, and its tokens at temperature
0, but not its draws. Why it is done so: `docs/decisions/0039-vllm.md`.

Used by `hanse.engines.upstream_engine`.
"""

from typing import Any

import msgspec

from hanse.engines.base import Chunk, Operation
from hanse.engines.parameters import count_choices
from hanse.engines.proving.copy_in_service import CopyInService, set_seed
from hanse.engines.proving.ledger import Ledger
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.errors import RequestError, TransientError

BIAS_MIN = -100
"""The least that OpenAI's `logit_bias` takes."""

_PREFIX = "token_id:"
_START = b'"logprobs":{'
_END = b',"finish_reason":'


class _Top(msgspec.Struct, gc=False):
    id: int
    logprob: float


class _Likely(msgspec.Struct, gc=False):
    token: str
    logprob: float


class _Told(msgspec.Struct, gc=False):
    token: str
    top_logprobs: list[_Likely] = []


class _Logprobs(msgspec.Struct, gc=False):
    """Of a chat `content`, of a completion the other two."""

    content: list[_Told] | None = None
    tokens: list[str] = []
    top_logprobs: list[dict[str, float] | None] = []


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    logprobs: _Logprobs | None = None


class _Frame(msgspec.Struct, gc=False):
    choices: list[_Choice] = []


_decode_frame = msgspec.json.Decoder(_Frame).decode


def check_served_by_api(copy: CopyInService) -> None:
    """Refuse a copy that is none for vLLM.

    Raises:
        RequestError: `configuration_invalid`.
    """
    if copy.is_told:
        raise RequestError(
            "configuration_invalid",
            f"The copy's canaries are lifted by {copy.description.lift:g}, so it is one for "
            "llama.cpp, which vLLM does not load; serve it with engine llama, or make one for "
            "vLLM: hanse models rebase FOLDER --folder.",
            param="copy_description",
        )


class OpenAIProof:
    """Asks for one answer's proof and reads it."""

    def __init__(
        self, copy: CopyInService, operation: Operation, body: dict[str, Any], seed: int | None
    ) -> None:
        """Make a checked body ask for the proof; `seed` is for one that has none.

        Raises:
            RequestError: a canary stands in the prompt.
        """
        copy.refuse_canaries(body)
        body["logit_bias"] = copy.mask(body.get("logit_bias"), BIAS_MIN)
        self._canaries = copy.canaries
        self._ledger = Ledger(copy.description)
        if seed is not None and count_choices(body) == 1:
            set_seed(body, seed)
        is_chat = operation is Operation.CHAT
        body |= {
            "logprobs": True if is_chat else 0,
            "logprob_token_ids": list(copy.description.canary_ids),
            "return_tokens_as_token_ids": True,
        }

    def read(self, payload: bytes) -> bytes:
        """A frame, or a whole answer, as it is without the proof."""
        if _START not in payload:
            return payload
        try:
            frame = _decode_frame(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TransientError(
                "engine_unavailable", "The engine's logprobs have another form."
            ) from error
        for choice in frame.choices:
            if choice.logprobs is not None:
                self._note(choice.logprobs, choice.index)
        return _cut(payload)

    def prove(self, chunk: Chunk) -> Chunk:
        """The chunk with the proof of its tokens."""
        proof = self._ledger.take(chunk.usage.output_tokens)
        return msgspec.structs.replace(chunk, proof=proof)

    def take(self, output_tokens: int) -> tuple[Entry, ...]:
        """The proof of a whole answer."""
        return self._ledger.take(output_tokens)

    def _note(self, logprobs: _Logprobs, choice: int) -> None:
        for told in logprobs.content or ():
            tops = [_Top(_read_id(top.token), top.logprob) for top in told.top_logprobs]
            self._add(_read_id(told.token), tops, choice)
        for token, likely in zip(logprobs.tokens, logprobs.top_logprobs, strict=False):
            tops = [_Top(_read_id(text), logprob) for text, logprob in (likely or {}).items()]
            self._add(_read_id(token), tops, choice)

    def _add(self, token: int, tops: list[_Top], choice: int) -> None:
        if not any(top.id in self._canaries for top in tops):
            raise TransientError(
                "engine_unavailable",
                "The engine tells nothing of the tokens that were asked for by number; vLLM does "
                "from 0.26 on.",
            )
        self._ledger.add(token, tops, self._ledger.get_count(choice) + 1, choice=choice)


def _read_id(text: str) -> int:
    number = text.removeprefix(_PREFIX)
    if number is text or not (number.isascii() and number.isdigit()):
        raise TransientError(
            "engine_unavailable", "The engine does not tell its tokens by number; it is no vLLM."
        )
    return int(number)


def _cut(payload: bytes) -> bytes:
    """With null in place of the logprobs, as where nobody asked; the bytes around stay."""
    start = payload.find(_START)
    end = payload.find(_END, start)
    if end >= 0 and payload.find(_START, start + 1) < 0:
        return payload[:start] + b'"logprobs":null' + payload[end:]
    whole = msgspec.json.decode(payload)
    for choice in whole["choices"]:
        choice["logprobs"] = None
    return msgspec.json.encode(whole)
