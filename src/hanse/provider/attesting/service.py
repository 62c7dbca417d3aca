"""What a broker answers to `GET /hanse/v1/attestation/<nonce>`.

Anyone may ask: the answer says nothing that is not meant for everyone, and whoever is about to send
a prompt needs it before there is a sub-account. One quote is made at a time and few may wait, so
that asking cannot keep the machine busy. A broker verifies nothing of what it hands out.

The GPU's evidence is fetched first, because the quote binds its hash.
"""

import asyncio
import base64
from pathlib import Path

import msgspec

from hanse.protocol.attestation.binding import get_report_data
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.signatures import Address, parse_hash32, to_bytes
from hanse.provider.attesting.sources import (
    AttestingSettings,
    Command,
    GpuSource,
    QuoteSource,
    open_quote_source,
)
from hanse.provider.http import NO_STORE, Send, send_bytes
from hanse.verification.attestation import (
    ApplicationEvent,
    Collateral,
    Evidence,
    GpuEvidence,
    encode_evidence,
)
from hanse.verification.attestation.event_log import get_log_size
from hanse.verification.attestation.gpus import NRAS

WAITING_MAX = 16
"""Verifiers that wait for a quote; more are told to come back."""

_JSON = (b"content-type", b"application/json")


class Attesting:
    """Makes attestations of this machine, one at a time."""

    def __init__(
        self,
        settings: AttestingSettings,
        provider: Address,
        receipt_key: Address,
        quotes: QuoteSource,
        gpus: GpuSource | None = None,
    ) -> None:
        self._settings = settings
        self._provider, self._receipt_key = provider, receipt_key
        self._quotes, self._gpus = quotes, gpus
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def attest(self, nonce_text: str) -> bytes:
        """A fresh attestation for a verifier's nonce, as JSON.

        Raises:
            RequestError: `invalid_request`: that is no nonce.
            TransientError: `overloaded`, `engine_unavailable`.
        """
        nonce = parse_hash32(nonce_text, "nonce")
        if self._waiting >= WAITING_MAX:
            raise TransientError(
                "overloaded", f"{WAITING_MAX} wait for a quote already", retry_after_s=1.0
            )
        self._waiting += 1
        try:
            async with self._turn:
                return await self._make(nonce)
        finally:
            self._waiting -= 1

    async def _make(self, nonce: str) -> bytes:
        raw_nonce = to_bytes(nonce)
        gpu = b"" if self._gpus is None else await self._gpus.fetch_evidence(raw_nonce)
        report_data = get_report_data(self._provider, self._receipt_key, raw_nonce, gpu)
        quote = await self._quotes.fetch_quote(report_data)
        collateral, boot_log, events = await asyncio.to_thread(self._read_files)
        return encode_evidence(
            Evidence(
                nonce=nonce,
                provider=self._provider,
                receipt_key=self._receipt_key,
                quote=_pack(quote),
                collateral=collateral,
                boot_log=_pack(boot_log),
                events=events,
                gpu=GpuEvidence(NRAS, _pack(gpu)) if gpu else None,
            )
        )

    def _read_files(self) -> tuple[Collateral, bytes, tuple[ApplicationEvent, ...]]:
        settings = self._settings
        try:
            collateral = msgspec.json.decode(_read(settings.collateral), type=Collateral)
            events = msgspec.json.decode(
                _read(settings.events) or b"[]", type=tuple[ApplicationEvent, ...]
            )
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unreadable(f"collateral or events: {error}"[:200]) from None
        boot_log = _read(settings.boot_log)
        return collateral, boot_log[: get_log_size(boot_log)] if boot_log else b"", events


def open_attesting(
    settings: AttestingSettings | None, provider: Address, receipt_key: Address
) -> Attesting | None:
    """What the settings say; None without any.

    Raises:
        RequestError: `configuration_invalid`.
    """
    if settings is None:
        return None
    gpus = Command(settings.gpu) if settings.gpu else None
    return Attesting(settings, provider, receipt_key, open_quote_source(settings), gpus)


async def send_attestation(attesting: Attesting | None, send: Send, nonce: str) -> None:
    """Answer a verifier.

    Raises:
        RequestError: `not_found` where the broker runs on no machine that attests.
    """
    if attesting is None:
        raise RequestError("not_found", "this broker gives no attestation: it was not set up to")
    await send_bytes(send, 200, await attesting.attest(nonce), (_JSON, NO_STORE))


def _read(path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(f"{path}: {error.strerror}") from None


def _unreadable(what: str) -> TransientError:
    return TransientError("engine_unavailable", f"no attestation can be made: {what}")


def _pack(data: bytes) -> str:
    return base64.b64encode(data).decode()
