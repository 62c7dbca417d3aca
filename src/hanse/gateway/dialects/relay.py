"""Sending a bought chat completion in the dialect in which it was asked for.

The receipt travels as it does elsewhere: in a header, or as a comment frame before the events
that end a stream. It covers the provider's chat completion, which `docs/gateway/api.md` says.

A stream's head waits for the provider's first frame, so that until then an error is a plain HTTP
error. A stream that breaks later ends with the dialect's own error event.
"""

import msgspec

from hanse.gateway.client import MarketAnswer
from hanse.gateway.dialects.chat import DONE, ChatReader, read_payload
from hanse.gateway.dialects.dialect import Dialect, Translation, Writer
from hanse.gateway.exchange import Exchange
from hanse.gateway.relay import (
    PROVIDER_HEADER,
    STREAM_HEADERS,
    get_receipt_frame,
    get_receipt_headers,
)
from hanse.protocol.errors import HanseError, TransientError


def speak(exchange: Exchange, dialect: Dialect) -> None:
    """Let this exchange's errors be in the dialect from now on."""
    exchange.to_error_body = dialect.to_error_body
    exchange.to_error_frame = dialect.to_error_frame
    if dialect.request_id_header:
        exchange.extra_headers.append((dialect.request_id_header, exchange.request_id.encode()))


async def relay_translated(
    exchange: Exchange, answer: MarketAnswer, translation: Translation
) -> None:
    """Send an answer, whole or as a stream.

    Raises:
        HanseError: it broke before anything was sent.
    """
    writer, reader = translation.open_writer(), ChatReader()
    if answer.is_stream:
        await _relay_stream(exchange, answer, writer, reader)
        return
    for piece in reader.read(await answer.read()):
        writer.write(piece)
    body = msgspec.json.encode(writer.get_whole(reader))
    headers = [(b"content-type", b"application/json"), *get_receipt_headers(answer)]
    await exchange.send_whole(200, body, headers)


async def _relay_stream(
    exchange: Exchange, answer: MarketAnswer, writer: Writer, reader: ChatReader
) -> None:
    try:
        async for frame in answer.frames():
            payload = read_payload(frame)
            if payload == DONE:
                last = writer.end(reader)
                await exchange.send_part(get_receipt_frame(answer) + last, more=False)
                return
            if payload:
                await _pass_on(exchange, answer, payload, writer, reader)
        raise TransientError(
            "provider_unreachable", "the provider's stream ended before its [DONE]"
        )
    except HanseError as error:
        if exchange.status == 0:
            raise
        await exchange.end_broken(error, get_receipt_frame(answer))


async def _pass_on(
    exchange: Exchange, answer: MarketAnswer, payload: bytes, writer: Writer, reader: ChatReader
) -> None:
    pieces = reader.read(payload)
    told = b""
    if exchange.status == 0:
        exchange.streaming = True
        await exchange.start(200, [*STREAM_HEADERS, (PROVIDER_HEADER, answer.provider.encode())])
        told = writer.begin(reader)
    told += b"".join(map(writer.write, pieces))
    if told:
        await exchange.send_part(told, more=True)
