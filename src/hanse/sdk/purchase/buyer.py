"""Buying one answer: choose a provider, sign, send, and count what comes back.

A request tries a few providers in the order of the match. Each attempt has a voucher and a request
id of its own. What becomes of an attempt's voucher follows the table in `refusals`; a failure whose
outcome is unknown leaves it in flight, and `resume` finds out. As long as nothing of an answer was
handed to the caller the next provider may be tried; afterwards never.

Source: `docs/protocol.md`; `docs/decisions/0009-user-side.md`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hanse.market import Candidate, Choice, Chooser, HealthBook, Needs, OfferIndex
from hanse.market.stages import STAGES, Stages
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError, TransientError, VerificationError
from hanse.protocol.hashing import hash_body
from hanse.protocol.messages import Request, SignedReceipt
from hanse.protocol.signatures import Address, DigestSigner
from hanse.protocol.wire import (
    ANSWER_KEY_BYTES,
    RECEIPT_HEADER,
    decode_receipt,
    encode_voucher_header,
)
from hanse.sdk.purchase.answer import Answer
from hanse.sdk.purchase.ask import Ask
from hanse.sdk.purchase.background import Background
from hanse.sdk.purchase.capture import Capture
from hanse.sdk.purchase.checking import (
    CheckedReceipt,
    Received,
    Terms,
    check_receipt,
    hold_against,
)
from hanse.sdk.purchase.funding import Funding
from hanse.sdk.purchase.refusals import ERROR_BODY_BYTES_MAX, Refusal, read_refusal
from hanse.sdk.purchase.underway import UnderWay
from hanse.sdk.transport import (
    BrokenError,
    NotSentError,
    Response,
    Transport,
    TransportLimits,
    read_body,
)
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_book import Purchase, VoucherBook
from hanse.settlement.books.voucher_records import SubAccountKey
from hanse.settlement.keeping.keeper import AnswerKeeper, begin_captures
from hanse.settlement.traces.sealing import ENCRYPTION_KEY_HEADER
from hanse.settlement.traces.writer import TraceWriter

_log = logging.getLogger(__name__)

PROVIDERS_TRIED_MAX = 3
"""Providers that one request tries: with each, one more maximum fee may be in flight."""

DEADLINE_S = 120
"""A broker must admit within this; short, so that money of lost requests is free again soon."""

MISSED_RECEIPTS_S = 60.0
"""For all receipts that a 402 says are missing: a caller waits for them."""

_BUSY = ("rate_limited", "overloaded")
"""Refusals of a provider that is well, but has no place free now."""

_NO_FAULT = ("insufficient_balance", "sub_account_unknown", "unsupported_parameter")
"""Refusals that pass once both sides have seen the same block, or that are the engine's own."""


@dataclass(frozen=True)
class BuyerParts:
    """What a buyer works with; everything with a clock, a disk or a network is passed in.

    Attributes:
        domain: of all signatures.
        user: whose sub-accounts pay.
        signer: their signer.
        book: the durable book.
        offers, health, funding: the market as it is known now.
        chooser: chooses among its providers.
        transport, limits: to the brokers.
        clock: unix seconds.
        random_bytes: for request ids and answer keys.
        capture: keeps signed receipts that are refused.
        traces: keeps bodies and answers, encrypted; None for no traces.
        keeper: keeps answers that an auditor may draw; None to keep none.
    """

    domain: Domain
    user: Address
    signer: DigestSigner
    book: VoucherBook
    offers: OfferIndex
    health: HealthBook
    chooser: Chooser
    funding: Funding
    transport: Transport
    limits: TransportLimits
    clock: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    capture: Capture

    traces: TraceWriter | None = None
    keeper: AnswerKeeper | None = None

    def get_key(self, provider: Address) -> SubAccountKey:
        """The sub-account that pays this provider."""
        return SubAccountKey(self.user, provider, self.signer.address)


class Buyer:
    """Buys answers.

    `find_out` is called with a provider whose receipts should be fetched behind; `count_receipts`
    takes the receipts that come with a 402 (both are `hanse.sdk.purchase.resume.Resumer`'s).
    """

    def __init__(
        self,
        parts: BuyerParts,
        background: Background,
        *,
        find_out: Callable[[Address], None],
        count_receipts: Callable[[Address, list[Any], bool], Coroutine[Any, Any, None]],
        rediscover: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._background = background
        self._find_out = find_out
        self._count_receipts = count_receipts
        self._rediscover = rediscover
        board = parts.chooser.board
        self.active = UnderWay(board.presence, board.measured, parts.clock)

    async def buy(self, ask: Ask, needs: Needs, asked: list[Address] | None = None) -> Answer:
        """Get one answer begun; `asked` gets the address of each provider before it is turned to.

        Raises:
            HanseError: see `hanse.sdk`.
        """
        failures: list[HanseError] = []
        stages = STAGES.get()
        declined: list[tuple[Address, str]] = []
        for _ in range(PROVIDERS_TRIED_MAX):
            began_s = stages.now() if stages is not None else 0.0
            choice = self._choose(ask, needs, failures)
            candidate = choice.candidate
            if stages is not None:
                stages.add("match", began_s)
            self._parts.health.begin(candidate.listed.provider)
            if asked is not None:
                asked.append(candidate.listed.provider)
            try:
                answer = await self._send(ask, candidate, stages)
                if isinstance(answer, Refusal):
                    answer = await self._answer_refusal(ask, candidate, answer)
                for provider, reason in declined:
                    self._parts.health.report_declined(provider, reason)
                answer.choice = choice
                return answer
            except _NextProviderError as following:
                failures.append(following.error)
                if following.error.code in _NO_FAULT:
                    declined.append((candidate.listed.provider, following.error.message))
                needs = replace(needs, excluded=needs.excluded | {candidate.listed.provider})
        raise _get_final(failures)

    async def settle(
        self, terms: Terms, signed: SignedReceipt | None, received: Received
    ) -> CheckedReceipt:
        """Check and count the receipt of an answer that has ended; see `Settler`."""
        provider = terms.offer.provider
        request_id = terms.voucher.request.request_id
        try:
            if signed is None:
                raise VerificationError(
                    "receipt_invalid", f"the answer of {provider} ended without a receipt"
                )
            checked = check_receipt(signed, terms, self._parts.domain, received)
            self.active.measure(request_id, checked.signed.receipt)
            await self._acknowledge(provider, checked)
        except VerificationError as error:
            self._parts.health.report_dishonest(provider, error.message)
            if signed is not None:
                await self._parts.capture.keep(signed, error.message)
            await self._note(request_id, received)
            self._find_out(provider)
            raise
        finally:
            self.active.discard(request_id)
        return checked

    def abandon(
        self, terms: Terms, received: Received, reason: str, seen: Sequence[SignedReceipt] = ()
    ) -> None:
        """See `Settler`."""
        provider = terms.offer.provider
        request_id = terms.voucher.request.request_id
        if reason:
            self._parts.health.report_failure(provider, reason)

        async def find_out() -> None:
            try:
                for signed in seen:
                    await self._parts.capture.keep(
                        signed, reason or "its answer was not read to the end"
                    )
                await self._note(request_id, received)
            except TransientError as error:  # a full disk: its receipt is only compared with less
                _log.warning("what came of request %s is not kept: %s", request_id, error.message)
            finally:
                self.active.discard(request_id)
                self._find_out(provider)

        self._background.start(find_out())

    def _choose(self, ask: Ask, needs: Needs, failures: list[HanseError]) -> Choice:
        shape = ask.get_shape(needs.session)
        try:
            return self._parts.chooser.choose(shape, needs, self._parts.clock())
        except HanseError:
            if failures:
                raise _get_final(failures) from None
            raise

    async def _answer_refusal(self, ask: Ask, candidate: Candidate, refusal: Refusal) -> Answer:
        """Count the receipts that it says are missing and ask once more, or judge it."""
        if refusal.error.code == "voucher_too_low":
            receipts = refusal.details.get("receipts")
            more = bool(refusal.details.get("more", True))
            provider = candidate.listed.provider
            try:
                async with asyncio.timeout(min(MISSED_RECEIPTS_S, self._parts.limits.total_s)):
                    await self._count_receipts(
                        provider, receipts if isinstance(receipts, list) else [], more
                    )
            except TimeoutError:
                late = BrokenError("the receipts that it says are missing do not come to an end")
                raise self._fail(provider, late) from None
            except VerificationError as error:
                self._parts.health.report_dishonest(provider, error.message)
                raise _NextProviderError(error) from None
            except (TransientError, RequestError) as error:  # it answers no query for them
                self._parts.health.report_failure(provider, error.message)
                raise _NextProviderError(error) from None
            answer = await self._send(ask, candidate, STAGES.get())
            if isinstance(answer, Answer):
                return answer
            refusal = answer
        raise self._judge(candidate.listed.provider, refusal)

    async def _send(
        self, ask: Ask, candidate: Candidate, stages: Stages | None
    ) -> Answer | Refusal:
        """One voucher, one exchange up to the head."""
        parts, listed = self._parts, candidate.listed
        provider = listed.provider
        began_s = stages.now() if stages is not None else 0.0
        terms, header = await self._sign(ask, candidate)
        if stages is not None:
            stages.add("sign", began_s, provider)
            began_s = stages.now()
        request_id = terms.voucher.request.request_id
        self.active.begin(request_id, listed.offer, is_stream=ask.is_stream)
        try:
            response = await parts.transport.send(
                "POST",
                listed.endpoint + ask.path,
                self._get_headers(header, ask, stages),
                ask.body,
                silence_s=parts.limits.silence_s if ask.is_stream else parts.limits.whole_s,
            )
        except NotSentError as error:
            self.active.discard(request_id)
            await self._release(provider, request_id, error.message)
            raise self._fail(provider, error) from None
        except BrokenError as error:
            self.active.discard(request_id)
            self._find_out(provider)
            raise self._fail(provider, error) from None
        except BaseException:  # the caller left: the request may have been served
            self.active.discard(request_id)
            self._find_out(provider)
            raise
        if stages is not None:
            stages.add("head", began_s, provider)
        if response.status == 200:
            parts.health.report_success(provider, self.active.note_head(request_id))
            trace = begin_captures(
                parts.traces, parts.keeper, terms.offer, terms.voucher, ask.path, ask.body
            )
            return Answer(
                self,
                terms,
                response,
                is_stream=ask.is_stream,
                trace=trace,
                asks_usage=ask.asks_usage,
                hides_usage=ask.hides_usage,
            )
        try:
            return await self._read_refusal(terms, response)
        finally:
            self.active.discard(request_id)

    def _get_headers(self, authorization: str, ask: Ask, stages: Stages | None) -> dict[str, str]:
        headers = {"authorization": authorization, "content-type": ask.body_type}
        if stages is not None and stages.traceparent:
            headers["traceparent"] = stages.traceparent
        if self._parts.traces is not None:
            headers[ENCRYPTION_KEY_HEADER] = self._parts.traces.settings.encryption_key
        return headers

    async def _sign(self, ask: Ask, candidate: Candidate) -> tuple[Terms, str]:
        parts, listed = self._parts, candidate.listed
        provider, now_s = listed.provider, int(parts.clock())
        random = parts.random_bytes(32 + ANSWER_KEY_BYTES)  # one call into the kernel
        request = Request(
            listed.offer_hash,
            hash_body(ask.path, ask.body),
            candidate.maximum_fee,
            "0x" + random[:32].hex(),
            now_s + DEADLINE_S,
        )
        purchase = Purchase(
            request,
            ask.path,
            listed.signed,
            listed.receipt_key,
            random[32:],
            len(ask.body),
            candidate.output_tokens_max,
        )
        funds = parts.funding.find_funds(provider) or SubAccountFunds(0, 0)
        try:
            issued = await parts.book.issue(
                parts.get_key(provider), purchase, funds, parts.signer, now_s
            )
        except (RequestError, TransientError, VerificationError) as error:
            if error.code == "store_unavailable":
                raise
            if isinstance(error, VerificationError):
                parts.health.report_dishonest(provider, error.message)
            raise _NextProviderError(error) from None
        parts.funding.note(provider, issued.book)
        header = encode_voucher_header(issued.signed, issued.book.acknowledged, purchase.answer_key)
        terms = Terms(
            issued.signed,
            listed.offer,
            listed.receipt_key,
            len(ask.body),
            candidate.output_tokens_max,
            now_s,
        )
        return terms, header

    async def _read_refusal(self, terms: Terms, response: Response) -> Refusal:
        provider = terms.offer.provider
        request_id = terms.voucher.request.request_id
        try:
            body = await read_body(response, ERROR_BODY_BYTES_MAX)
        except BrokenError as error:
            self._find_out(provider)
            raise self._fail(provider, error) from None
        finally:
            response.close()
        refusal = read_refusal(provider, response.status, body, response.find_header("retry-after"))
        header = response.find_header(RECEIPT_HEADER)
        if header:
            await self._count_failed(terms, header)
        elif refusal.is_explicit:
            await self._release(provider, request_id, refusal.error.code)
        else:
            self._find_out(provider)
        return refusal

    async def _count_failed(self, terms: Terms, header: str) -> None:
        """Count the receipt of a request that was admitted and then failed."""
        provider = terms.offer.provider
        nothing = Received(None, 0, False)
        signed: SignedReceipt | None = None
        try:
            signed = decode_receipt(header)
            checked = check_receipt(signed, terms, self._parts.domain, nothing)
            if checked.fee:
                raise VerificationError(
                    "receipt_invalid", f"{provider} charges {checked.fee} for an error"
                )
            await self._acknowledge(provider, checked)
        except VerificationError as error:
            self._parts.health.report_dishonest(provider, error.message)
            if signed is not None:
                await self._parts.capture.keep(signed, error.message)
            self._find_out(provider)
            raise _NextProviderError(error) from None

    def _judge(self, provider: Address, refusal: Refusal) -> HanseError:
        """The next provider's turn, or the caller's error."""
        error, health = refusal.error, self._parts.health
        if error.code in _BUSY:
            health.report_busy(provider, error.message)
        elif isinstance(error, TransientError):
            health.report_failure(provider, error.message, error.retry_after_s)
        elif error.code == "offer_changed":
            self._rediscover()
        elif refusal.is_elsewhere and error.code not in _NO_FAULT:
            health.report_failure(provider, error.message)
        else:
            health.report_there(provider)
        return _NextProviderError(error) if refusal.is_elsewhere else error

    def _fail(self, provider: Address, error: TransientError) -> "_NextProviderError":
        self._parts.health.report_failure(provider, error.message)
        return _NextProviderError(
            TransientError(error.code, f"provider {provider}: {error.message}")
        )

    async def _acknowledge(self, provider: Address, checked: CheckedReceipt) -> None:
        parts = self._parts
        book = await parts.book.acknowledge(
            checked.signed,
            checked.verification,
            reason=checked.reason,
            now_s=int(parts.clock()),
        )
        parts.funding.note(provider, book)
        if checked.reason:
            hold_against(parts.health, provider, checked)

    async def _release(self, provider: Address, request_id: str, reason: str) -> None:
        self._parts.funding.note(provider, await self._parts.book.release(request_id, reason))

    async def _note(self, request_id: str, received: Received) -> None:
        if received.response_hash is not None:
            await self._parts.book.note_response(
                request_id,
                received.response_hash,
                received.length_bytes,
                is_complete=received.is_complete,
            )


class _NextProviderError(HanseError):
    """This provider did not serve it; `error` says why."""

    def __init__(self, error: HanseError) -> None:
        super().__init__(error.code, error.message)
        self.error = error


def _get_final(failures: list[HanseError]) -> HanseError:
    """The error for a request that every tried provider failed.

    A shortage of money comes first, since the caller can mend it; else the last one counts.
    """
    for error in failures:
        if error.code in ("insufficient_balance", "sub_account_unknown"):
            return error
    last = failures[-1]
    if isinstance(last, RequestError | VerificationError) or len(failures) == 1:
        return last
    shown = "; ".join(error.message for error in failures)
    return TransientError("no_provider", f"{len(failures)} providers were tried: {shown}")
