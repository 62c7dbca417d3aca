"""Engine `upstream`: any server that speaks OpenAI's API (vLLM, SGLang, a service), by URL.

The key comes from an environment variable or a file, never from an argument, which others on the
machine can read. Requests go out with the upstream's model name and `stream_options.include_usage`;
answers come back under the offered name, and the usage frame is dropped unless the caller asked for
it.

Without usage in its frames a stream that is cut is metered by lower bounds
(`hanse.engines.wire.metering`). With vLLM and SGLang set `continuous_usage` and every frame carries
the exact count.
"""

import re
from collections.abc import AsyncGenerator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

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
from hanse.engines.proving.copy_in_service import CopyInService, read_copy
from hanse.engines.proving.openai_proof import OpenAIProof, check_served_by_api
from hanse.engines.wire.envelope import get_finish_reason, read_envelope
from hanse.engines.wire.http import OpenAIServer, Timeouts
from hanse.engines.wire.key_files import read_key
from hanse.engines.wire.metering import StreamMeter, count_words
from hanse.engines.wire.renaming import Renamer
from hanse.http import GATHER_S, GATHER_S_MAX, HttpClient
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.messages import FinishReason
from hanse.protocol.pricing import TEMPLATE_TOKENS

MAX_PRICES_HEADER = "hanse-max-prices"
"""See docs/gateway/matching.md."""

_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `upstream`.

    Attributes:
        base_url: with the version, such as `https://host/v1`.
        model: the name that is offered.
        upstream_model: the name that the upstream knows; the offered one if empty.
        key_env: environment variable that holds the key.
        key_file: file that holds the key, readable by its owner only; goes before `key_env`.
        quantisation: as the upstream's operator states it.
        operations: which of chat/completions, completions, embeddings it serves.
        context_tokens: prompt and answer of one request.
        output_tokens_max: of one answer.
        parallel: requests at once.
        logprobs, seed, grammar, json_schema, tools, forced_tools: what it can do.
        embedding_dimensions: length of a vector, if it serves them.
        choices_max: most answers to one request (`n`); some servers ignore `n`, then leave it at 1.
        continuous_usage: ask for usage in every frame (vLLM, SGLang).
        margin_ppm: for an upstream that is a Hanse gateway, which buys itself: each request asks
            it to pay at most the prices that the request is sold at less this margin
            (`hanse-max-prices`). None asks nothing.
        copy_description: `.copy.json` of the copy that a vLLM of one's own serves; see
            `hanse.engines.proving.openai_proof`. Empty: no copy, no proof.
        gather_s: what is made in so long of a fast stream goes on as one piece, seconds; 0: every
            piece goes on as it comes (`hanse.http.gathering`).
        timeouts: how long each stage may take.
    """

    base_url: str
    model: str
    upstream_model: str = ""
    key_env: str = ""
    key_file: str = ""
    quantisation: str = "unknown"
    operations: tuple[Operation, ...] = (Operation.CHAT, Operation.COMPLETION)
    context_tokens: int = 8_192
    output_tokens_max: int = 4_096
    parallel: int = 64
    logprobs: bool = True
    seed: bool = True
    grammar: bool = False
    json_schema: bool = True
    tools: bool = True
    forced_tools: bool = True
    embedding_dimensions: int = 0
    choices_max: int = 1
    continuous_usage: bool = False
    margin_ppm: Annotated[int, msgspec.Meta(ge=0)] | None = None
    copy_description: str = ""
    gather_s: Annotated[float, msgspec.Meta(ge=0, le=GATHER_S_MAX)] = GATHER_S
    timeouts: Timeouts = Timeouts()


class UpstreamEngine:
    """See the module; `hanse.engines.base.Engine` says what each method promises."""

    name = "upstream"

    def __init__(self, settings: Settings) -> None:
        if not _URL.fullmatch(settings.base_url):
            raise RequestError(
                "configuration_invalid",
                "base_url must look like https://host/v1, without a name or password in it.",
                param="base_url",
            )
        self._settings = settings
        self._server: OpenAIServer | None = None
        self._copy: CopyInService | None = None
        if settings.copy_description:
            self._copy = read_copy(Path(settings.copy_description))
            check_served_by_api(self._copy)

    @cached_property
    def capabilities(self) -> Capabilities:
        """As set; an upstream cannot be asked."""
        s = self._settings
        return Capabilities(
            # A copy's vectors lie in its own secret basis: nobody could compare them.
            operations=frozenset(s.operations) - ({Operation.EMBEDDINGS} if self._copy else set()),
            context_tokens=s.context_tokens,
            output_tokens_max=s.output_tokens_max,
            parallel=s.parallel,
            logprobs=s.logprobs and self._copy is None,
            seed=s.seed,
            grammar=s.grammar,
            json_schema=s.json_schema,
            tools=s.tools,
            forced_tools=s.forced_tools,
            embedding_dimensions=s.embedding_dimensions,
            choices_max=s.choices_max,
            proves=self._copy is not None,
        )

    async def start(self, progress: Progress | None = None) -> None:
        """Read the key and see that the upstream answers."""
        s = self._settings
        if progress:
            progress("asking the upstream", None)
        key = read_key(s.key_file, s.key_env)
        self._server = OpenAIServer(
            s.base_url,
            HttpClient(connect_s=s.timeouts.connect_s, idle_s=4.0, connections_max=s.parallel + 4),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeouts=s.timeouts,
            gather_s=s.gather_s,
        )
        try:
            await self._server.fetch("GET", "/models", head_s=s.timeouts.connect_s)
        except (RequestError, TransientError):
            await self.close()
            raise
        if progress:
            progress("ready", 1.0)

    async def close(self) -> None:
        """Close the connections."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def healthy(self) -> bool:
        """Whether the upstream lists its models within a second."""
        if self._server is None:
            return False
        try:
            await self._server.fetch("GET", "/models", head_s=1.0)
        except (RequestError, TransientError):
            return False
        return True

    async def describe_model(self) -> ModelDescription:
        """What the operator states; the weights are out of sight."""
        s = self._settings
        return ModelDescription(
            model=s.model,
            quantisation=s.quantisation,
            source="an OpenAI-compatible upstream; its weights are not seen by this provider",
            base_root=self._copy.description.base_root if self._copy else "",
        )

    async def answer(self, request: EngineRequest) -> Answer:
        """The upstream's own whole answer, under our names."""
        body = self._make_body(request)
        proof = self._ask_for_proof(request, body)
        payload = await self._get_server().fetch(
            "POST", f"/{request.operation}", body, headers=self._make_headers(request)
        )
        if proof is not None:
            payload = proof.read(payload)
        envelope = read_envelope(payload)
        if envelope.usage is None:
            raise TransientError("engine_unavailable", "The upstream's answer states no usage.")
        reason = get_finish_reason(envelope, count_choices(body))
        if reason is None and request.operation is not Operation.EMBEDDINGS:
            raise TransientError("engine_unavailable", "The upstream's answer is not complete.")
        renamer = Renamer(request.answer_id, self._settings.model)
        usage = envelope.usage.to_usage()
        return Answer(
            renamer.rename(payload, envelope),
            usage,
            reason or FinishReason.STOP,
            proof=proof.take(usage.output_tokens) if proof else (),
        )

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """The upstream's frames, under our names."""
        options = {"include_usage": True}
        if self._settings.continuous_usage:
            options["continuous_usage_stats"] = True
        body = {**self._make_body(request), "stream": True, "stream_options": options}
        proof = self._ask_for_proof(request, body) if self._copy else None
        meter = StreamMeter(
            Renamer(request.answer_id, self._settings.model),
            wants_usage=wants_usage(request.body),
            input_words=count_words(request.body),
            choices=count_choices(body),
        )
        headers = None if self._settings.margin_ppm is None else self._make_headers(request)
        payloads = self._get_server().stream_payloads(f"/{request.operation}", body, headers)
        try:
            async for some in payloads:
                if chunk := meter.take([proof.read(each) for each in some] if proof else some):
                    yield proof.prove(chunk) if proof else chunk
                if meter.is_done:
                    break
        finally:
            await payloads.aclose()
        end = meter.finish()
        yield proof.prove(end) if proof else end

    async def count_tokens(self, request: EngineRequest) -> int:
        """Never too few: a token is at least one byte, and the template adds at most its limit."""
        body = check_request(request, self.capabilities)
        return len(msgspec.json.encode(body)) + TEMPLATE_TOKENS

    def _make_body(self, request: EngineRequest) -> dict[str, Any]:
        body = check_request(request, self.capabilities)
        body["model"] = self._settings.upstream_model or self._settings.model
        return body

    def _ask_for_proof(self, request: EngineRequest, body: dict[str, Any]) -> OpenAIProof | None:
        if self._copy is None or request.operation is Operation.EMBEDDINGS:
            return None
        return OpenAIProof(self._copy, request.operation, body, request.sampling_seed)

    def _make_headers(self, request: EngineRequest) -> dict[str, str] | None:
        margin_ppm, sold = self._settings.margin_ppm, request.sold_at
        if margin_ppm is None or sold is None:
            return None
        # what was sold at a cost rounded up with the margin comes out at that cost or just above
        most = (
            price * 1_000_000 // (1_000_000 + margin_ppm)
            for price in (sold.input_per_mtok, sold.cached_per_mtok, sold.output_per_mtok)
        )
        return {MAX_PRICES_HEADER: ",".join(map(str, most))}

    def _get_server(self) -> OpenAIServer:
        if self._server is None:
            raise TransientError("engine_unavailable", "The engine is not running.")
        return self._server


def open_engine(settings: Settings) -> UpstreamEngine:
    """For `hanse.engines.registry`."""
    return UpstreamEngine(settings)
