"""A small broker that speaks docs/protocol.md to the letter, and can be told to lie or to fail.

It is written from the page, apart from `hanse.provider`, so that the user's side is tested against
the protocol and not against one implementation of it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanse.chain import Key
from hanse.protocol.books import ProviderBook, apply_admission, apply_finish
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError
from hanse.protocol.hashing import (
    DONE_FRAME,
    EMPTY_RESPONSE_HASH,
    ResponseHasher,
    hash_body,
    hash_response,
)
from hanse.protocol.messages import (
    FinishReason,
    Heartbeat,
    Offer,
    Prices,
    Receipt,
    SignedHeartbeat,
    SignedOffer,
    SignedReceipt,
    SignedVoucher,
    Usage,
)
from hanse.protocol.signatures import ZERO_HASH, to_bytes
from hanse.protocol.verify import verify_query, verify_voucher
from hanse.protocol.wire import (
    RECEIPT_HEADER,
    decode_query_header,
    decode_voucher_header,
    encode_receipt,
    encode_receipt_frame,
    heartbeat_to_json,
    offer_to_json,
    receipt_to_json,
)
from hanse.settlement.books.receipt_records import SubAccountFunds

WORDS = ("The", " answer", " is", " forty", "-two", ".")


class FakeBroker:
    """One provider with one chat service.

    `lie` changes the protocol's messages; see `_lie_receipt` and `_lie_stream` for the names.
    `refuse` answers every paid request with (status, code). `at_frame` is awaited before each frame
    of a stream, with its number.
    """

    def __init__(
        self,
        domain: Domain,
        secret: bytes,
        clock: Callable[[], float],
        *,
        url: str = "http://provider-1",
        prices: Prices | None = None,
        model: str = "echo",
        verifiability: str = "reputation",
    ) -> None:
        self.domain = domain
        self.key = Key(secret)
        self.provider = Key(bytes(31) + secret[-1:]).address
        self.clock = clock
        self.url = url
        self.verifiability = verifiability
        self.funds = SubAccountFunds(1_000_000, 0)
        self.offer = self._sign_offer(prices or Prices(1_000_000, 500_000, 2_000_000), model)
        self.offer_hash = "0x" + self.offer.offer.struct_hash().hex()
        self.book = ProviderBook()
        self.vouchers: dict[str, SignedVoucher] = {}
        self.answer_keys: dict[str, bytes] = {}
        self.receipts: dict[str, SignedReceipt] = {}
        self.answers: dict[str, bytes] = {}
        self.commitment_root = ZERO_HASH
        self.bodies: list[bytes] = []
        self.lie = ""
        self.refuse: tuple[int, str] | None = None
        self.at_frame: Callable[[int], Awaitable[None]] | None = None
        self.frames_text = WORDS
        self.paid_requests = 0
        self.heartbeat: Heartbeat | None = None

    def _sign_offer(self, prices: Prices, model: str) -> SignedOffer:
        offer = Offer(
            provider=self.provider,
            service_id=1,
            service_type="chat",
            model=model,
            manifest_root=ZERO_HASH,
            quantisation="none",
            engine="echo",
            context_tokens=4_096,
            output_tokens_max=1_000,
            prices=prices,
            verifiability=self.verifiability,
            endpoints=(self.url,),
            encryption_key=ZERO_HASH,
            valid_until=int(self.clock()) + 86_400,
            revision=1,
        )
        digest = self.domain.digest(offer.struct_hash())
        return SignedOffer(offer, self.key.sign_digest(digest))

    def offer_embedded(self) -> None:
        """Offer what is committed to; the root is made up, as nothing here is audited."""
        self.verifiability, self.commitment_root = "embedded", "0x" + "c0" * 32
        self.offer = self._sign_offer(self.offer.offer.prices, self.offer.offer.model)
        self.offer_hash = "0x" + self.offer.offer.struct_hash().hex()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, method = scope["path"], scope["method"]
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization", b"").decode()
        body = (await receive())["body"]
        try:
            if method == "POST":
                await self._serve(path, body, authorization, receive, send)
            elif path == "/hanse/v1/offers":
                await _send_json(send, 200, {"offers": [offer_to_json(self.offer)]})
            elif path == "/hanse/v1/heartbeats" and self.heartbeat is not None:
                digest = self.domain.digest(self.heartbeat.struct_hash())
                signed = SignedHeartbeat(self.heartbeat, self.key.sign_digest(digest))
                await _send_json(send, 200, {"heartbeats": [heartbeat_to_json(signed)]})
            elif path == "/hanse/v1/heartbeats":
                await _send_json(send, 404, {"error": {}})
            elif path == "/hanse/v1/receipts":
                await self._send_receipts(authorization, send)
            elif path.startswith("/hanse/v1/answers/"):
                await self._send_answer(authorization, path.rsplit("/", 1)[1], send)
        except HanseError as error:
            await _send_json(send, error.row.status, error.to_openai())

    async def _serve(
        self, path: str, body: bytes, authorization: str, receive: Any, send: Any
    ) -> None:
        self.paid_requests += 1
        if self.lie == "hang":
            await asyncio.Event().wait()
        if self.lie == "crash":
            raise RuntimeError("crash before any answer")
        if self.lie == "500":
            await _send_json(send, 500, {"error": "oops"})
            return
        if self.refuse is not None:
            await self._send_refusal(send)
            return
        signed = self._admit(path, body, authorization)
        if self.lie == "crash-admitted":
            raise RuntimeError("crash after admission")
        if self.lie == "engine-fails":
            content = msgspec.json.encode(
                {"error": {"message": "no", "code": "engine_unavailable"}}
            )
            receipt = self._finish(signed, Usage(), hash_response(content), FinishReason.ERROR, b"")
            await _send(send, 503, content, {RECEIPT_HEADER: encode_receipt(receipt)})
            return
        usage = Usage(input_tokens=10, output_tokens=len(self.frames_text))
        asked = json.loads(body)
        self.bodies.append(body)
        if asked.get("stream"):
            tells = (asked.get("stream_options") or {}).get("include_usage") is True
            await self._stream(signed, usage, receive, send, tells)
        else:
            await self._answer(signed, usage, send)

    async def _send_refusal(self, send: Any) -> None:
        assert self.refuse is not None
        status, code = self.refuse
        details = {"needed": "500", "available": "20", "missing": "480"}
        if code == "voucher_too_low" and self.receipts:
            self.refuse = None
            details["receipts"] = [  # type: ignore[assignment]
                {"request_id": i, "receipt": receipt_to_json(r)} for i, r in self.receipts.items()
            ]
            details["more"] = False  # type: ignore[assignment]
        content = {"error": {"message": "refused", "code": code, "hanse": details}}
        await _send_json(send, status, content)

    def _admit(self, path: str, body: bytes, authorization: str) -> SignedVoucher:
        parsed = decode_voucher_header(authorization)
        signed = parsed.to_signed_voucher(hash_body(path, body))
        verify_voucher(signed, self.domain, self.provider, int(self.clock()))
        assert signed.request.offer_hash == self.offer_hash
        request_id = signed.request.request_id
        assert request_id not in self.vouchers
        self.book = apply_admission(
            self.book,
            cumulative_max=signed.voucher.cumulative_max,
            sequence_max=signed.voucher.sequence_max,
            maximum_fee=signed.request.maximum_fee,
            funded=self.funds.funded,
        )
        self.vouchers[request_id] = signed
        self.answer_keys[request_id] = parsed.answer_key
        return signed

    def _finish(
        self,
        signed: SignedVoucher,
        usage: Usage,
        response_hash: str,
        reason: FinishReason,
        answer: bytes,
    ) -> SignedReceipt:
        maximum_fee, request_id = signed.request.maximum_fee, signed.request.request_id
        priced = self.offer.offer.prices.get_fee(usage) if usage.output_tokens else 0
        fee = min(priced, maximum_fee)
        self.book = apply_finish(self.book, maximum_fee=maximum_fee, fee=fee)
        receipt = Receipt(
            signed.voucher.user,
            self.provider,
            signed.signer,
            self.book.sequence,
            signed.voucher.request_hash,
            response_hash,
            usage,
            fee,
            self.book.cumulative_fee,
            reason,
            int(self.clock()),
            self.commitment_root,
        )
        made = self._sign(self._lie_receipt(receipt))
        self.receipts[request_id] = made
        if answer:
            self.keep(request_id, answer)
        return made

    def keep(self, request_id: str, answer: bytes) -> None:
        """Seal an answer for whoever has its key."""
        nonce = bytes(12)
        sealed = AESGCM(self.answer_keys[request_id]).encrypt(nonce, answer, to_bytes(request_id))
        self.answers[request_id] = nonce + sealed

    def _sign(self, receipt: Receipt) -> SignedReceipt:
        key = Key(b"\x77" * 32) if self.lie == "signature" else self.key
        return SignedReceipt(receipt, key.sign_digest(self.domain.digest(receipt.struct_hash())))

    def _lie_receipt(self, receipt: Receipt) -> Receipt:
        change: dict[str, Any] = {
            "request-hash": {"request_hash": "0x" + "11" * 32},
            "response-hash": {"response_hash": hash_response(b"something else")},
            "fee": {"fee": receipt.fee + 1, "cumulative_fee": receipt.cumulative_fee + 1},
            "sequence-gap": {"sequence": receipt.sequence + 1},
            "cumulative-jump": {"cumulative_fee": receipt.cumulative_fee + 1},
            "usage": {"usage": msgspec.structs.replace(receipt.usage, output_tokens=7)},
            "tokens": {"usage": msgspec.structs.replace(receipt.usage, output_tokens=900)},
            "user": {"user": "0x" + "99" * 20},
            "back-dated": {"finished_at": receipt.finished_at - 600},
        }.get(self.lie, {})
        if self.lie == "other-request" and self.receipts:
            return next(iter(self.receipts.values())).receipt
        return msgspec.structs.replace(receipt, **change)

    async def _answer(self, signed: SignedVoucher, usage: Usage, send: Any) -> None:
        content = {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"content": "".join(self.frames_text)}}],
        }
        if self.lie != "tokens":
            content["usage"] = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
            }
        body = msgspec.json.encode(content)
        receipt = self._finish(signed, usage, hash_response(body), FinishReason.STOP, body)
        headers = {} if self.lie == "stripped" else {RECEIPT_HEADER: encode_receipt(receipt)}
        await _send(send, 200, body, headers)

    async def _stream(
        self, signed: SignedVoucher, usage: Usage, receive: Any, send: Any, tells: bool
    ) -> None:
        hasher, sent = ResponseHasher(), b""
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        left = asyncio.create_task(receive())
        for number, text in enumerate(self.frames_text):
            if self.at_frame is not None:
                await self.at_frame(number)
            if left.done():
                used = Usage(10, 0, number)
                self._finish(signed, used, hasher.get_hash(), FinishReason.CANCELLED, sent)
                return
            frame = b"data: " + _chunk({"content": text}) + b"\n\n"
            hasher.update(frame)
            sent += frame
            await self._send_frame(send, self._lie_stream(frame, number))
        left.cancel()
        end = b"data: " + _chunk({}) + b"\n\n"
        told = b"data: " + _chunk(None, usage) + b"\n\n"
        if tells and self.lie != "unstated":
            end += told
        for frame in (end, DONE_FRAME):
            hasher.update(frame)
            sent += frame
        receipt = self._finish(signed, usage, hasher.get_hash(), FinishReason.STOP, sent)
        comment = b"" if self.lie == "stripped" else encode_receipt_frame(receipt)
        if self.lie == "late-frame":
            comment += b"data: {}\n\n"
        if self.lie == "cut-before-receipt":
            raise RuntimeError("crash after the receipt was stored")
        await self._send_frame(send, b": keep-alive\n\n" + end + comment + DONE_FRAME, more=False)

    async def _send_frame(self, send: Any, frame: bytes, *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": frame, "more_body": more})

    def _lie_stream(self, frame: bytes, number: int) -> bytes:
        if number != 2:
            return frame
        if self.lie == "cut":
            raise RuntimeError("crash in mid-stream")
        return {
            "bytes": frame.replace(b"is", b"IS"),
            "malformed": b"event: chunk\n" + frame,
            "two-lines": frame[:-1] + b"event: error\n\n",
            "huge": b"data: " + b"x" * (1024 * 1024 + 10),
            "two-receipts": b": hanse-receipt AAAA\n\n",
        }.get(self.lie, frame)

    async def _send_receipts(self, authorization: str, send: Any) -> None:
        query, signature = decode_query_header(authorization)
        verify_query(query, signature, self.domain, self.provider, int(self.clock()))
        receipts = [
            {"request_id": request_id, "receipt": receipt_to_json(r)}
            for request_id, r in self.receipts.items()
            if r.receipt.sequence > query.after_sequence
        ]
        busy = [i for i in self.vouchers if i not in self.receipts]
        page = {"state": {}, "receipts": receipts[:2], "in_flight": busy, "more": len(receipts) > 2}
        await _send_json(send, 200, page)

    async def _send_answer(self, authorization: str, request_id: str, send: Any) -> None:
        query, signature = decode_query_header(authorization)
        verify_query(query, signature, self.domain, self.provider, int(self.clock()))
        if request_id not in self.answers:
            await _send_json(send, 404, {"error": {"message": "none", "code": "not_found"}})
            return
        await _send(send, 200, self.answers[request_id], {})

    def restart(self) -> None:
        """What a broker does after a crash: a receipt of fee 0 for whatever was at work."""
        for request_id, signed in self.vouchers.items():
            if request_id not in self.receipts:
                self._finish(signed, Usage(), EMPTY_RESPONSE_HASH, FinishReason.ERROR, b"")


def _chunk(delta: dict[str, Any] | None, usage: Usage | None = None) -> bytes:
    chunk: dict[str, Any] = {
        "object": "chat.completion.chunk",
        "choices": [] if delta is None else [{"index": 0, "delta": delta}],
    }
    if usage is not None:
        chunk["usage"] = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
        }
    return msgspec.json.encode(chunk)


async def _send(send: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
    raw = [(k.encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_json(send: Any, status: int, content: object) -> None:
    headers = {"content-type": "application/json"}
    await _send(send, status, msgspec.json.encode(content), headers)
