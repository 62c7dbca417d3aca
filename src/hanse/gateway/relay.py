"""Handing a provider's answer to the application, whole or as a stream.

Bytes pass through as they came; nothing is decoded or encoded again, so that what the application
gets is what the receipt's hash covers. A stream's head waits for its first frame: as long as
nothing was sent, an error is still a plain HTTP error, which OpenAI's SDKs try again.

A stream that breaks later ends with a frame `data: {"error": {...}}` and without `[DONE]`. OpenAI's
SDKs raise that as `APIError`, with its message and code.

The receipt is a comment frame just before `[DONE]`; SSE clients ignore comments by rule.

Source: `docs/protocol.md`, sections "On the wire" and "Streams that are cut".
"""

from hanse.gateway.client import MarketAnswer, get_batch_reader
from hanse.gateway.exchange import Exchange, Headers
from hanse.gateway.resilience.delivered import ERROR_FRAME
from hanse.protocol.errors import HanseError, TransientError
from hanse.protocol.wire import encode_receipt, encode_receipt_frame

PROVIDER_HEADER = b"hanse-provider"
FEE_HEADER = b"hanse-fee"
RECEIPT_HEADER = b"hanse-receipt"

_DONE_BYTES_MAX = 24
_CHUNK_END = b"}\n\n"
STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def relay_whole(
    exchange: Exchange, answer: MarketAnswer, content_type: str = "application/json"
) -> None:
    """Send a whole answer, with provider, receipt and fee in its headers."""
    body = await answer.read()
    headers = [(b"content-type", content_type.encode()), *get_receipt_headers(answer)]
    await exchange.send_whole(200, body, headers)


async def relay_stream(exchange: Exchange, answer: MarketAnswer) -> None:
    """Send a stream's frames as they come.

    Raises:
        HanseError: it broke before its first frame, and nothing was sent.
    """
    last = b""
    failure: HanseError | None = None
    read_batch = get_batch_reader(answer)
    try:
        while batch := await read_batch():
            if exchange.complete:  # a frame that reads as an end was none to whoever pays for it
                continue
            if exchange.status == 0:
                exchange.streaming = True
                await exchange.start(
                    200, [*STREAM_HEADERS, (PROVIDER_HEADER, answer.provider.encode())]
                )
            last = batch[-1]
            is_done = last[-3:] != _CHUNK_END and _is_done(last)
            if is_done:
                batch.insert(-1, receipt := get_receipt_frame(answer))
            await exchange.send_part(b"".join(batch), more=not is_done)
            if is_done and receipt:  # behind a receipt nothing comes
                return
    except HanseError as error:
        failure = error
    if exchange.complete:
        return
    told = last.startswith(ERROR_FRAME)
    if failure is None and not told:
        failure = TransientError(
            "provider_unreachable", "the provider's stream ended before its [DONE]"
        )
    if exchange.status == 0 and failure is not None:
        raise failure
    await exchange.end_broken(None if told else failure, get_receipt_frame(answer))


def _is_done(frame: bytes) -> bool:
    """Whether this frame ends an OpenAI stream; a provider may write it with other line ends."""
    return len(frame) < _DONE_BYTES_MAX and b"[DONE]" in frame


def get_receipt_headers(answer: MarketAnswer) -> Headers:
    """Provider, receipt and fee of a whole answer."""
    headers = [(PROVIDER_HEADER, answer.provider.encode())]
    if answer.receipt is not None:
        headers.append((RECEIPT_HEADER, encode_receipt(answer.receipt.signed).encode()))
        headers.append((FEE_HEADER, str(answer.receipt.fee).encode()))
    return headers


def get_receipt_frame(answer: MarketAnswer) -> bytes:
    """The comment that carries a stream's receipt; empty if there is none."""
    receipt = answer.receipt
    return b"" if receipt is None else encode_receipt_frame(receipt.signed)
