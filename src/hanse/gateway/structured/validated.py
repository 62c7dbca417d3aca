"""Buy, judge, once more, then the declared default: nothing that does not fit is delivered.

    bought, headers = await buy_validated(demand, body, buy, spent, id_, now_s)

An answer that max_tokens cut is not asked for again: the second would end there too. Every attempt
is bought and paid as any request: its provider served what it was asked, its receipt
is signed and checked, and no fee is taken back because a model answered badly. What the attempts
cost is told by headers. Streams are held until they are whole, so that the verdict can come first.

Source: docs/decisions/0027-structured-answers.md.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgspec

from hanse.gateway.client import MarketAnswer, Receipted
from hanse.gateway.structured.contents import (
    Gathering,
    add_usage,
    write_chunks,
    write_completion,
)
from hanse.gateway.structured.demand import NAME_HEADER, REPAIR, Demand
from hanse.protocol.errors import HanseError, TransientError, VerificationError
from hanse.protocol.wire.frames import is_done

ATTEMPTS_MAX = 2
"""The first answer, and one repair or one of another provider. Each is paid."""

HELD_BYTES_MAX = 4 * 1024 * 1024
"""One answer held back: a quarter of a megabyte of text, sixteenfold for the frames around it."""

REPAIRED_CHARS_MAX = 16 * 1024
"""Of a wrong answer, the longest that is shown to its model again; it is paid for as a prompt."""

DEFAULT_PROVIDER = "canned"
"""Whose answer a default is: nobody's."""

Buy = Callable[[bytes, str, str], Awaitable[MarketAnswer]]
"""Buys an answer to a body, not from the first of these providers, and from the second if it can;
empty for none."""

Spent = Callable[[Receipted], None]
"""Told of the receipt of each attempt that is not delivered."""

Headers = list[tuple[bytes, bytes]]


@dataclass
class HeldAnswer:
    """An answer that is all there; fulfils `hanse.gateway.client.MarketAnswer`."""

    provider: str
    is_stream: bool
    receipt: Receipted | None
    parts: tuple[bytes, ...]

    async def read(self) -> bytes:
        """The whole body."""
        return self.parts[0]

    async def frames(self) -> AsyncIterator[bytes]:
        """The stream's frames as they came."""
        for part in self.parts:
            yield part

    async def close(self) -> None:
        """Nothing is open."""


async def buy_validated(
    demand: Demand, body: bytes, buy: Buy, spent: Spent, id_: str, now_s: int
) -> tuple[MarketAnswer, Headers]:
    """An answer that fits, or the default, and the headers that say which.

    Raises:
        HanseError: the first attempt could not be bought.
        VerificationError: `schema_unmet`; no answer fits and no default was declared.
    """
    receipts: list[Receipted] = []
    asked, avoid, prefer, fault, word = body, "", "", "", "valid"
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            answer = await buy(asked, avoid, prefer)
        except HanseError:
            if attempt == 1:
                raise
            break
        held, gathering, found = await _hold(answer, demand)
        if held.receipt is not None:
            receipts.append(held.receipt)
        if found is None:
            return held, _describe(word, attempt, receipts)
        fault = found
        if held.receipt is not None:
            spent(held.receipt)
        if demand.is_cut_again(gathering):
            break
        repaired = _write_repair(demand, body, gathering, fault)
        if repaired is None:
            word, avoid = "elsewhere", answer.provider
        else:  # whoever gave the answer has its prompt in the cache
            word, asked, prefer = "repaired", repaired, answer.provider
    if demand.default is None:
        raise _get_unmet(fault, attempt, receipts)
    return _make_default(demand, receipts, id_, now_s), _describe("default", attempt, receipts)


def _get_unmet(fault: str, attempts: int, receipts: list[Receipted]) -> VerificationError:
    return VerificationError(
        "schema_unmet",
        f"no answer of {attempts} fits the JSON schema, and no default was declared; the last "
        f"one: {fault}",
        param="response_format",
        details={
            "attempts": attempts,
            "total_fee": str(sum(receipt.fee for receipt in receipts)),
        },
    )


async def _hold(answer: MarketAnswer, demand: Demand) -> tuple[HeldAnswer, Gathering, str | None]:
    """The answer once it is whole, what is in it, and what is wrong with it."""
    gathering = Gathering()
    parts: list[bytes] = []
    fault: str | None = None
    try:
        if answer.is_stream:
            await _gather(answer, gathering, parts)
        else:
            parts.append(await answer.read())
            gathering.add(parts[0])
        fault = demand.find_fault(gathering)
    except HanseError as error:
        gathering.broken = True
        fault = error.message
    finally:
        await answer.close()
    held = HeldAnswer(answer.provider, answer.is_stream, answer.receipt, tuple(parts))
    return held, gathering, fault


async def _gather(answer: MarketAnswer, gathering: Gathering, parts: list[bytes]) -> None:
    size = 0
    async for frame in answer.frames():
        size += len(frame)
        if size > HELD_BYTES_MAX:
            raise VerificationError(
                "response_malformed", f"the answer has over {HELD_BYTES_MAX} bytes"
            )
        parts.append(frame)
        gathering.add_frame(frame)
    if not parts or not any(is_done(frame) for frame in parts[-3:]):
        raise TransientError("provider_unreachable", "the stream ended before its [DONE]")


def _write_repair(demand: Demand, body: bytes, gathering: Gathering, fault: str) -> bytes | None:
    """The request with the wrong answer and its fault added; None if that is not what is wanted."""
    if demand.afterwards != REPAIR or gathering.broken or len(gathering.choices) != 1:
        return None
    text = next(iter(gathering.choices.values())).text
    if len(text) > REPAIRED_CHARS_MAX:
        return None
    request = msgspec.json.decode(body)
    request["messages"] += [
        {"role": "assistant", "content": text},
        {
            "role": "user",
            "content": f"That does not fit the JSON schema: {fault}. "
            "Answer again with the whole JSON, corrected, and nothing else.",
        },
    ]
    return msgspec.json.encode(request)


def _make_default(demand: Demand, receipts: list[Receipted], id_: str, now_s: int) -> HeldAnswer:
    assert demand.default is not None
    text = demand.default.decode()
    usage = add_usage(receipt.signed.receipt.usage for receipt in receipts)
    parts: tuple[bytes, ...]
    if demand.stream:
        parts = write_chunks(id_, now_s, demand.model, text, usage if demand.usage else None)
    else:
        parts = (write_completion(id_, now_s, demand.model, text, usage),)
    return HeldAnswer(DEFAULT_PROVIDER, demand.stream, None, parts)


def _describe(word: str, attempts: int, receipts: list[Receipted]) -> Headers:
    total = sum(receipt.fee for receipt in receipts)
    return [
        (NAME_HEADER, word.encode()),
        (b"hanse-attempts", str(attempts).encode()),
        (b"hanse-total-fee", str(total).encode()),
    ]
