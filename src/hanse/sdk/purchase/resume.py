"""Finding out what became of requests whose end is unknown.

After a crash, a cut stream, a time-out or a refusal that nobody could read, a voucher is in flight
without a receipt. Resume asks the broker, with a signed query, for the receipts after the last one
held, checks and counts them, and releases what the broker cannot admit any more: neither receipted
nor at work, and its deadline passed.

A receipt for an answer that came whole, or for exactly the prefix that came, is verified by the
stored hash. Where more was sent than arrived, the hash over the prefix cannot be extended, so the
answer itself is fetched (it is kept sealed at the broker) and hashed. Without it the receipt is
counted as `unverified` and shown as such: the voucher lets the provider claim it anyway, up to its
maximum.

Source: `docs/protocol.md`, section "Resume"; `docs/decisions/0009-user-side.md`.
"""

import asyncio
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanse.protocol.errors import (
    HanseError,
    RequestError,
    TransientError,
    VerificationError,
)
from hanse.protocol.hashing import hash_response
from hanse.protocol.limits import (
    ANSWER_RETAINED_BYTES_MAX,
    CLOCK_SKEW_S_MAX,
    QUERY_VALID_S_MAX,
)
from hanse.protocol.messages import Query, SignedReceipt
from hanse.protocol.signatures import Address, Hash32, to_bytes
from hanse.protocol.verify import verify_receipt_signature
from hanse.protocol.wire import encode_query_header, receipt_from_json
from hanse.sdk.purchase.background import Background
from hanse.sdk.purchase.buyer import BuyerParts
from hanse.sdk.purchase.checking import (
    CheckedReceipt,
    Received,
    Terms,
    check_receipt,
    find_usage_source,
    hold_against,
)
from hanse.sdk.purchase.refusals import read_refusal
from hanse.sdk.transport import BrokenError, NotSentError, read_body
from hanse.settlement.books.voucher_records import (
    StoredVoucher,
    Verification,
    VoucherState,
)

PAGES_MAX = 200
"""Pages of receipts in one round: 100,000 receipts; the next round goes on."""

PAGE_BYTES_MAX = 1024 * 1024
"""500 receipts of about 1 kB, with room."""

QUERY_S = 10.0
"""A broker answers queries from its books at once; one that hangs must not hold up a start."""

QUERY_WHOLE_S = 60.0
"""For a whole page, a MiB at most: bytes that drip are no silence, and must not hold up a start."""

NONCE_BYTES = 12
TAG_BYTES = 16

RETRY_PAUSES_S = (0.1, 0.5, 2.0, 8.0)
"""Behind a cut answer: a broker needs a moment to notice, to sign and to store. What is still
unknown afterwards is left to the periodic round."""


@dataclass
class ResumeReport:
    """What one round found out about one provider."""

    provider: Address
    counted: int = 0
    released: int = 0
    unverified: int = 0
    still_open: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FetchedAnswer:
    """The bytes of an answer, unsealed.

    `is_whole` is False if the answer was longer than what brokers keep; then it is its end, and
    `is_verified` cannot be True.
    """

    request_id: Hash32
    body: bytes
    is_whole: bool
    is_verified: bool


class _Item(msgspec.Struct):
    receipt: Any
    request_id: str | None = None


class _Page(msgspec.Struct):
    receipts: list[_Item]
    in_flight: list[str] = []
    more: bool = False


class Resumer:
    """Asks brokers for what is missing."""

    def __init__(
        self, parts: BuyerParts, background: Background, *, find_active: Callable[[], Set[str]]
    ) -> None:
        self._parts = parts
        self._background = background
        self._find_active = find_active
        self._locks: dict[Address, asyncio.Lock] = {}
        self._behind: set[Address] = set()

    def find_out(self, provider: Address) -> None:
        """Resume one provider behind, a few times, until nothing of it is open."""
        if provider in self._behind:
            return
        self._behind.add(provider)
        self._background.start(self._find_out(provider))

    async def resume(self, *, adopt: bool = False) -> list[ResumeReport]:
        """One round over every provider with a request of unknown end.

        Args:
            adopt: also ask every other provider, and take receipts for requests that this book
                never saw (a lost database) on the provider's signature.
        """
        providers = {v.signed.voucher.provider for v in await self._list_open()}
        if adopt:
            providers |= {listed.provider for listed in self._parts.offers.list_all()}
        await self._parts.book.sweep_keys(int(self._parts.clock()))
        rounds = (self.resume_provider(p, adopt=adopt) for p in sorted(providers))
        return await asyncio.gather(*rounds)

    async def resume_provider(self, provider: Address, *, adopt: bool = False) -> ResumeReport:
        """One round over one provider; errors are in the report."""
        report = ResumeReport(provider)
        async with self._locks.setdefault(provider, asyncio.Lock()):
            try:
                await self._resume(provider, report, adopt)
            except VerificationError as error:
                self._parts.health.report_dishonest(provider, error.message)
                report.errors.append(error.message)
            except (RequestError, TransientError) as error:
                report.errors.append(error.message)
        report.still_open = len(await self._list_open(provider))
        return report

    async def resume_known(self, provider: Address) -> None:
        """`resume_provider` on a stranger's word: only of those that we have bought from."""
        if await self._parts.book.find_sub_account(self._parts.get_key(provider)) is not None:
            await self.resume_provider(provider)

    async def count_receipts(self, provider: Address, receipts: list[Any], more: bool) -> None:
        """Count receipts that came with a refusal; fetch the rest if there are more.

        Raises:
            VerificationError: one of them is none.
        """
        report = ResumeReport(provider)
        async with self._locks.setdefault(provider, asyncio.Lock()):
            await self._count(provider, _read_items(provider, receipts), report, False)
            if more:
                await self._resume(provider, report, False)

    async def fetch_answer(self, request_id: Hash32) -> FetchedAnswer:
        """Fetch and unseal the answer of one request that is not acknowledged yet.

        Raises:
            RequestError: `not_found` if the request is unknown here, or the broker keeps nothing.
            TransientError: the broker cannot be reached.
            VerificationError: `response_mismatch` if it was not sealed with this request's key.
        """
        voucher = await self._parts.book.find_voucher(request_id)
        if voucher is None:
            raise RequestError("not_found", f"no request {request_id} was made from here")
        if not voucher.answer_key:
            raise RequestError(
                "not_found",
                f"the answer to {request_id} is too old to be kept anywhere: its key is deleted",
            )
        receipt = await self._parts.book.find_receipt(request_id)
        body = await self._fetch_sealed(voucher)
        is_whole = len(body) < ANSWER_RETAINED_BYTES_MAX
        signed_hash = receipt.signed.receipt.response_hash if receipt else None
        return FetchedAnswer(request_id, body, is_whole, hash_response(body) == signed_hash)

    async def _find_out(self, provider: Address) -> None:
        try:
            for pause_s in RETRY_PAUSES_S:
                await asyncio.sleep(pause_s)
                report = await self.resume_provider(provider)
                if report.still_open == 0:
                    return
        finally:
            self._behind.discard(provider)

    async def _resume(self, provider: Address, report: ResumeReport, adopt: bool) -> None:
        before = -1
        for _ in range(PAGES_MAX):
            after = await self._find_acknowledged(provider)
            if after == before:
                break  # nothing new on the page before: there may be more of that for ever
            before, asked_at = after, self._parts.clock()
            page = await self._fetch_page(provider, after)
            await self._count(provider, page.receipts, report, adopt, after)
            if not page.more:
                break
        if not page.more:
            await self._release_forgotten(provider, set(page.in_flight), asked_at, report)

    async def _count(
        self,
        provider: Address,
        items: list[_Item],
        report: ResumeReport,
        adopt: bool,
        after: int | None = None,
    ) -> None:
        for number, item in enumerate(items, 1):
            signed = receipt_from_json(item.receipt)
            expected = None if after is None else after + number
            try:
                await self._count_one(provider, signed, report, adopt, expected)
            except VerificationError as error:
                await self._parts.capture.keep(signed, error.message)
                raise

    async def _count_one(
        self,
        provider: Address,
        signed: SignedReceipt,
        report: ResumeReport,
        adopt: bool,
        expected: int | None,
    ) -> None:
        parts = self._parts
        if expected is not None and signed.receipt.sequence != expected:
            # Behind a gap nothing is acknowledged: the maxima would stay claimable for ever.
            raise VerificationError(
                "receipt_invalid",
                f"receipt {expected} is missing, {provider} shows "
                f"{signed.receipt.sequence} in its place",
            )
        if signed.receipt.provider != provider:
            raise VerificationError("receipt_invalid", "the receipt is another provider's")
        voucher = await parts.book.find_voucher_by_hash(signed.receipt.request_hash)
        if voucher is not None:
            checked = await self._check(voucher, signed)
        elif adopt:
            checked = CheckedReceipt(signed, Verification.ADOPTED, "its request is unknown here")
            self._verify_adopted(signed)
        else:
            raise VerificationError(
                "receipt_invalid",
                f"{provider} has a receipt for a request that was not made from here; if "
                "another machine uses this signer, or the database was lost, resume with adopt",
            )
        book = await parts.book.acknowledge(
            signed, checked.verification, reason=checked.reason, now_s=int(parts.clock())
        )
        parts.funding.note(provider, book)
        report.counted += 1
        report.unverified += not checked.is_compared
        if hold_against(parts.health, provider, checked):
            report.errors.append(checked.reason)

    async def _check(self, voucher: StoredVoucher, signed: SignedReceipt) -> CheckedReceipt:
        terms = Terms(
            voucher.signed,
            voucher.offer.offer,
            voucher.receipt_key,
            voucher.body_bytes,
            voucher.output_tokens_max,
            voucher.issued_at,
        )
        received = Received(voucher.response_hash, voucher.response_bytes, voucher.is_complete)
        try:
            checked = check_receipt(signed, terms, self._parts.domain, received)
        except VerificationError:
            present = self._find_receipt_key(signed.receipt.provider)
            if present in (None, terms.receipt_key):
                raise
            # it changed after the voucher was signed
            terms = msgspec.structs.replace(terms, receipt_key=present)
            checked = check_receipt(signed, terms, self._parts.domain, received)
        if voucher.state is VoucherState.RELEASED and checked.fee:
            reason = f"it refused this request, or had none such, and charges {checked.fee} for it"
            return CheckedReceipt(signed, Verification.MISMATCHED, reason)
        is_active = voucher.signed.request.request_id in self._find_active()
        if checked.is_compared or is_active:
            return checked
        try:
            body = await self._fetch_sealed(voucher)
        except HanseError as error:
            return CheckedReceipt(
                signed, checked.verification, f"{checked.reason}; {error.message}", False
            )
        if len(body) >= ANSWER_RETAINED_BYTES_MAX:
            return checked  # only its end is kept
        prefix_hash = hash_response(body[: voucher.response_bytes])
        if voucher.response_hash not in (None, prefix_hash):
            reason = (
                f"the answer that is kept begins otherwise than the {voucher.response_bytes} "
                "bytes that came"
            )
            return CheckedReceipt(signed, Verification.MISMATCHED, reason)
        fetched = Received(hash_response(body), len(body), True, find_usage_source(body))
        return check_receipt(signed, terms, self._parts.domain, fetched)

    def _verify_adopted(self, signed: SignedReceipt) -> None:
        provider = signed.receipt.provider
        receipt_key = self._find_receipt_key(provider)
        if receipt_key is None:
            raise VerificationError("receipt_invalid", f"no offer of {provider} names its key")
        verify_receipt_signature(signed, self._parts.domain, receipt_key)

    def _find_receipt_key(self, provider: Address) -> Address | None:
        listed = self._parts.offers.list_all()
        return next((offer.receipt_key for offer in listed if offer.provider == provider), None)

    async def _release_forgotten(
        self, provider: Address, in_flight: set[str], asked_at: float, report: ResumeReport
    ) -> None:
        active = self._find_active()
        for voucher in await self._list_open(provider):
            request = voucher.signed.request
            if request.request_id in in_flight or request.request_id in active:
                continue
            # Two honest clocks may differ, and the broker allows for as much once more.
            if asked_at > request.deadline + 2 * CLOCK_SKEW_S_MAX:
                book = await self._parts.book.release(request.request_id, "never admitted")
                self._parts.funding.note(provider, book)
                report.released += 1

    async def _list_open(self, provider: Address | None = None) -> list[StoredVoucher]:
        me = (self._parts.user, self._parts.signer.address)
        return [
            voucher
            for voucher in await self._parts.book.list_open_vouchers()
            if voucher.state is VoucherState.ISSUED
            and (voucher.sub_account.user, voucher.sub_account.signer) == me
            and provider in (None, voucher.sub_account.provider)
        ]

    async def _find_acknowledged(self, provider: Address) -> int:
        known = await self._parts.book.find_sub_account(self._parts.get_key(provider))
        return known.book.acknowledged if known else 0

    async def _fetch_page(self, provider: Address, after: int) -> _Page:
        try:
            body = await self._query(provider, "/hanse/v1/receipts", after, PAGE_BYTES_MAX)
        except RequestError as error:
            if error.code in ("sub_account_unknown", "not_found"):
                return _Page([])  # nothing was ever admitted
            raise
        try:
            return msgspec.json.decode(body, type=_Page)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise VerificationError(
                "response_malformed", f"receipts of {provider}: {error}"[:300]
            ) from None

    async def _fetch_sealed(self, voucher: StoredVoucher) -> bytes:
        request_id = voucher.signed.request.request_id
        provider = voucher.sub_account.provider
        most = ANSWER_RETAINED_BYTES_MAX + NONCE_BYTES + TAG_BYTES
        sealed = await self._query(provider, f"/hanse/v1/answers/{request_id}", 0, most)
        try:
            return AESGCM(voucher.answer_key).decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], to_bytes(request_id)
            )
        except (InvalidTag, ValueError):
            raise VerificationError(
                "response_mismatch",
                "the answer that is kept was not sealed with this request's key",
            ) from None

    async def _query(self, provider: Address, path: str, after: int, bytes_max: int) -> bytes:
        parts = self._parts
        key = parts.get_key(provider)
        deadline = int(parts.clock()) + QUERY_VALID_S_MAX // 2
        query = Query(key.user, provider, key.signer, after, deadline)
        signature = parts.signer.sign_digest(parts.domain.digest(query.struct_hash()))
        headers = {"authorization": encode_query_header(query, signature)}
        failure: TransientError | None = None
        for endpoint in await self._find_endpoints(provider):
            try:
                async with asyncio.timeout(min(QUERY_WHOLE_S, parts.limits.total_s)):
                    status, body = await self._fetch(endpoint + path, headers, bytes_max)
            except (NotSentError, BrokenError) as error:
                failure = error
                continue
            except TimeoutError:
                failure = BrokenError(f"the answer of {provider} to a query does not end")
                continue
            if status == 200:
                return body
            raise read_refusal(provider, status, body, None).error
        raise failure or TransientError(
            "provider_unreachable", f"no endpoint of {provider} is known"
        )

    async def _fetch(self, url: str, headers: dict[str, str], most: int) -> tuple[int, bytes]:
        silence_s = min(QUERY_S, self._parts.limits.silence_s)
        response = await self._parts.transport.send("GET", url, headers, b"", silence_s=silence_s)
        try:
            return response.status, await read_body(response, most)
        finally:
            response.close()

    async def _find_endpoints(self, provider: Address) -> list[str]:
        """Where it answers: by its present offers, else by those that were bought from."""
        found = [
            endpoint
            for listed in self._parts.offers.list_all()
            if listed.provider == provider
            for endpoint in listed.offer.endpoints
        ]
        if not found:
            for voucher in await self._list_open(provider):
                found += voucher.offer.offer.endpoints
        return list(dict.fromkeys(endpoint.rstrip("/") for endpoint in found))


def _read_items(provider: Address, receipts: list[Any]) -> list[_Item]:
    try:
        return msgspec.convert(receipts, list[_Item])
    except msgspec.ValidationError as error:
        raise VerificationError(
            "response_malformed", f"receipts of {provider}: {error}"[:300]
        ) from None
