"""The proof in llama.cpp's frames: asked for, read, and taken out again.

llama.cpp's server tells with each token the `n_probs` largest raw logits as logprobs, before the
mask and the sampler. A copy's canaries are always among these. What is asked in addition changes
neither the tokens nor the frames but for the logprobs in them, which are cut out of the bytes, so
a caller's answer is byte for byte what it would have been.

Of some tokens the server tells nothing: those that end inside a character (the last one of the
character is told), what its chat parser drops (the fence around JSON, a tool call's head), and the
end of the text. They are counted by `predicted_n` and take their places in the ledger. Which they
were is found again by tokenising the piece of text that came with the next token, if that gives so
many tokens with that one at the end; what the parser dropped is in no text, and stays unknown.

`post_sampling_probs`, which would replace the raw logits, is no field that a caller can send
(`hanse.engines.parameters`). Several choices are committed to in the order in which their tokens
came; their seeds stay their own, and no audit covers them.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec

from hanse.engines.base import Chunk
from hanse.engines.llama.canary_binding import CanaryRows
from hanse.engines.parameters import count_choices
from hanse.engines.proving.copy_in_service import TOPS, CopyInService, set_seed
from hanse.engines.proving.ledger import Ledger
from hanse.engines.proving.logprobs import WIDE, clean_logprobs
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.errors import TransientError

Tokenise = Callable[[str], Awaitable[list[int]]]
"""A text's tokens, as the server sees them."""

UNTOLD_MAX = 8
"""So many untold tokens in a row are looked for: a character has at most four bytes, and the text
of a token may begin with a few others. Longer ones are tool calls.
"""

_CHAT_TOPS_DEFAULT = 20
"""llama.cpp's number of alternatives where a chat asks for logprobs without saying how many."""

_START = b'"logprobs":{"content":['
_ENDS = (b'}],"created":', b',"finish_reason":')


class _Top(msgspec.Struct, gc=False):
    id: int
    logprob: float


class _Token(msgspec.Struct, gc=False):
    id: int
    token: str = ""
    top_logprobs: list[_Top] = []


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token]


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    logprobs: _Logprobs | None = None


class _Timings(msgspec.Struct, gc=False):
    predicted_n: int


class _Frame(msgspec.Struct, gc=False):
    choices: list[_Choice]
    timings: _Timings


_decode_frame = msgspec.json.Decoder(_Frame).decode


class ProofReader:
    """Asks for one answer's proof and reads it."""

    def __init__(
        self, copy: CopyInService, body: dict[str, Any], seed: int | None, tokenise: Tokenise
    ) -> None:
        """Make a checked body ask for the proof.

        Args:
            copy: the served one.
            body: it is changed.
            seed: for the sampler, where the body has none.
            tokenise: asks the server.

        Raises:
            RequestError: a canary stands in the prompt.
        """
        copy.refuse_canaries(body)
        body["logit_bias"] = copy.mask(body.get("logit_bias"), False)
        self._copy = copy
        self._tokenise = tokenise
        self._asked_top = _take_asked_top(body)
        self._ledger = Ledger(copy.description) if copy.is_told else None
        if self._ledger is not None and seed is not None and count_choices(body) == 1:
            set_seed(body, seed)
        if self._asked_top or self._ledger:
            tops = TOPS + WIDE if self._asked_top else TOPS
            body["top_logprobs" if body.get("logprobs") is True else "n_probs"] = tops

    async def read(
        self, payloads: AsyncGenerator[list[bytes], None]
    ) -> AsyncGenerator[list[bytes], None]:
        """The same frames as without a proof."""
        try:
            async for some in payloads:
                yield [await self._read(each) if _START in each else each for each in some]
        finally:
            await payloads.aclose()

    def prove(self, chunk: Chunk) -> Chunk:
        """The chunk with the proof of its tokens."""
        if self._ledger is None:
            return chunk
        proof = self._ledger.take(chunk.usage.output_tokens)
        return msgspec.structs.replace(chunk, proof=proof)

    def take(self, output_tokens: int) -> tuple[Entry, ...]:
        """The proof of a whole answer."""
        return self._ledger.take(output_tokens) if self._ledger else ()

    async def _read(self, payload: bytes) -> bytes:
        if self._ledger is not None:
            await self._note(self._ledger, payload)
        return self._clean(payload) if self._asked_top else _cut(payload)

    async def _note(self, ledger: Ledger, payload: bytes) -> None:
        try:
            frame = _decode_frame(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TransientError(
                "engine_unavailable", "The engine's frame has no count."
            ) from error
        choice = frame.choices[0] if frame.choices else _Choice()
        for token in choice.logprobs.content if choice.logprobs else ():
            count = frame.timings.predicted_n
            missing = ledger.get_missing(count, choice.index)
            untold = await self._find_untold(token, missing) if missing > 0 else []
            ledger.add(token.id, token.top_logprobs, count, untold, choice.index)

    async def _find_untold(self, token: _Token, missing: int) -> list[int]:
        if missing > UNTOLD_MAX:
            return []
        tokens = await self._tokenise(token.token)
        is_found = len(tokens) == missing + 1 and tokens[-1] == token.id
        return tokens[:-1] if is_found else []

    def _clean(self, payload: bytes) -> bytes:
        frame = msgspec.json.decode(payload)
        for choice in frame["choices"]:
            if logprobs := choice.get("logprobs"):
                logprobs["content"] = clean_logprobs(
                    logprobs["content"],
                    self._copy.canaries,
                    self._asked_top,
                    self._copy.description.vocabulary,
                )
        return msgspec.json.encode(frame)


def find_rows(copy: CopyInService | None) -> CanaryRows | None:
    """Which logits a proof by this copy wants; None where there is no copy, or it proves nothing.

    Nobody else asks for TOPS: a caller's alternatives are asked for with WIDE more.
    """
    if copy is None or not copy.is_told:
        return None
    return CanaryRows(copy.description.canary_ids[0], copy.description.canary_count, TOPS)


def _take_asked_top(body: dict[str, Any]) -> int:
    """How many alternatives a token the caller gets; 0 for no logprobs, as llama.cpp takes it."""
    if body.get("logprobs") is True:
        return int(body.get("top_logprobs", _CHAT_TOPS_DEFAULT))
    return int(body.pop("logprobs", None) or 0)


def _cut(payload: bytes) -> bytes:
    """A frame as it is without logprobs.

    A quote inside a JSON string is escaped, so neither of these is ever text.
    """
    start = payload.find(_START)
    chat_end, text_end = (payload.find(end, start) for end in _ENDS)
    if text_end >= 0:
        return payload[:start] + b'"logprobs":null' + payload[text_end:]
    if chat_end < 0 or payload[start - 1 : start] != b",":
        raise TransientError("engine_unavailable", "The engine's frame ends in another way.")
    return payload[: start - 1] + payload[chat_end:]
