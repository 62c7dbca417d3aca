"""Engine `echo`: a FAKE for tests and benchmarks, without a model: words of the prompt come back.

Same body and seed, same answer, byte for byte; a token is a word. Several choices (`n`) take turns,
each with a seed of its own, one above the one before. Without delays it never sleeps, so that a
benchmark measures everything but the engine. Faults are set on the running engine
(`engine.fault`), so that a test can make it break amid a series of requests.
"""

import asyncio
import hashlib
import math
import struct
from base64 import b64encode
from collections.abc import AsyncGenerator
from functools import cached_property
from typing import Any, Literal

import msgspec

from hanse.engines.base import (
    Answer,
    Capabilities,
    Chunk,
    EngineRequest,
    ModelDescription,
    Operation,
    Progress,
)
from hanse.engines.parameters import check_request, count_choices, wants_usage
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.messages import FinishReason, Usage

CREATED = 1_700_000_000
"""The time in every answer; a fake has no clock."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong, and after how many tokens.

    Kinds:
        none: nothing.
        refuse: TransientError before the first chunk.
        break: TransientError after `after_tokens`, as when a process dies.
        hang: nothing more comes after `after_tokens`.
        empty: a complete answer without a token.
        overstate: the usage claims twice the tokens that were given.
    """

    kind: Literal["none", "refuse", "break", "hang", "empty", "overstate"] = "none"
    after_tokens: int = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `echo`.

    Attributes:
        model: the name that is offered; says that it is a fake.
        answer_tokens: words of an answer, unless `max_tokens` is fewer.
        first_token_delay_s, token_delay_s: waits; 0 means no sleep at all.
        parallel: requests at once; more wait.
        context_tokens, output_tokens_max: limits, in words.
        embedding_dimensions: length of a vector.
        choices_max: answers to one request.
        fault: the fault at the start.
    """

    model: str = "echo-fake"
    answer_tokens: int = 16
    first_token_delay_s: float = 0.0
    token_delay_s: float = 0.0
    parallel: int = 1_024
    context_tokens: int = 4_096
    output_tokens_max: int = 1_024
    embedding_dimensions: int = 8
    choices_max: int = 16
    fault: Fault = Fault()


class EchoEngine:
    """See the module.

    Attributes:
        fault: what goes wrong from the next step on; tests change it.
        active: requests being worked on now.
    """

    name = "echo"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.parallel)
        self._is_running = False
        self.fault = settings.fault
        self.active = 0

    @cached_property
    def capabilities(self) -> Capabilities:
        """Everything but what would need a model."""
        s = self._settings
        return Capabilities(
            operations=frozenset({Operation.CHAT, Operation.COMPLETION, Operation.EMBEDDINGS}),
            context_tokens=s.context_tokens,
            output_tokens_max=s.output_tokens_max,
            parallel=s.parallel,
            seed=True,
            embedding_dimensions=s.embedding_dimensions,
            choices_max=s.choices_max,
        )

    async def start(self, progress: Progress | None = None) -> None:
        """Ready at once."""
        self._is_running = True
        if progress:
            progress("ready", 1.0)

    async def close(self) -> None:
        """Nothing to free."""
        self._is_running = False

    async def healthy(self) -> bool:
        """Whether it is started and not set to refuse."""
        return self._is_running and self.fault.kind != "refuse"

    async def describe_model(self) -> ModelDescription:
        """A fake has no files."""
        return ModelDescription(
            model=self._settings.model, quantisation="none", source="a fake without a model"
        )

    async def answer(self, request: EngineRequest) -> Answer:
        """The words of a stream, in one body."""
        if request.operation is Operation.EMBEDDINGS:
            return self._embed(request)
        body = check_request(request, self.capabilities)
        words: list[list[str]] = [[] for _ in range(count_choices(body))]
        end: _Step | None = None
        steps = self._run(request, body)
        try:
            async for end in steps:
                words[end.choice].append(end.word)
        finally:
            await steps.aclose()
        assert end is not None
        assert end.reason is not None
        texts = ["".join(each) for each in words]
        return Answer(self._make_body(request, texts, end), end.usage, end.reason)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """One frame a word, then the end."""
        body = check_request(request, self.capabilities)
        choices = count_choices(body)
        before, after = self._make_frames(request, choices)
        steps = self._run(request, body)
        try:
            async for step in steps:
                if step.reason is None:
                    word = msgspec.json.encode(step.word)
                    yield Chunk(before[step.choice] + word + after, step.usage)
                else:
                    yield Chunk(self._make_end(request, step, choices), step.usage, step.reason)
        finally:
            await steps.aclose()

    async def count_tokens(self, request: EngineRequest) -> int:
        """Words of the prompt, exactly what usage will say."""
        check_request(request, self.capabilities)
        return len(_get_words(request))

    async def _run(
        self, request: EngineRequest, body: dict[str, Any]
    ) -> AsyncGenerator["_Step", None]:
        words = _get_words(request)
        self._check_context(len(words))
        limit = min(body["max_tokens"], self._settings.answer_tokens)
        reason = FinishReason.LENGTH if limit == body["max_tokens"] else FinishReason.STOP
        choices, seed = count_choices(body), body.get("seed", 0)
        starts = [_get_offset(words, seed + choice) for choice in range(choices)]
        async with self._slots:
            self.active += 1
            try:
                await self._pause(self._settings.first_token_delay_s, 0)
                count = 0 if self.fault.kind == "empty" else limit
                for index in range(count):
                    for choice, start in enumerate(starts):
                        word = words[(start + index) % len(words)] if words else "nothing"
                        usage = Usage(len(words), 0, index * choices + choice + 1)
                        yield _Step(word if index == 0 else " " + word, usage, None, choice)
                    await self._pause(self._settings.token_delay_s, index + 1)
                factor = 2 if self.fault.kind == "overstate" else 1
                usage = Usage(len(words) * factor, 0, count * choices * factor)
                yield _Step("", usage, reason if count else FinishReason.STOP)
            finally:
                self.active -= 1

    async def _pause(self, delay_s: float, tokens: int) -> None:
        if not self._is_running:
            raise TransientError("engine_unavailable", "The engine is not running.")
        if delay_s:
            await asyncio.sleep(delay_s)
        fault = self.fault
        if fault.kind == "refuse" and tokens == 0:
            raise TransientError("engine_unavailable", "The fake engine was told to refuse.")
        if fault.kind == "break" and tokens >= fault.after_tokens:
            raise TransientError("engine_unavailable", "The fake engine was told to break off.")
        if fault.kind == "hang" and tokens >= fault.after_tokens:
            await asyncio.Event().wait()

    def _check_context(self, words: int) -> None:
        if words >= self._settings.context_tokens:
            raise RequestError(
                "context_length_exceeded",
                f"The prompt has {words} tokens, but the context {self._settings.context_tokens}.",
            )

    def _embed(self, request: EngineRequest) -> Answer:
        body = check_request(request, self.capabilities)
        if not self._is_running or self.fault.kind in ("refuse", "break"):
            raise TransientError("engine_unavailable", "The fake engine was told to refuse.")
        dimensions = self._settings.embedding_dimensions
        _get_offset(_get_words(request), 0)
        vectors = [_make_vector(str(text), dimensions) for text in body["input"]]
        is_packed = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": _pack(v) if is_packed else v}
            for i, v in enumerate(vectors)
        ]
        tokens = len(_get_words(request))
        self._check_context(tokens)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "model": self._settings.model, "data": data, "usage": usage}
        return Answer(msgspec.json.encode(answer), Usage(tokens, 0, 0), FinishReason.STOP)

    def _make_head(self, request: EngineRequest, kind: str) -> dict[str, Any]:
        return {
            "id": request.answer_id,
            "object": kind,
            "created": CREATED,
            "model": self._settings.model,
        }

    def _make_body(self, request: EngineRequest, texts: list[str], end: "_Step") -> bytes:
        assert end.reason is not None
        is_chat, reason = request.operation is Operation.CHAT, end.reason.name.lower()
        choices: list[dict[str, Any]] = []
        for index, text in enumerate(texts):
            message = {"role": "assistant", "content": text}
            said: dict[str, Any] = {"message": message} if is_chat else {"text": text}
            choices.append({"index": index, "finish_reason": reason, **said})
        head = self._make_head(request, "chat.completion" if is_chat else "text_completion")
        wire = _to_wire(end.usage)
        return msgspec.json.encode({**head, "choices": choices, "usage": wire})

    def _make_frames(self, request: EngineRequest, choices: int) -> tuple[list[bytes], bytes]:
        """What stands before, by choice, and after a word in its frame."""
        head = msgspec.json.encode(self._make_head(request, _get_kind(request)))[:-1]
        starts = [
            b"data: " + head + b',"choices":[{"index":%d,' % choice for choice in range(choices)
        ]
        if request.operation is Operation.CHAT:
            before = [start + b'"delta":{"content":' for start in starts]
            return before, b'},"finish_reason":null}]}\n\n'
        return [start + b'"text":' for start in starts], b',"finish_reason":null}]}\n\n'

    def _make_end(self, request: EngineRequest, step: "_Step", choices: int) -> bytes:
        assert step.reason is not None
        head = self._make_head(request, _get_kind(request))
        said: dict[str, Any] = (
            {"delta": {}} if request.operation is Operation.CHAT else {"text": ""}
        )
        reason = step.reason.name.lower()
        frames: list[dict[str, Any]] = [
            {**head, "choices": [{"index": choice, "finish_reason": reason, **said}]}
            for choice in range(choices)
        ]
        if wants_usage(request.body):
            frames.append({**head, "choices": [], "usage": _to_wire(step.usage)})
        return b"".join(b"data: " + msgspec.json.encode(frame) + b"\n\n" for frame in frames)


class _Step(msgspec.Struct, frozen=True):
    word: str
    usage: Usage
    reason: FinishReason | None
    choice: int = 0


def open_engine(settings: Settings) -> EchoEngine:
    """For `hanse.engines.registry`."""
    return EchoEngine(settings)


def _get_kind(request: EngineRequest) -> str:
    is_chat = request.operation is Operation.CHAT
    return "chat.completion.chunk" if is_chat else "text_completion"


def _get_words(request: EngineRequest) -> list[str]:
    body = request.body
    if request.operation is Operation.CHAT:
        contents = [m.get("content") or "" for m in body["messages"]]
        texts = [c if isinstance(c, str) else " ".join(p["text"] for p in c) for c in contents]
        return " ".join(texts).split()
    given = body.get("prompt", body.get("input", ""))
    return given.split() if isinstance(given, str) else " ".join(map(str, given)).split()


def _get_offset(words: list[str], seed: int) -> int:
    try:
        digest = hashlib.sha256(f"{seed} {' '.join(words)}".encode()).digest()
    except UnicodeEncodeError as error:
        raise RequestError("invalid_request", "A text holds half of a surrogate pair.") from error
    return int.from_bytes(digest[:8], "big") % max(1, len(words))


def _make_vector(text: str, dimensions: int) -> list[float]:
    """A unit vector from the text's hash."""
    raw = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    numbers = [int.from_bytes(raw[2 * i : 2 * i + 2], "big") - 32_767.5 for i in range(dimensions)]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def _pack(vector: list[float]) -> str:
    """As OpenAI's `base64`: little-endian 32-bit floats."""
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _to_wire(usage: Usage) -> dict[str, int]:
    prompt = usage.input_tokens + usage.cached_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
    }
