"""Proof-carrying generation: the proof is there, and the caller's answer is as without it."""

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from hanse.engines import Chunk, EngineRequest, Operation
from hanse.engines.llama.proof import ProofReader
from hanse.engines.llama_engine import LlamaEngine
from hanse.engines.proving.copy_in_service import CopyInService, find_copy
from hanse.engines.proving.ledger import UNTOLD, Ledger
from hanse.engines.proving.logprobs import get_mass
from hanse.protocol.commitments.copies import COPY_SUFFIX, decode_copy_description
from hanse.protocol.commitments.fingerprints import ABSENT
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.errors import RequestError, TransientError
from tests.engines.conftest import open_llama
from tests.engines.test_contract import collect, make_chat, make_completion, read_frames
from tests.engines.tiny_copy import CANARIES, LIFT, make_copy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

_CREATED = re.compile(rb'"created":\d+')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("copies")


@pytest.fixture(scope="module")
def copy_path(folder: Path) -> Path:
    return make_copy(folder / "copy.gguf")


@pytest.fixture(scope="module")
def copy(copy_path: Path) -> CopyInService:
    found = find_copy(copy_path)
    assert found is not None
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proving(copy_path: Path) -> AsyncIterator[LlamaEngine]:
    engine = open_llama(model_path=str(copy_path), context_tokens=512, grammar=True)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain(folder: Path) -> AsyncIterator[LlamaEngine]:
    """The same weights without canaries."""
    path = make_copy(folder / "plain.gguf", canaries=0)
    engine = open_llama(model_path=str(path), context_tokens=512, grammar=True, embeddings=False)
    await engine.start()
    yield engine
    await engine.close()


def join(chunks: list[Chunk]) -> bytes:
    return _CREATED.sub(b"", b"".join(chunk.data for chunk in chunks))


def get_proof(chunks: list[Chunk]) -> list[Entry]:
    return [entry for chunk in chunks for entry in chunk.proof]


SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}},
}
REQUESTS = [
    make_chat(max_tokens=24),
    make_chat(max_tokens=24, temperature=0, stream_options={"include_usage": True}),
    make_chat(max_tokens=24, top_p=1, min_p=0, top_k=0, temperature=1.5),
    make_chat(max_tokens=12, response_format=SCHEMA),
    make_chat(max_tokens=24, stop=["a", "e"]),
    make_chat(max_tokens=16, logit_bias={"10": 5, "11": -100}),
    make_completion(max_tokens=24),
    make_completion(max_tokens=24, grammar='root ::= "yes" | "no"'),
    make_completion(max_tokens=24, presence_penalty=1, frequency_penalty=1),
]


@pytest.mark.parametrize("request_", REQUESTS)
async def test_the_callers_stream_is_the_same_with_and_without_a_proof(
    proving: LlamaEngine, plain: LlamaEngine, request_: EngineRequest
) -> None:
    proven, expected = await collect(proving, request_), await collect(plain, request_)
    assert join(proven) == join(expected)
    proof, told = get_proof(proven), proven[-1].usage.output_tokens
    assert len(proof) == told == expected[-1].usage.output_tokens
    assert sum(entry.fingerprint != ABSENT for entry in proof) >= told // 2


async def test_whole_answers_are_the_same(proving: LlamaEngine, plain: LlamaEngine) -> None:
    for request in REQUESTS:
        proven, expected = await proving.answer(request), await plain.answer(request)
        assert _CREATED.sub(b"", proven.body) == _CREATED.sub(b"", expected.body)
        assert len(proven.proof) == proven.usage.output_tokens
        assert not expected.proof


async def test_several_users_at_once_get_what_they_get_without_and_each_its_own_proof(
    proving: LlamaEngine, plain: LlamaEngine
) -> None:
    requests = [make_chat(f"user {index}", max_tokens=32, seed=index) for index in range(4)]
    proven = await asyncio.gather(*(collect(proving, each) for each in requests))
    expected = await asyncio.gather(*(collect(plain, each) for each in requests))
    assert [join(each) for each in proven] == [join(each) for each in expected]
    proofs = [get_proof(each) for each in proven]
    assert len({tuple(each) for each in proofs}) == 4
    alone = get_proof(await collect(proving, requests[2]))
    assert [entry.token for entry in alone] == [entry.token for entry in proofs[2]]


async def test_each_chunk_proves_what_it_adds(proving: LlamaEngine) -> None:
    """So that a stream that is cut is committed to as far as it is paid for."""
    tokens = 0
    async for chunk in proving.stream(make_chat(max_tokens=24)):
        tokens += len(chunk.proof)
        assert tokens == chunk.usage.output_tokens


async def test_a_seed_is_given_where_the_caller_gave_none(proving: LlamaEngine) -> None:
    def ask(sampling_seed: int | None, **fields: Any) -> EngineRequest:
        request = make_chat(max_tokens=24, **fields)
        if not fields:
            del request.body["seed"]
        return msgspec.structs.replace(request, sampling_seed=sampling_seed)

    one, same, other, own, chance = [
        get_proof(await collect(proving, request))
        for request in (ask(5), ask(5), ask(6), ask(6, seed=5), ask(5, seed=-1))
    ]
    assert one == same == own == chance
    assert one != other


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"{canary}": 100}},
        {"logit_bias": {"0{canary}": 100, "{canary}": 100}},
        {"logit_bias": {str(token): -100 for token in range(200)}, "temperature": 2},
        {"grammar": 'root ::= "canary 0" | "canary 1"'},
        {"grammar": "root ::= <[{canary}]> <[{canary}]>"},
        {"logprobs": True, "top_logprobs": 20, "logit_bias": {"{canary}": 100}},
    ],
)
async def test_no_canary_is_ever_emitted_or_shown(
    proving: LlamaEngine, copy: CopyInService, fields: dict[str, Any]
) -> None:
    canary = str(copy.description.canary_ids[0])
    fields = json.loads(json.dumps(fields).replace("{canary}", canary))
    try:
        chunks = await collect(proving, make_chat(max_tokens=24, **fields))
    except TransientError:  # broken off before it left: the grammar allows nothing else
        assert "<[" in fields.get("grammar", "")
        return
    proof = get_proof(chunks)
    assert proof
    assert copy.canaries.isdisjoint(entry.token for entry in proof)
    assert copy.canaries.isdisjoint(read_ids(chunks))


def read_ids(chunks: list[Chunk]) -> list[int]:
    ids = []
    for frame in read_frames(chunks):
        for choice in frame["choices"]:
            for entry in (choice.get("logprobs") or {}).get("content") or ():
                ids += [entry["id"], *(top["id"] for top in entry["top_logprobs"])]
    return ids


async def test_a_callers_logprobs_are_those_of_the_model_without_canaries(
    proving: LlamaEngine, plain: LlamaEngine
) -> None:
    asked = [make_chat(max_tokens=12, logprobs=True, top_logprobs=20), make_completion(logprobs=3)]
    for request in asked:
        found, expected = [
            [
                entry
                for frame in read_frames(await collect(engine, request))
                for choice in frame["choices"]
                for entry in (choice.get("logprobs") or {}).get("content") or ()
            ]
            for engine in (proving, plain)
        ]
        assert len(found) == len(expected) > 3
        for one, other in zip(found, expected, strict=True):
            assert one["logprob"] == pytest.approx(other["logprob"], abs=0.01)
            assert [top["id"] for top in one["top_logprobs"]] == [
                top["id"] for top in other["top_logprobs"]
            ]
            for mine, theirs in zip(one["top_logprobs"], other["top_logprobs"], strict=True):
                assert mine["logprob"] == pytest.approx(theirs["logprob"], abs=0.01)


async def test_a_canary_cannot_be_put_into_a_prompt(
    proving: LlamaEngine, copy: CopyInService
) -> None:
    with pytest.raises(RequestError) as caught:
        await collect(proving, make_completion(prompt=[5, copy.description.canary_ids[3]]))
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("field", ["post_sampling_probs", "n_probs", "return_tokens", "samplers"])
async def test_the_servers_own_fields_are_refused(proving: LlamaEngine, field: str) -> None:
    """By one of them a caller would turn the proof off, or see more than is told."""
    with pytest.raises(RequestError) as caught:
        await collect(proving, make_chat(**{field: True}))
    assert caught.value.code == "unsupported_parameter"


async def test_a_server_that_chooses_a_canary_is_not_passed_on(copy: CopyInService) -> None:
    ledger = Ledger(copy.description)
    with pytest.raises(TransientError, match="no text"):
        ledger.add(copy.description.canary_ids[-1], (), 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_several_choices_are_committed_to_token_for_token(
    proving: LlamaEngine, copy: CopyInService, stream: bool
) -> None:
    """No kind of answer is billed for without a commitment of as many positions."""
    request = make_chat(max_tokens=8, n=2, logprobs=True, top_logprobs=5)
    if stream:
        chunks = await collect(proving, request)
        for before in range(1, len(chunks) + 1):  # cut anywhere
            told = get_proof(chunks[:before])
            assert len(told) == chunks[before - 1].usage.output_tokens
        proof = get_proof(chunks)
        assert copy.canaries.isdisjoint(read_ids(chunks))
        told_of = [choice for frame in read_frames(chunks) for choice in frame["choices"]]
        written = [
            entry["id"]
            for choice in told_of
            for entry in (choice.get("logprobs") or {}).get("content") or ()
        ]
        assert sorted(entry.token for entry in proof if entry != UNTOLD) == sorted(written)
    else:
        answer = await proving.answer(request)
        assert answer.usage.output_tokens == 16
        proof = list(answer.proof)
    assert len(proof) == 16
    assert sum(entry.fingerprint != ABSENT for entry in proof) > 8


async def test_tokens_of_several_choices_take_places_once(copy: CopyInService) -> None:
    ledger = Ledger(copy.description)
    ledger.add(5, (), 1, choice=0)
    ledger.add(6, (), 1, choice=1)
    assert len(ledger.take(3)) == 3  # of one of them a third was metered that nobody told of
    assert ledger.get_missing(2, choice=0) == 0
    ledger.add(7, (), 3, choice=1)  # its second was that one
    ledger.add(8, (), 2, choice=0)
    assert [entry.token for entry in ledger.take(5)] == [7, 8]


async def test_what_a_copy_offers(proving: LlamaEngine, folder: Path) -> None:
    assert proving.capabilities.proves
    assert proving.capabilities.logprobs
    assert Operation.EMBEDDINGS not in proving.capabilities.operations
    high = find_copy(make_copy(folder / "high.gguf", lift=396.0))
    assert high is not None
    assert not high.tells_logprobs


async def test_a_copy_without_a_lift_is_served_without_a_proof(folder: Path) -> None:
    path = make_copy(folder / "unlifted.gguf", lift=0.0)
    engine = open_llama(model_path=str(path), context_tokens=512)
    await engine.start()
    try:
        assert not engine.capabilities.proves
        chunks = await collect(engine, make_chat(max_tokens=48, temperature=2, top_k=0, top_p=1))
        assert not get_proof(chunks)
        assert chunks[-1].usage.output_tokens == 48
        assert b"canary" not in join(chunks)
    finally:
        await engine.close()


async def test_a_copy_and_its_description_must_belong_together(tmp_path: Path) -> None:
    path = make_copy(tmp_path / "copy.gguf")
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(RequestError, match="side by side"):
        find_copy(path)
    path.with_name(path.name + COPY_SUFFIX).unlink()
    assert find_copy(path) is None


async def test_another_number_of_canaries_is_refused(tmp_path: Path) -> None:
    path = make_copy(tmp_path / "copy.gguf", canaries=8)
    raw = path.with_name(path.name + COPY_SUFFIX).read_bytes()
    assert decode_copy_description(raw).canary_count == 8
    with pytest.raises(RequestError, match="8 canaries"):
        find_copy(path)


def make_frame(copy: CopyInService, count: int, token: int, text: str, canaries: int) -> bytes:
    tops = [{"id": id_, "logprob": -0.1 * id_} for id_ in copy.description.canary_ids[:canaries]]
    entry = {"id": token, "token": text, "bytes": [], "logprob": -1.0, "top_logprobs": tops}
    choice = {"finish_reason": None, "index": 0, "delta": {"content": text}}
    choice["logprobs"] = {"content": [entry]}
    timings = {"cache_n": 0, "prompt_n": 1, "predicted_n": count}
    return msgspec.json.encode({"choices": [choice], "created": 1, "timings": timings})


async def read_made(copy: CopyInService, frames: list[bytes], known: dict[str, list[int]]) -> Any:
    async def tokenise(text: str) -> list[int]:
        return known.get(text, [])

    async def send() -> AsyncGenerator[list[bytes], None]:
        yield frames

    reader = ProofReader(copy, {"max_tokens": 9}, None, tokenise)
    told = [payload async for some in reader.read(send()) for payload in some]
    return reader, told


async def test_tokens_that_the_server_keeps_to_itself_keep_their_places(
    copy: CopyInService,
) -> None:
    """A character of three tokens, a fence before JSON that is dropped, and something else."""
    frames = [
        make_frame(copy, 3, 30, "🎉", CANARIES),
        make_frame(copy, 6, 40, "{", CANARIES),
        make_frame(copy, 9, 50, "x", CANARIES),
        make_frame(copy, 10, 51, "y", CANARIES - 1),
    ]
    known = {"🎉": [28, 29, 30], "{": [40], "x": [50]}
    reader, told = await read_made(copy, frames, known)
    assert all(b"logprobs" not in payload for payload in told)
    first, rest = reader.take(3), reader.take(11)
    assert [entry.token for entry in first] == [28, 29, 30]
    assert [entry.fingerprint == ABSENT for entry in first] == [True, True, False]
    assert rest[:2] == (UNTOLD, UNTOLD)
    assert rest[2].token == 40
    assert rest[3:5] == (UNTOLD, UNTOLD)
    assert rest[5].token == 50
    assert rest[6] == Entry(51, ABSENT)
    assert rest[7:] == (Entry(UNKNOWN_TOKEN, ABSENT),)


async def test_a_frame_that_cannot_be_cut_breaks_the_answer_off(copy: CopyInService) -> None:
    frame = make_frame(copy, 1, 30, "a", CANARIES).replace(b'}],"created":1', b'}],"made":1')
    with pytest.raises(TransientError):
        await read_made(copy, [frame], {})


async def test_the_tail_behind_the_told_tokens_is_estimated() -> None:
    everything = [1 / rank**1.3 for rank in range(1, 49_153)]
    whole = math.fsum(everything)
    assert get_mass(everything[:512], 49_152) == pytest.approx(whole, rel=0.05)
    assert math.fsum(everything[:512]) < 0.92 * whole
    assert get_mass([0.5, 0.5], 2) == 1
    assert LIFT < 60
