"""Keys of sealed answers go once no broker keeps the answers any more."""

import json

import pytest

from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.limits import ANSWER_RETAINED_S
from hanse.sdk import Hanse
from hanse.settlement.books.voucher_keys import RECEIPTS_SWEPT_MAX
from tests.sdk.conftest import World

BODY = json.dumps({"model": "echo", "messages": [], "max_tokens": 50}).encode()
STREAM = BODY.replace(b'{"model"', b'{"stream": true, "model"')


async def buy(hanse: Hanse, body: bytes) -> str:
    answer = await hanse.request("/v1/chat/completions", body)
    if answer.is_stream:
        async for _ in answer.frames():
            pass
    else:
        await answer.read()
    return answer.request_id


async def leave(hanse: Hanse) -> str:
    """Hang up after the first frame."""
    answer = await hanse.request("/v1/chat/completions", STREAM)
    async with answer:
        async for _ in answer.frames():
            break
    await hanse.wait_idle()
    return answer.request_id


async def find_key(world: World, request_id: str) -> bytes:
    voucher = await world.book.find_voucher(request_id)
    assert voucher is not None
    return voucher.answer_key


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_a_delivered_answer_can_be_fetched_for_an_hour(world: World, body: bytes) -> None:
    """The application behind may have lost what came whole."""
    async with world.open() as hanse:
        request_id = await buy(hanse, body)
        assert (await hanse.fetch_answer(request_id)).is_verified
        world.clock.now += ANSWER_RETAINED_S + 2
        await hanse.resume()
        assert await find_key(world, request_id) == b""
        with pytest.raises(RequestError, match="its key is deleted"):
            await hanse.fetch_answer(request_id)


async def test_a_lost_answers_key_goes_when_no_broker_keeps_the_answer(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        request_id = await leave(hanse)
        await hanse.resume()
        assert await world.book.find_receipt(request_id) is not None
        assert len(await find_key(world, request_id)) == 32
        world.clock.now += ANSWER_RETAINED_S
        await hanse.resume()
        assert len(await find_key(world, request_id)) == 32, "a broker may still keep it"
        world.clock.now += 2
        await hanse.resume()
        assert await find_key(world, request_id) == b""
        later = await leave(hanse)
        await hanse.resume()
        world.clock.now += ANSWER_RETAINED_S + 2
        await hanse.resume()
        assert await find_key(world, later) == b"", "later receipts are looked at too"


async def test_a_request_of_unknown_end_keeps_its_key(world: World) -> None:
    world.only(world.cheap)
    world.cheap.lie = "crash-admitted"
    async with world.open() as hanse:
        with pytest.raises(HanseError):
            await buy(hanse, BODY)
        world.clock.now += 2 * ANSWER_RETAINED_S
        world.cheap.lie = ""
        (open_voucher,) = await world.book.list_open_vouchers()
        await world.book.sweep_keys(int(world.clock()))
        assert len(await find_key(world, open_voucher.signed.request.request_id)) == 32


async def test_a_round_is_bounded_and_goes_on_in_the_next(world: World) -> None:
    async with world.open() as hanse:
        await buy(hanse, BODY)
        row = "INSERT INTO voucher_receipts SELECT sub_account, sequence + ?, NULL, request_hash, "
        row += "receipt, fee, cumulative_fee, NULL, verification, reason, 1, received_at + ? "
        row += "FROM voucher_receipts WHERE sequence = 1"
        count = RECEIPTS_SWEPT_MAX + 10
        await world.book._database.write(
            lambda tx: [tx.execute(row, (number, number // 4)) for number in range(1, count)]
        )
        late = int(world.clock()) + 10 * ANSWER_RETAINED_S
        assert await world.book.sweep_keys(late) == RECEIPTS_SWEPT_MAX
        assert 0 < await world.book.sweep_keys(late) < 20
        assert await world.book.sweep_keys(late) == 0
