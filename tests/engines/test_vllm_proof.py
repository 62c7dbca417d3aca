"""The proof from vLLM: by what a real one answered, and by a double for what that did not show.

`recorded/vllm.json` has what vLLM 0.32 on a processor was asked by this engine, over a copy of the
packaged model, and its bytes; `make bench-vllm RECORD=file` makes it again. The double answers in
the same form. A running vLLM is in `test_vllm_running.py`.
"""

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
from hanse.engines.proving.openai_proof import OpenAIProof
from hanse.protocol.commitments.copies import COPY_SUFFIX, decode_copy_description
from hanse.protocol.commitments.fingerprints import ABSENT, quantise
from hanse.protocol.errors import RequestError, TransientError
from tests.engines.conftest import open_upstream
from tests.engines.openai_front import serve
from tests.engines.test_contract import collect, make_chat, make_completion
from tests.engines.tiny_copy import make_copy

RECORDED = Path(__file__).parent / "recorded" / "vllm.json"
TEXT = [(70, "He"), (71, 'llo "you"'), (72, ""), (73, " 🎉"), (2, "")]
"""Tokens and their text: one ends inside a character, the last one ends the answer."""


class FakeVllm:
    """Answers TEXT; token i has the canary logprobs `get_canaries(i)`."""

    def __init__(self, copy: CopyInService) -> None:
        self.ids = list(copy.description.canary_ids)
        self.asked: list[dict[str, Any]] = []
        self.tokens = TEXT
        self.speaks_numbers = True
        self.knows_numbers = True

    def get_canaries(self, position: int) -> list[float]:
        return [-22.0 - 0.05 * ((3 * position + 7 * place) % 16) for place in range(16)]

    def get_likely(self, position: int) -> dict[str, float]:
        chosen = self.tokens[position][0]
        asked = dict(zip(self.ids, self.get_canaries(position), strict=True))
        wanted = self.asked[-1].get("logprob_token_ids", ()) if self.knows_numbers else (9, 10, 11)
        likely = {chosen: -0.5} | {id_: asked.get(id_, -9.0) for id_ in wanted}
        return {self.name(id_): value for id_, value in likely.items()}

    def name(self, id_: int) -> str:
        return f"token_id:{id_}" if self.speaks_numbers else "text"

    def make_logprobs(self, position: int, is_chat: bool) -> dict[str, Any]:
        likely, token = self.get_likely(position), self.name(self.tokens[position][0])
        if not is_chat:
            return {
                "text_offset": [position],
                "token_logprobs": [-0.5],
                "tokens": [token],
                "top_logprobs": [likely],
            }
        tops = [{"token": key, "logprob": value, "bytes": []} for key, value in likely.items()]
        one = {"token": token, "logprob": -0.5, "bytes": [], "top_logprobs": tops}
        return {"content": [one]}

    def make_frames(self, body: dict[str, Any], is_chat: bool) -> list[dict[str, Any]]:
        frames = []
        for position, (_, text) in enumerate(self.tokens):
            choice: dict[str, Any] = {"index": 0}
            choice |= {"delta": {"content": text}} if is_chat else {"text": text}
            asks = "logprobs" in body  # 0 of a completion asks too
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
    return make_copy(tmp_path_factory.mktemp("vllm") / "copy.gguf", lift=0.0)


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
    assert (asked["logprobs"], asked["logprob_token_ids"], asked["seed"]) == (True, vllm.ids, 77)
    assert asked["return_tokens_as_token_ids"] is True
    assert several["logit_bias"] == dict.fromkeys(canaries, -100)
    assert several["logprob_token_ids"] == vllm.ids, (
        "what is billed is committed to, however many answers"
    )


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


async def test_a_vllm_that_does_not_know_the_question_breaks_the_answer_off(
    vllm: FakeVllm, copy_path: Path, tmp_path: Path
) -> None:
    vllm.knows_numbers = False  # up to 0.25 it tells the most likely ones all the same
    async with open_proving(vllm, copy_path, tmp_path) as engine:
        with pytest.raises(TransientError, match="by number; vLLM does"):
            await collect(engine, make_chat(max_tokens=9))


async def test_a_copy_for_llama_cpp_is_refused(vllm: FakeVllm, tmp_path: Path) -> None:
    path = make_copy(tmp_path / "lifted.gguf")
    with pytest.raises(RequestError, match="rebase FOLDER --folder"):
        async with open_proving(vllm, path, tmp_path):
            pass
    with pytest.raises(RequestError, match="cannot be read"):
        async with open_engine(vllm, tmp_path, copy_description=str(tmp_path / "none")):
            pass


def read_recorded() -> list[Any]:
    recorded = json.loads(RECORDED.read_text())
    raw = msgspec.json.encode(recorded["description"])
    copy = CopyInService(decode_copy_description(raw))
    return [pytest.param(copy, each, id=f"{at}") for at, each in enumerate(recorded["exchanges"])]


@pytest.mark.parametrize(("copy", "exchange"), read_recorded())
def test_what_a_real_vllm_answered(copy: CopyInService, exchange: dict[str, Any]) -> None:
    operation = Operation(exchange["operation"])
    asked = {
        name: value
        for name, value in exchange["asked"].items()
        if name not in ("logprobs", "logprob_token_ids", "return_tokens_as_token_ids", "logit_bias")
    }
    proof = OpenAIProof(copy, operation, asked, None)
    assert asked == exchange["asked"]  # what is asked today is what was asked then
    told = [msgspec.json.decode(frame) for frame in get_frames(exchange["answer"])]
    left = [msgspec.json.decode(proof.read(frame)) for frame in get_frames(exchange["answer"])]
    wanted = [values for frame in told for values in get_canaries(frame, copy)]
    output_tokens = max((frame.get("usage") or {}).get("completion_tokens", 0) for frame in told)
    entries = proof.take(output_tokens)
    assert len(entries) == len(wanted) == output_tokens
    assert [entry.fingerprint for entry in entries] == [quantise(values) for values in wanted]
    for before, after in zip(told, left, strict=True):
        for choice in before["choices"]:
            choice["logprobs"] = None
        assert after == before  # nothing else is changed


def get_frames(answer: str) -> list[bytes]:
    """Of a stream its data, of a whole answer that."""
    if not answer.startswith("data: "):
        return [answer.encode()]
    frames = [line.removeprefix("data: ") for line in answer.split("\n") if line]
    assert frames.pop() == "[DONE]"
    return [frame.encode() for frame in frames]


def get_canaries(frame: dict[str, Any], copy: CopyInService) -> list[list[float]]:
    """The canaries' logprobs of each token in a frame, read another way than the engine does."""
    found = []
    for choice in frame["choices"]:
        logprobs = choice["logprobs"] or {}
        tops = [
            {top["token"]: top["logprob"] for top in one["top_logprobs"]}
            for one in logprobs.get("content") or ()
        ]
        for told in tops or logprobs.get("top_logprobs") or ():
            found.append([told[f"token_id:{id_}"] for id_ in copy.description.canary_ids])
    return found
