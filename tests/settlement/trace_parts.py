"""What tests of traces share: a made request with its receipt, a writer, and S3 on loopback.

The S3 server is moto's (`ThreadedMotoServer`, over Flask): it speaks S3's HTTP, keeps versions if a
bucket asks for it, and does not check signatures.
"""

import contextlib
import hashlib
import json
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hanse.protocol.hashing import hash_body, hash_response
from hanse.protocol.messages import SignedReceipt, SignedVoucher
from hanse.protocol.signatures import ZERO_HASH, Hash32
from hanse.settlement.traces.capture import TraceLimits, TraceSettings
from hanse.settlement.traces.document import Side, Trace
from hanse.settlement.traces.notes import TraceNotes, open_trace_notes
from hanse.settlement.traces.object_store import ObjectStore, open_memory_store
from hanse.settlement.traces.sealing import get_public_key
from hanse.settlement.traces.writer import TraceWriter
from hanse.store import Database
from tests.protocol.made_messages import NOW_S, make_receipt, make_voucher

PATH = "/v1/chat/completions"
PROMPT = b"a prompt that nobody else may read"
BODY = json.dumps({"model": "echo", "prompt": PROMPT.decode()}).encode()
RESPONSE = b'data: {"text":"an answer that nobody else may read"}\n\ndata: [DONE]\n\n'

USER_PRIVATE = X25519PrivateKey.from_private_bytes(b"\x11" * 32)
PROVIDER_PRIVATE = X25519PrivateKey.from_private_bytes(b"\x12" * 32)
STRANGER_PRIVATE = X25519PrivateKey.from_private_bytes(b"\x13" * 32)
USER_PUBLIC, PROVIDER_PUBLIC = get_public_key(USER_PRIVATE), get_public_key(PROVIDER_PRIVATE)

LOW_ORDER = [
    "0x" + bytes(raw).hex()
    for raw in (
        b"\x01".ljust(32, b"\x00"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    )
]
"""The points of small order on Curve25519 and their other spellings (RFC 7748, section 6.1)."""


def make_request(
    number: int = 1, body: bytes = BODY, response: bytes = RESPONSE
) -> tuple[SignedVoucher, SignedReceipt]:
    """Voucher and receipt of one request, told apart by its number."""
    request_id = "0x" + hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
    voucher = make_voucher(body_hash=hash_body(PATH, body), request_id=request_id)
    receipt = make_receipt(voucher, sequence=number, response_hash=hash_response(response))
    return voucher, receipt


def make_trace(
    number: int = 1, body: bytes = BODY, response: bytes = RESPONSE, side: Side = Side.PROVIDER
) -> Trace:
    voucher, receipt = make_request(number, body, response)
    return Trace(side, voucher.request, receipt, PATH, body, response)


class Clock:
    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


@contextlib.asynccontextmanager
async def run_writer(
    database: Database,
    store: ObjectStore | None = None,
    *,
    clock: Callable[[], float] | None = None,
    failpoint: Callable[[str], None] = lambda name: None,
    days: int = 30,
    **limits: Any,
) -> AsyncIterator[TraceWriter]:
    """A provider's writer at work; tries and waits are short."""
    settings = TraceSettings(
        "ignored",
        PROVIDER_PUBLIC,
        days,
        TraceLimits(**{"pauses_s": (0.0, 0.0), "drain_s": 5.0, **limits}),
    )
    notes = await open_trace_notes(database)
    store = store or open_memory_store()
    writer = TraceWriter(settings, notes, store, Side.PROVIDER, clock or Clock(), failpoint)
    async with writer:
        yield writer


def record(
    writer: TraceWriter, number: int = 1, other_key: Hash32 = USER_PUBLIC, **parts: bytes
) -> SignedReceipt:
    """One request from its begin to its end, as the broker's hooks do it."""
    voucher, receipt = make_request(number, **parts)
    capture = writer.begin(voucher, PATH, parts.get("body", BODY), other_key)
    if capture is not None:
        response = parts.get("response", RESPONSE)
        capture.add(response[:20])
        capture.add(response[20:])
        capture.end(receipt)
    return receipt


async def get_only_note(notes: TraceNotes) -> Any:
    (note,) = await notes.list_newest(10)
    return note


def read_all(folder: Path) -> bytes:
    """Every byte of every file below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


class S3Server:
    """An S3-speaking server and one bucket of its."""

    def __init__(self, url: str) -> None:
        self.url = url

    def location(self, bucket: str, prefix: str = "hanse") -> str:
        return f"s3://{bucket}/{prefix}?endpoint={self.url}&region=us-east-1"

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}/{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def run_s3() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


__all__ = ["ZERO_HASH", "S3Server", "make_trace", "record", "run_s3", "run_writer"]
