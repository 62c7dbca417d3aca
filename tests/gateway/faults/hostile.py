"""What stands before a broker and spoils what it answers, as a provider might by fault or malice.

Each is an ASGI application around a real broker, over real HTTP. Only paid answers are spoilt.
"""

from collections.abc import Callable
from typing import Any

from hanse.chain import Key
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.wire import (
    OPERATIONS_BY_PATH,
    RECEIPT_COMMENT,
    decode_receipt,
    encode_receipt,
)
from hanse.serving import ABORT
from tests.gateway.market_parts import DOMAIN

Event = dict[str, Any]
STRANGER = Key(b"\x09" * 32)


class Hostile:
    """Passes everything on but what `spoil` does to the parts of a paid answer.

    Attributes:
        asked: paid requests that came.
        spoiling: whether answers are spoilt now.
    """

    def __init__(self, broker: Any) -> None:
        self.asked = 0
        self.spoiling = True
        self._broker = broker

    async def __call__(self, scope: Event, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in OPERATIONS_BY_PATH:
            await self._broker(scope, receive, send)
            return
        self.asked += 1
        parts = 0

        async def send_spoilt(event: Event) -> None:
            nonlocal parts
            parts += event["type"] == "http.response.body"
            spoilt = self.spoil(event, parts, scope["state"][ABORT]) if self.spoiling else event
            if spoilt is not None:
                await send(spoilt)

        if self.spoiling and await self.answer_instead(scope, receive, send):
            return
        await self._broker(scope, receive, send_spoilt)

    async def answer_instead(self, scope: Event, receive: Any, send: Any) -> bool:
        """Answer without the broker; False if that is its business."""
        return False

    def spoil(self, event: Event, parts: int, abort: Callable[[], None]) -> Event | None:
        """The event as it goes out; None for not at all. `parts` counts those of the body."""
        return event


class DiesAtOnce(Hostile):
    """The connection drops before a byte of the answer."""

    async def answer_instead(self, scope, receive, send):
        scope["state"][ABORT]()
        return True


class DiesAmid(Hostile):
    """The connection drops after so many parts of the answer."""

    after = 3

    def spoil(self, event, parts, abort):
        if parts > self.after:
            abort()
            return None
        return event


class SaysServerError(Hostile):
    """A proxy's page with status 500."""

    async def answer_instead(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"<h1>Internal Server Error</h1>"})
        return True


class NeverAnswers(Hostile):
    """Takes the request and says nothing, not even a keep-alive."""

    async def answer_instead(self, scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        return True


class SpeaksNonsense(Hostile):
    """What follows the third frame is no frame of an answer."""

    def spoil(self, event, parts, abort):
        if parts == 4:
            return {**event, "body": b'data: {"choices": [{"delta": oops\n\n'}
        return event


class EndsTwice(Hostile):
    """The receipt comes twice."""

    def spoil(self, event, parts, abort):
        body = event.get("body", b"")
        at = body.find(RECEIPT_COMMENT)
        if at < 0:
            return event
        end = body.index(b"\n\n", at) + 2
        return {**event, "body": body[:end] + body[at:]}


class ChangesWords(Hostile):
    """One word is another than the one that was signed; its length stays."""

    def spoil(self, event, parts, abort):
        body = event.get("body", b"")
        return {**event, "body": body.replace(b"word", b"lies", 1)} if body else event


class SignsWithAnotherKey(Hostile):
    """The receipt is signed, but not by the provider's registered key."""

    def spoil(self, event, parts, abort):
        body = event.get("body", b"")
        at = body.find(RECEIPT_COMMENT)
        if at >= 0:
            end = body.index(b"\n\n", at)
            forged = forge(body[at + len(RECEIPT_COMMENT) : end].decode())
            return {**event, "body": body[:at] + RECEIPT_COMMENT + forged + body[end:]}
        if "headers" in event:
            kept = [
                (name, forge(value.decode()) if name == b"hanse-receipt" else value)
                for name, value in event["headers"]
            ]
            return {**event, "headers": kept}
        return event


def forge(text: str) -> bytes:
    """The same receipt with the signature of a stranger."""
    receipt = decode_receipt(text).receipt
    signature = STRANGER.sign_digest(DOMAIN.digest(receipt.struct_hash()))
    return encode_receipt(SignedReceipt(receipt, signature)).encode()
