"""A broker over the echo engine and a static chain view, and a caller that speaks by hand."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanse.chain import Key
from hanse.engines.echo_engine import EchoEngine, Settings
from hanse.protocol.books import UserBook
from hanse.protocol.eip712 import Domain
from hanse.protocol.hashing import ResponseHasher, hash_body, hash_response
from hanse.protocol.messages import (
    Offer,
    Prices,
    Query,
    Request,
    SignedReceipt,
    SignedVoucher,
    Voucher,
)
from hanse.protocol.pricing import get_maximum_fee
from hanse.protocol.signatures import to_bytes, to_hex
from hanse.protocol.verify import verify_receipt, verify_receipt_signature
from hanse.protocol.wire import (
    decode_receipt,
    encode_query_header,
    encode_voucher_header,
    receipt_from_json,
)
from hanse.provider import (
    Broker,
    OfferBook,
    Service,
    ServingLimits,
    StaticChainView,
)
from hanse.provider.attesting import Attesting
from hanse.provider.cheating import HONEST, BrokerCheats
from hanse.provider.finishing import Failpoint
from hanse.serving import HttpServer
from hanse.settlement import ReceiptBook, SubAccountFunds, open_receipt_book
from hanse.settlement.openings.opening_book import open_opening_book
from hanse.store import Transaction, is_shared, open_database
from hanse.store.leases import LeaseTerms, join_group
from tests.provider.offer_parts import put_on_offer
from tests.waiting import until as until

CHAT = "/v1/chat/completions"
DOMAIN = Domain(31_337, "0x" + "e5" * 20)
PROVIDER = "0x" + "b2" * 20
USER = "0x" + "a1" * 20
RECEIPT_KEY = Key(b"\x02" * 32)
SIGNER_KEY = Key(b"\x01" * 32)
STRANGER_KEY = Key(b"\x03" * 32)
PRICES = Prices(100_000, 50_000, 300_000)
FUNDS = 10**12
QUICK_LEASE = LeaseTerms(beat_s=0.1, missed_max=10)


def no_failpoint(name: str) -> None:
    pass


@dataclass
class BrokerHere:
    """A broker that serves on a loopback port of this process."""

    broker: Broker
    book: ReceiptBook
    view: StaticChainView
    engine: EchoEngine
    offer: Offer
    url: str


@contextlib.asynccontextmanager
async def run_broker_here(
    path: Path | str = ":memory:",
    *,
    limits: ServingLimits | None = None,
    failpoint: Failpoint = no_failpoint,
    funds: int = FUNDS,
    port: int = 0,
    attesting: Attesting | None = None,
    engine: type[EchoEngine] = EchoEngine,
    cheats: BrokerCheats = HONEST,
    **engine_settings: Any,
) -> AsyncIterator[BrokerHere]:
    database = await open_database(path, is_served=True)
    membership = None
    if is_shared(path):
        name = f"broker-{os.urandom(4).hex()}"
        membership = await join_group(database, "broker", name, "here", QUICK_LEASE)
    book = await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY, membership)
    await book.recover(int(time.time()))
    beating = asyncio.create_task(beat(book)) if membership else None
    view = StaticChainView()
    view.set_funds(USER, SIGNER_KEY.address, SubAccountFunds(funds, 0))
    running = engine(Settings(**engine_settings))
    await running.start()
    service = Service(1, running, PRICES)
    offers = OfferBook(time.time)
    await put_on_offer(
        offers,
        service,
        provider=PROVIDER,
        url="http://127.0.0.1:1",
        domain=DOMAIN,
        receipt_key=RECEIPT_KEY,
        valid_until=2_000_000_000 + 86_400,
    )
    (current,) = offers.list_current()
    broker = Broker(
        provider=PROVIDER,
        domain=DOMAIN,
        book=book,
        chain_view=view,
        offers=offers,
        limits=limits,
        failpoint=failpoint,
        attesting=attesting,
        openings=await open_opening_book(database),
        cheats=cheats,
    )
    server = HttpServer.bind("127.0.0.1", port)
    await server.start(broker)
    broker.admitting = True
    try:
        yield BrokerHere(broker, book, view, running, current.signed.offer, server.url)
    finally:
        await server.stop()
        await running.close()
        if beating is not None and membership is not None:
            beating.cancel()
            await membership.leave()
        await database.close()


async def beat(book: ReceiptBook) -> None:
    def close(tx: Transaction, name: str) -> None:
        book.recover_within(tx, int(time.time()))

    assert book.membership is not None
    await book.membership.run(close, lambda: None)


@dataclass
class Reply:
    """What came back: status, headers, the answer's bytes that are hashed, and the receipt."""

    status: int
    headers: dict[str, str]
    body: bytes
    frames: list[bytes] = field(default_factory=list)
    receipt: SignedReceipt | None = None
    ended: bool = False

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]

    @property
    def response_hash(self) -> str:
        if not self.frames:
            return hash_response(self.body)
        hasher = ResponseHasher()
        for frame in self.frames:
            hasher.update(frame)
        return hasher.get_hash()


@dataclass
class Signed:
    """One request, signed and ready to send."""

    voucher: SignedVoucher
    header: str
    body: bytes
    answer_key: bytes
    path: str = CHAT


class Caller:
    """The user's side by hand: signs, sends, checks."""

    def __init__(
        self,
        url: str,
        offer: Offer,
        key: Key = SIGNER_KEY,
        user: str = USER,
        *,
        domain: Domain = DOMAIN,
        provider: str = PROVIDER,
        receipt_key: str = RECEIPT_KEY.address,
    ) -> None:
        self.url = url
        self.domain = domain
        self.provider = provider
        self.receipt_key = receipt_key
        self.offer = offer
        self.key = key
        self.user = user
        self.book = UserBook()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(120)
        )

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    def sign(
        self,
        body: dict[str, Any] | bytes | None = None,
        *,
        path: str = CHAT,
        stream: bool = False,
        maximum_fee: int | None = None,
        committed: int | None = None,
        sequence_max: int | None = None,
        request_id: str = "",
        deadline: int = 0,
        offer_hash: str = "",
        provider: str = "",
        key: Key | None = None,
    ) -> Signed:
        if body is None:
            body = chat_body(stream=stream)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if maximum_fee is None:
            tokens = self.offer.output_tokens_max
            with contextlib.suppress(ValueError, AttributeError):
                tokens = json.loads(data).get("max_tokens") or tokens
            maximum_fee = get_maximum_fee(self.offer, len(data), int(tokens))
        request = Request(
            offer_hash or to_hex(self.offer.struct_hash()),
            hash_body(path, data),
            maximum_fee,
            request_id or to_hex(os.urandom(32)),
            deadline or int(time.time()) + 600,
        )
        if committed is None:
            committed = self.book.committed + maximum_fee
        if sequence_max is None:
            sequence_max = self.book.acknowledged + self.book.in_flight + 1
        voucher = Voucher(
            self.user,
            provider or self.provider,
            committed,
            sequence_max,
            to_hex(request.struct_hash()),
        )
        digest = self.domain.digest(voucher.struct_hash())
        signed = SignedVoucher(
            voucher, request, self.key.address, (key or self.key).sign_digest(digest)
        )
        answer_key = os.urandom(32)
        header = encode_voucher_header(signed, self.book.acknowledged, answer_key)
        return Signed(signed, header, data, answer_key, path)

    async def send(self, signed: Signed, *, stop_after: int | None = None) -> Reply:
        """Send; `stop_after` hangs up after so many frames."""
        async with self.session.post(
            self.url + signed.path, data=signed.body, headers={"Authorization": signed.header}
        ) as response:
            headers = {key.lower(): value for key, value in response.headers.items()}
            if "text/event-stream" not in headers.get("content-type", ""):
                reply = Reply(response.status, headers, await response.read(), ended=True)
                if "hanse-receipt" in headers:
                    reply.receipt = decode_receipt(headers["hanse-receipt"])
                return reply
            reply = Reply(response.status, headers, b"")
            await self._read_stream(response, reply, stop_after)
            if stop_after is not None:
                response.close()
            return reply

    async def _read_stream(
        self, response: aiohttp.ClientResponse, reply: Reply, stop_after: int | None
    ) -> None:
        buffer = b""
        with contextlib.suppress(aiohttp.ClientError):
            async for part in response.content.iter_any():
                buffer += part
                while b"\n\n" in buffer:
                    frame, _, buffer = buffer.partition(b"\n\n")
                    frame += b"\n\n"
                    if frame.startswith(b": hanse-receipt "):
                        reply.receipt = decode_receipt(frame[16:].decode())
                    elif frame.startswith(b"data: "):
                        reply.frames.append(frame)
                        reply.ended = frame == b"data: [DONE]\n\n"
                    if stop_after is not None and len(reply.frames) >= stop_after:
                        return

    async def buy(self, body: dict[str, Any] | None = None, **options: Any) -> Reply:
        """Sign, send, check the receipt, and acknowledge it."""
        signed = self.sign(body, **options)
        reply = await self.send(signed)
        assert reply.status == 200, reply.body
        self.check(signed, reply)
        assert reply.receipt is not None
        self.acknowledge(reply.receipt)
        return reply

    def check(self, signed: Signed, reply: Reply) -> None:
        assert reply.receipt is not None
        verify_receipt_signature(reply.receipt, self.domain, self.receipt_key)
        verify_receipt(reply.receipt, signed.voucher, self.offer, reply.response_hash)

    def acknowledge(self, receipt: SignedReceipt) -> None:
        self.book = UserBook(receipt.receipt.sequence, receipt.receipt.cumulative_fee)

    def sign_query(
        self, after: int = 0, deadline: int = 0, key: Key | None = None, provider: str = ""
    ) -> str:
        query = Query(
            self.user,
            provider or self.provider,
            self.key.address,
            after,
            deadline or int(time.time()) + 60,
        )
        digest = self.domain.digest(query.struct_hash())
        return encode_query_header(query, (key or self.key).sign_digest(digest))

    async def get(self, path: str, header: str | None = None) -> Reply:
        headers = {"Authorization": header} if header else {}
        async with self.session.get(self.url + path, headers=headers) as response:
            return Reply(response.status, dict(response.headers), await response.read())

    async def fetch_receipts(self, after: int = 0) -> tuple[dict[str, Any], list[SignedReceipt]]:
        reply = await self.get("/hanse/v1/receipts", self.sign_query(after))
        assert reply.status == 200, reply.body
        data = json.loads(reply.body)
        return data, [receipt_from_json(item["receipt"]) for item in data["receipts"]]

    async def fetch_answer(self, signed: Signed) -> bytes | None:
        request_id = signed.voucher.request.request_id
        reply = await self.get(f"/hanse/v1/answers/{request_id}", self.sign_query())
        if reply.status == 404:
            return None
        assert reply.status == 200
        sealed, data = reply.body, to_bytes(request_id)
        return AESGCM(signed.answer_key).decrypt(sealed[:12], sealed[12:], data)


@contextlib.asynccontextmanager
async def selling(
    path: Path | str = ":memory:", **options: Any
) -> AsyncIterator[tuple[BrokerHere, Caller]]:
    """A broker and one caller of it."""
    async with run_broker_here(path, **options) as here, Caller(here.url, here.offer) as caller:
        yield here, caller


def chat_body(words: str = "one two three", *, stream: bool = False, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "echo-fake",
        "messages": [{"role": "user", "content": words}],
        "max_tokens": 8,
        **more,
    }
    return {**body, "stream": True} if stream else body
