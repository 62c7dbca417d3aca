"""The one interface behind which every model runs.

An engine takes an OpenAI-shaped request and gives OpenAI-shaped bytes, ready to send, together with
the little that a broker must know of them: the usage so far and why the answer ended. Bytes are not
decoded and encoded again where an engine already speaks OpenAI's format, because on this path speed
is the product.

Used by the broker (`hanse.provider`), and implemented by one module per engine. How to write one:
`docs/how-to/add-an-engine.md`. Why it has this shape: `docs/decisions/0007-engine-interface.md`.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

import msgspec

from hanse.protocol.commitments.tree import Entry
from hanse.protocol.messages import FinishReason, Prices, Usage
from hanse.protocol.wire.operations import Operation as Operation


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do; true from `start()` on, when the model is known.

    Attributes:
        operations: which requests it takes.
        context_tokens: prompt and answer together, for one request.
        output_tokens_max: the most tokens of one answer; also what an absent `max_tokens` means.
        parallel: requests that run at once; more than these wait in the engine.
        logprobs: token log probabilities on request.
        seed: equal seed, body and load give an equal answer (see the engine's notes on batching).
        grammar: a GBNF `grammar` constrains the answer.
        json_schema: `response_format` of type `json_object` and `json_schema` constrain the answer.
        tools: function calling, as the model decides.
        forced_tools: `tool_choice` may demand a call, or a call of one function.
        embedding_dimensions: length of a vector; 0 without embeddings or when it is not known.
        choices_max: most answers to one request (`n`).
        proves: it serves a copy, and each token of a single answer comes with its fingerprint.
    """

    operations: frozenset[Operation]
    context_tokens: int
    output_tokens_max: int
    parallel: int
    logprobs: bool = False
    seed: bool = False
    grammar: bool = False
    json_schema: bool = False
    tools: bool = False
    forced_tools: bool = False
    embedding_dimensions: int = 0
    choices_max: int = 1
    proves: bool = False


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model, as a manifest lists it."""

    name: str
    path: str
    size_bytes: int
    sha256: str


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can say of the model it serves.

    Attributes:
        model: the name under which it is offered.
        quantisation: label such as `Q4_0`; `unknown` where the weights are out of sight (upstream).
        files: the weights, hashed; empty where they are out of sight.
        source: where the weights come from, for people.
        base_root: of a copy, the root of the manifest of the model that it is a copy of: what the
            provider sells is that one. Empty for a plain model.
    """

    model: str
    quantisation: str
    files: tuple[ModelFile, ...] = ()
    source: str = ""
    base_root: str = ""


CheckedFields = tuple[Capabilities, dict[str, Any]]
"""What `hanse.engines.parameters.check_request` made of a body, and for which capabilities."""


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    Attributes:
        operation: chat, completion or embeddings.
        body: the decoded JSON object of the caller. The engine checks every field, refuses what it
            does not know by name, and never changes this dict.
        answer_id: the `id` that the answer carries; letters, digits, `-` and `_` only.
        sold_at: the prices of the caller's offer; None if nobody pays by the token.
        checked: where the body was checked before, so that the engine's check is a copy of that.
        sampling_seed: for the sampler of an engine that proves, where the body names no seed; see
            `hanse.protocol.commitments.seeds`.
    """

    operation: Operation
    body: dict[str, Any]
    answer_id: str
    sold_at: Prices | None = None
    checked: CheckedFields | None = None
    sampling_seed: int | None = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    r"""Part of a streamed answer.

    Attributes:
        data: one or more whole SSE frames (`data: {...}\n\n`), ready to send. Never `[DONE]`: the
            broker sends that after its receipt.
        usage: cumulative; what is owed if this chunk is the last that was handed on. Zero until the
            first token. The prompt counts once, output is that of all choices.
        finish_reason: set in the chunk that says why the answer ended, with several choices why the
            first of them did, once all have. Where the caller asked for
            `stream_options.include_usage`, that chunk holds the usage frame too.
        proof: of an engine that proves, the tokens that `usage` counts beyond the chunk before,
            each with its fingerprint.
        ends_next: whether the last chunk is there already and follows without waiting.
    """

    data: bytes
    usage: Usage
    finish_reason: FinishReason | None = None
    proof: tuple[Entry, ...] = ()
    ends_next: bool = False


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: the JSON body to send, what it used and why it (its first choice) ended.

    `proof` is as in `Chunk`, for all of its tokens.
    """

    body: bytes
    usage: Usage
    finish_reason: FinishReason
    proof: tuple[Entry, ...] = ()


Progress = Callable[[str, float | None], None]
"""Told while an engine starts: what it is doing, and which part of that is done (0 to 1, None if
unknown).
"""


class Engine(Protocol):
    """Runs one model. Owns whatever that takes: a process, connections, memory.

    | state | method | next |
    | --- | --- | --- |
    | new | `start` | running, or an error and still new |
    | running | `answer`, `stream`, `count_tokens` | running |
    | running | the engine dies | down: requests get TransientError; restarts itself |
    | any | `close` | closed, for good |

    Errors of `answer`, `stream` and `count_tokens`:
        RequestError: the caller can fix it (`param` names the field); before any byte of an answer.
        TransientError: the engine is down, full, too slow or broke off; before or amid an answer.
    """

    @property
    def name(self) -> str:
        """Which engine this is, such as `llama`; goes into the offer."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; raises InvariantError before `start`."""

    async def start(self, progress: Progress | None = None) -> None:
        """Get ready to answer; returns when it is.

        Raises:
            RequestError: a setting or a model file is missing or wrong; the message says what to
                do.
            TransientError: it did not become ready in time.
        """

    async def close(self) -> None:
        """Stop everything and free the memory; running requests end with TransientError."""

    async def healthy(self) -> bool:
        """Whether a request sent now would be taken; answers within a second."""

    async def describe_model(self) -> ModelDescription:
        """The model's files and hashes, for the manifest in the offer."""

    async def answer(self, request: EngineRequest) -> Answer:
        """The whole answer at once; cancelling the call stops the work.

        `stream` in the body is ignored.
        """

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """The answer part by part; chat and completion only.

        The last chunk has a finish reason; if the iteration ends without an exception, the answer
        is complete. Leaving early through `aclose()` or by cancellation stops the engine's work:
        within a second once tokens come, and while it reads a prompt after the steps under way.
        Await the first chunk before sending a status: what a caller did wrong is raised there.
        """

    async def count_tokens(self, request: EngineRequest) -> int:
        """Input tokens: exact where the engine has the tokenizer, else never too few."""
