"""A commitment in the receipt, and its opening for whoever bought the answer, over HTTP."""

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest

from hanse.engines import Answer, Capabilities, Chunk, EngineRequest
from hanse.engines.echo_engine import EchoEngine
from hanse.protocol.commitments.promises import Breach, find_breach
from hanse.protocol.commitments.seeds import get_sampling_seed
from hanse.protocol.commitments.tree import POSITIONS_MAX, Entry, decode_opening
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.pricing import get_maximum_fee
from hanse.protocol.signatures import ZERO_HASH
from hanse.provider.cheating import HONEST, BrokerCheats
from tests.provider.broker_parts import (
    PROVIDER,
    STRANGER_KEY,
    Caller,
    Signed,
    chat_body,
    selling,
    until,
)


def prove(request: EngineRequest, start: int, end: int) -> tuple[Entry, ...]:
    """Made up, but by request and seed, so that mixed-up ones show."""
    name = f"{request.answer_id} {request.sampling_seed}".encode()
    return tuple(
        Entry(place, hashlib.sha256(name + bytes((place,))).digest()[:16])
        for place in range(start, end)
    )


class ProvingEcho(EchoEngine):
    """An echo that gives a proof, of nothing."""

    @property
    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(super().capabilities, proves=True)

    async def answer(self, request: EngineRequest) -> Answer:
        answer = await super().answer(msgspec.structs.replace(request, checked=None))
        proof = prove(request, 0, answer.usage.output_tokens)
        return msgspec.structs.replace(answer, proof=proof)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        told = 0
        chunks = super().stream(msgspec.structs.replace(request, checked=None))
        try:
            async for chunk in chunks:
                proof = prove(request, told, chunk.usage.output_tokens)
                told = chunk.usage.output_tokens
                yield msgspec.structs.replace(chunk, proof=proof)
        finally:
            await chunks.aclose()


def expect(signed: Signed, tokens: int) -> tuple[Entry, ...]:
    request_id = signed.voucher.request.request_id
    seed = get_sampling_seed(b"", request_id, PROVIDER)
    request = EngineRequest(
        operation="chat/completions",  # type: ignore[arg-type]
        body={},
        answer_id="chatcmpl-" + request_id[2:34],
        sampling_seed=seed,
    )
    return prove(request, 0, tokens)


async def fetch_opening(caller: Caller, signed: Signed) -> bytes | None:
    request_id = signed.voucher.request.request_id
    reply = await caller.get(f"/hanse/v1/openings/{request_id}", caller.sign_query())
    assert reply.status in (200, 404)
    return reply.body if reply.status == 200 else None


async def test_a_receipt_commits_and_its_buyer_gets_the_opening() -> None:
    async with selling(engine=ProvingEcho) as (_, caller):
        for stream in (False, True):
            signed = caller.sign(chat_body(stream=stream))
            reply = await caller.send(signed)
            caller.check(signed, reply)
            assert reply.receipt is not None
            caller.acknowledge(reply.receipt)
            receipt = reply.receipt.receipt
            opening = await fetch_opening(caller, signed)
            assert opening is not None
            entries = decode_opening(opening, receipt.commitment_root)
            assert len(entries) == receipt.usage.output_tokens == 8
            assert entries == expect(signed, 8)


async def test_a_stream_that_is_left_is_committed_to_as_far_as_it_was_sent() -> None:
    async with selling(engine=ProvingEcho, token_delay_s=0.02) as (_, caller):
        signed = caller.sign(chat_body(stream=True))
        await caller.send(signed, stop_after=3)

        async def find_receipt() -> SignedReceipt | None:
            _, receipts = await caller.fetch_receipts()
            return receipts[0] if receipts else None

        receipt = (await until(find_receipt)).receipt
        opening = await fetch_opening(caller, signed)
        assert opening is not None
        entries = decode_opening(opening, receipt.commitment_root)
        assert 3 <= len(entries) == receipt.usage.output_tokens < 8


async def test_nobody_else_gets_an_opening() -> None:
    async with selling(engine=ProvingEcho) as (_, caller):
        signed = caller.sign(chat_body())
        await caller.send(signed)
        path = f"/hanse/v1/openings/{signed.voucher.request.request_id}"
        assert (await caller.get(path)).status == 401
        assert (await caller.get(path, caller.sign_query(key=STRANGER_KEY))).status == 401
        assert (await caller.get(path, caller.sign_query(provider="0x" + "b3" * 20))).status >= 400
        unknown = await caller.get("/hanse/v1/openings/0x" + "ab" * 32, caller.sign_query())
        assert unknown.status == 404
        odd = await caller.get("/hanse/v1/openings/0x12", caller.sign_query())
        assert odd.status == 400
        own = Caller(caller.url, caller.offer)
        own.key = STRANGER_KEY  # with a sub-account of the same user, but another signer
        async with own as stranger:
            assert (await stranger.get(path, stranger.sign_query())).status == 404


async def test_openings_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    async with selling(path, engine=ProvingEcho) as (_, caller):
        signed = caller.sign(chat_body())
        reply = await caller.send(signed)
        assert reply.receipt is not None
    async with selling(path, engine=ProvingEcho) as (_, again):
        opening = await fetch_opening(again, signed)
    assert opening is not None
    assert decode_opening(opening, reply.receipt.receipt.commitment_root) == expect(signed, 8)


class Forgetful(ProvingEcho):
    """Loses a part of its proof: the last position, or all of it."""

    lost = 1

    async def answer(self, request: EngineRequest) -> Answer:
        answer = await super().answer(request)
        return msgspec.structs.replace(answer, proof=answer.proof[: -self.lost])

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        held = [chunk async for chunk in super().stream(request)]
        told = tuple(entry for chunk in held for entry in chunk.proof)
        for chunk in held[:-1]:
            yield msgspec.structs.replace(chunk, proof=())
        yield msgspec.structs.replace(held[-1], proof=told[: -self.lost])


class Silent(Forgetful):
    lost = 8


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("engine", [Forgetful, Silent])
async def test_what_could_be_held_against_it_an_honest_broker_gives_away(
    engine: type[Forgetful], stream: bool
) -> None:
    """A defect of an engine must never become a receipt that costs stake."""
    for cheats, is_free in ((HONEST, True), (BrokerCheats(breaks_promises=True), False)):
        async with selling(engine=engine, cheats=cheats) as (_, caller):
            signed = caller.sign(chat_body(stream=stream))
            reply = await caller.send(signed)
            assert reply.status == 200
            assert reply.receipt is not None
            receipt, offer = reply.receipt.receipt, caller.offer
            opening = await fetch_opening(caller, signed)
            positions = len(decode_opening(opening, receipt.commitment_root)) if opening else None
            assert (receipt.fee == 0) is is_free
            assert receipt.usage.output_tokens == 8, "what the answer states stays true"
            assert (find_breach(offer, receipt, positions) is None) is is_free
    assert find_breach(offer, receipt) is (Breach.UNCOMMITTED if engine is Silent else None)


async def test_more_than_a_commitment_holds_is_refused_beforehand() -> None:
    async with selling(engine=ProvingEcho, context_tokens=2**18, output_tokens_max=2**17) as (
        _,
        caller,
    ):
        half = POSITIONS_MAX // 2
        for tokens, status in ((half, 200), (half + 1, 400)):
            fee = get_maximum_fee(caller.offer, 1_000, 2 * tokens)
            signed = caller.sign(chat_body(max_tokens=tokens, n=2, stream=True), maximum_fee=fee)
            assert (await caller.send(signed, stop_after=1)).status == status


async def test_an_engine_that_proves_nothing_commits_to_nothing() -> None:
    async with selling() as (_, caller):
        signed = caller.sign(chat_body())
        reply = await caller.send(signed)
        assert reply.receipt is not None
        assert reply.receipt.receipt.commitment_root == ZERO_HASH
        assert await fetch_opening(caller, signed) is None
