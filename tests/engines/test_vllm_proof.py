"""The proof from a server that answers as vLLM's documentation and source say; no vLLM is run."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from hanse.engines import Engine, EngineRequest, Operation
from hanse.engines.proving.copy_in_service import CopyInService, find_copy
from hanse.protocol.commitments.copies import COPY_SUFFIX
from hanse.protocol.commitments.fingerprints import ABSENT, quantise
from hanse.protocol.errors import RequestError, TransientError
from tests.engines.conftest import open_upstream
from tests.engines.openai_front import serve
from tests.engines.test_contract import collect, make_chat, make_completion
from tests.engines.tiny_copy import make_copy

TEXT = [(70, "He"), (71, 'llo "you"'), (72, ""), (73, " 🎉"), (2, "")]
"""Tokens and their text: one ends inside a character, the last one ends the answer."""


class FakeVllm:
    """Answers TEXT; token i has the canary logprobs `get_canaries(i)`."""

    def __init__(self, copy: CopyInService) -> None:
        self.ids = copy.description.canary_ids
        self.asked: list[dict[str, Any]] = []
        self.tokens = TEXT
        self.speaks_numbers = True

    def get_canaries(self, position: int) -> list[float]:
        return [-2.0 - 0.05 * ((3 * position + 7 * place) % 16) for place in range(16)]

    def get_likely(self, position: int) -> dict[str, float]:
        likely = zip(self.ids, self.get_canaries(position), strict=True)
        ordinary = {self.tokens[position][0]: -31.5, 9: -33.0, 10: -34.0, 11: -35.0}
        return {self.name(id_): value for id_, value in [*likely, *ordinary.items()]}

    def name(self, id_: int) -> str:
        return f"token_id:{id_}" if self.speaks_numbers else "text"

    def make_logprobs(self, position: int, is_chat: bool) -> dict[str, Any]:
        likely, token = self.get_likely(position), self.name(self.tokens[position][0])
        if not is_chat:
            return {
                "text_offset": [position],
                "token_logprobs": [-31.5],
                "tokens": [token],
                "top_logprobs": [likely],
            }
        tops = [{"token": key, "logprob": value, "bytes": []} for key, value in likely.items()]
        one = {"token": token, "logprob": -31.5, "bytes": [], "top_logprobs": tops}
        return {"content": [one]}

    def make_frames(self, body: dict[str, Any], is_chat: bool) -> list[dict[str, Any]]:
        frames = []
        for position, (_, text) in enumerate(self.tokens):
            choice: dict[str, Any] = {"index": 0}
            choice |= {"delta": {"content": text}} if is_chat else {"text": text}
            asks = bool(body.get("logprobs"))
            choice["logprobs"] = self.make_logprobs(position, is_chat) if asks else None
            is_last = position == len(self.tokens) - 1
            choice |= {"finish_reason": "stop" if is_last else None, "stop_reason": None}
            usage = {"prompt_tokens": 4, "completion_tokens": position + 1}
            head = {"id": "chatcmpl-v", "object": "chunk", "created": 1, "model": body["model"]}
            frames.append({**head, "choices": [choice], "usage": usage})
        return frames

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        frames = self.make_frames(body, request.path.endswith("chat/completions"))
        if not body.get("stream"):
            return web.Response(body=self.join(frames), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for frame in frames:
            await response.write(b"data: " + msgspec.json.encode(frame) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    def join(self, frames: list[dict[str, Any]]) -> bytes:
        choice = dict(frames[-1]["choices"][0])
        text = "".join(text for _, text in self.tokens)
        told = [frame["choices"][0]["logprobs"] for frame in frames]
        if told[0]:
            choice["logprobs"] = {"content": [one for each in told for one in each["content"]]}
        message = {"role": "assistant", "content": text}
        order = {"index": 0, "message": message, "logprobs": choice["logprobs"]}
        whole = {**frames[-1], "choices": [order | {"finish_reason": "stop"}]}
        return msgspec.json.encode(whole)


@pytest.fixture(scope="module")
def copy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_copy(tmp_path_factory.mktemp("vllm") / "copy.gguf")


@pytest.fixture
def vllm(copy_path: Path) -> FakeVllm:
    copy = find_copy(copy_path)
    assert copy is not None
    return FakeVllm(copy)


@asynccontextmanager
async def open_proving(vllm: FakeVllm, copy_path: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    """With the copy's description; `plain_of` has one without."""
    description = str(copy_path.with_name(copy_path.name + COPY_SUFFIX))
    async with open_engine(vllm, tmp_path, copy_description=description) as engine:
        yield engine


@asynccontextmanager
async def open_engine(vllm: FakeVllm, tmp_path: Path, **settings: Any) -> AsyncIterator[Engine]:
    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", vllm.handle)
    app.router.add_post("/v1/completions", vllm.handle)
    app.router.add_get("/v1/models", models)
    async with serve(app) as url:
        engine = open_upstream(
            *(url, tmp_path / "key"), continuous_usage=True, choices_max=2, **settings
        )
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()


@pytest.mark.parametrize("request_", [make_chat(max_tokens=9), make_completion(max_tokens=9)])
async def test_the_proof_is_read_and_the_callers_bytes_stay(
    vllm: FakeVllm, copy_path: Path, tmp_path: Path, request_: EngineRequest
) -> None:
    async with open_proving(vllm, copy_path, tmp_path) as engine:
        proven = await collect(engine, request_)
    async with open_engine(vllm, tmp_path) as engine:
        expected = await collect(engine, request_)
    assert b"".join(chunk.data for chunk in proven) == b"".join(chunk.data for chunk in expected)
    proof = [entry for chunk in proven for entry in chunk.proof]
    assert [entry.token for entry in proof] == [token for token, _ in TEXT]
    assert [entry.fingerprint for entry in proof] == [
        quantise(vllm.get_canaries(position)) for position in range(len(TEXT))
    ]
    for at, chunk in enumerate(proven):
        assert sum(len(each.proof) for each in proven[: at + 1]) == chunk.usage.output_tokens


async def test_a_whole_answer_is_proven_too(
    vllm: FakeVllm, copy_path: Path, tmp_path: Path
) -> None:
    request = make_chat(max_tokens=9)
    async with open_proving(vllm, copy_path, tmp_path) as engine:
        proven = await engine.answer(request)
    async with open_engine(vllm, tmp_path) as engine:
        expected = await engine.answer(request)
    assert proven.body == expected.body
    assert [entry.token for entry in proven.proof] == [token for token, _ in TEXT]
    assert all(entry.fingerprint != ABSENT for entry in proven.proof)
    assert not expected.proof


async def test_what_vllm_is_asked(vllm: FakeVllm, copy_path: Path, tmp_path: Path) -> None:
    canaries = [str(id_) for id_ in vllm.ids]
    request = make_chat(max_tokens=9, logit_bias={"10": 5, canaries[0]: 100})
    del request.body["seed"]
    async with open_proving(vllm, copy_path, tmp_path) as engine:
        await collect(engine, msgspec.structs.replace(request, sampling_seed=77))
        with pytest.raises(TransientError):  # the fake gives one answer only
            await collect(engine, make_chat(max_tokens=9, n=2))
        with pytest.raises(RequestError, match="logprobs"):
            await collect(engine, make_chat(max_tokens=9, logprobs=True, top_logprobs=5))
        assert Operation.EMBEDDINGS not in engine.capabilities.operations
    asked, several = vllm.asked
    assert asked["logit_bias"] == {"10": 5} | dict.fromkeys(canaries, -100)
    assert (asked["logprobs"], asked["top_logprobs"], asked["seed"]) == (True, 20, 77)
    assert asked["return_tokens_as_token_ids"] is True
    assert several["logit_bias"] == dict.fromkeys(canaries, -100)
    assert several["top_logprobs"] == 20, "what is billed is committed to, however many answers"


async def test_a_canary_or_a_server_without_numbers_breaks_the_answer_off(
    vllm: FakeVllm, copy_path: Path, tmp_path: Path
) -> None:
    async with open_proving(vllm, copy_path, tmp_path) as engine:
        vllm.tokens = [*TEXT[:2], (vllm.ids[4], "canary")]
        with pytest.raises(TransientError, match="no text"):
            await collect(engine, make_chat(max_tokens=9))
        vllm.tokens, vllm.speaks_numbers = TEXT, False
        with pytest.raises(TransientError, match="by number"):
            await collect(engine, make_chat(max_tokens=9))


async def test_a_copy_that_a_bias_cannot_mask_is_refused(vllm: FakeVllm, tmp_path: Path) -> None:
    path = make_copy(tmp_path / "high.gguf", lift=396.0)
    with pytest.raises(RequestError, match="396"):
        async with open_proving(vllm, path, tmp_path):
            pass
    with pytest.raises(RequestError, match="cannot be read"):
        async with open_engine(vllm, tmp_path, copy_description=str(tmp_path / "none")):
            pass
    assert json.loads(path.with_name(path.name + COPY_SUFFIX).read_text())["lift"] == 396
