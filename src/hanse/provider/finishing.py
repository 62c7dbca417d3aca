"""What a paid request is made of, and how each one ends: with a priced, durable receipt.

Used by both ways of answering (`serve` for whole answers, `streaming` for streams).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from hanse.engines import CheckedFields, Operation
from hanse.protocol.commitments.promises import EMBEDDED
from hanse.protocol.commitments.tree import POSITIONS_MAX, Entry, get_commitment_root
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, TransientError
from hanse.protocol.hashing import EMPTY_RESPONSE_HASH, hash_response
from hanse.protocol.messages import FinishReason, SignedVoucher, Usage
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32
from hanse.protocol.wire import RECEIPT_HEADER, to_base64url
from hanse.provider.chain_view import ChainView
from hanse.provider.cheating import HONEST, BrokerCheats
from hanse.provider.http import Header, Send, encode_error, send_error
from hanse.provider.metrics import BrokerMetrics
from hanse.provider.offers import OfferBook, OfferInForce
from hanse.provider.paid_body import PaidBody
from hanse.provider.sealing import seal_answer
from hanse.provider.settings import ServingLimits
from hanse.settlement import Admission, FinishedRequest, Outcome, ReceiptBook
from hanse.settlement.openings.opening_book import OpeningBook
from hanse.settlement.traces.capture import TraceCapture
from hanse.settlement.traces.writer import TraceWriter
from hanse.store.database import Begun

Failpoint = Callable[[str], None]
"""Told the name of each step that a crash test may want to die at; nothing in production."""

_RECEIPT_HEADER = RECEIPT_HEADER.encode()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServingParts:
    """What the request path works with; all of it is passed in."""

    provider: Address
    domain: Domain
    book: ReceiptBook
    chain_view: ChainView
    offers: OfferBook
    metrics: BrokerMetrics
    limits: ServingLimits
    now_s: Callable[[], float]
    monotonic: Callable[[], float]
    failpoint: Failpoint
    traces: TraceWriter | None = None
    openings: OpeningBook | None = None
    cheats: BrokerCheats = HONEST


class PaidRequest(msgspec.Struct, frozen=True):
    """A request that was checked and may be admitted; `begun` is monotonic time."""

    operation: Operation
    signed: SignedVoucher
    answer_key: bytes
    acknowledged: int
    offer: OfferInForce
    body: PaidBody
    checked: CheckedFields
    begun: float
    trace: TraceCapture | None = None

    @property
    def request_id(self) -> Hash32:
        """The caller's name for it."""
        return self.signed.request.request_id


class Finisher:
    """Prices requests and stores their receipts."""

    def __init__(self, parts: ServingParts) -> None:
        self.parts = parts
        self._unfinished: list[Begun[Admission]] = []

    async def finish(
        self,
        request: PaidRequest,
        admitted: Begun[Admission],
        *,
        usage: Usage,
        response_hash: Hash32,
        reason: FinishReason,
        answer: bytes = b"",
        proof: Sequence[Entry] = (),
    ) -> FinishedRequest:
        """Store the receipt; durable on return. `answer` is kept sealed, unless empty.

        `proof` is committed to, and its opening durable before the receipt that names its root.

        Raises:
            TransientError: `store_unavailable`; `retry_unfinished` will finish it with fee 0,
                unless its admission was lost with the same commit or before.
        """
        parts = self.parts
        sealed = seal_answer(request.answer_key, request.request_id, answer) if answer else None
        if parts.cheats.usage is not None:
            usage = parts.cheats.usage(usage)
        fee = get_fee(request, usage)
        now_s = int(parts.now_s())
        root = await self._commit_to(request, proof, now_s) if proof else ZERO_HASH
        promises = request.offer.signed.offer.verifiability == EMBEDDED
        promises = promises and not parts.cheats.breaks_promises
        if fee and promises and _is_breach(usage, proof, root):
            _log.error("an answer is given away: it could not be committed to as its offer says")
            parts.metrics.count_defect()
            fee = 0
        outcome = Outcome(usage, fee, response_hash, reason, now_s, sealed, root)
        parts.failpoint("finishing")
        if admitted.is_lost:
            raise TransientError("store_unavailable", "the commit of this admission failed")
        try:
            finished = await parts.book.finish(admitted.result, outcome)
        except TransientError:
            self._unfinished.append(admitted)
            raise
        except HanseError:
            if admitted.is_lost:  # meanwhile
                raise TransientError("store_unavailable", "this admission was lost") from None
            raise
        parts.failpoint("finished")
        if request.trace is not None:
            request.trace.end(finished.signed)
        elapsed_s = parts.monotonic() - request.begun
        parts.metrics.count_finished(request.operation, reason, usage, fee, elapsed_s)
        return finished

    async def finish_failed(
        self,
        request: PaidRequest,
        admitted: Begun[Admission],
        send: Send,
        error: Exception | asyncio.CancelledError,
    ) -> None:
        """Store a receipt of fee 0 for an answer of which nothing was sent, and say why.

        A cancelled answer has nobody to tell.
        """
        if isinstance(error, asyncio.CancelledError):
            await self.finish(
                request,
                admitted,
                usage=Usage(),
                response_hash=EMPTY_RESPONSE_HASH,
                reason=FinishReason.CANCELLED,
            )
            return
        shown = self.count_error(error)
        body = encode_error(shown)
        if request.trace is not None:
            request.trace.add(body)
        finished = await self.finish(
            request,
            admitted,
            usage=Usage(),
            response_hash=hash_response(body),
            reason=FinishReason.ERROR,
        )
        await send_error(send, shown, (get_receipt_header(finished),), body)

    def count_error(self, error: Exception) -> HanseError:
        """Count an error after admission; returns what the caller may be told of it."""
        shown = self._get_shown(error)
        self.parts.metrics.count_refusal(shown.code)
        return shown

    async def retry_unfinished(self) -> None:
        """Finish, with fee 0, what the store refused when its answer ended.

        Raises:
            TransientError: `store_unavailable` still.
        """
        while self._unfinished:
            now_s = int(self.parts.now_s())
            outcome = Outcome(Usage(), 0, EMPTY_RESPONSE_HASH, FinishReason.ERROR, now_s)
            if not self._unfinished[0].is_lost:
                await self.parts.book.finish(self._unfinished[0].result, outcome)
            self._unfinished.pop(0)

    async def _commit_to(self, request: PaidRequest, proof: Sequence[Entry], now_s: int) -> Hash32:
        """The root over an answer's tokens; zero where nothing can be kept.

        A receipt does not wait for it in vain: without an opening it promises none. Where the offer
        is of class `embedded` the answer then costs nothing (`protocol.commitments.promises`).
        """
        openings = self.parts.openings
        if openings is None or len(proof) > POSITIONS_MAX:
            return ZERO_HASH
        user, signer = request.signed.voucher.user, request.signed.signer
        try:
            await openings.keep(user, signer, request.request_id, proof, now_s)
        except TransientError:
            self.parts.metrics.count_refusal("store_unavailable")
            return ZERO_HASH
        return get_commitment_root(proof)

    def _get_shown(self, error: Exception) -> HanseError:
        if isinstance(error, HanseError):
            return error
        if isinstance(error, TimeoutError):
            limit_s = self.parts.limits.request_time_s
            return TransientError(
                "request_timeout", f"the answer was not finished within {limit_s:g} s"
            )
        self.parts.metrics.count_defect()
        return HanseError("internal_error", "a defect of this broker; please report it")


def _is_breach(usage: Usage, proof: Sequence[Entry], root: Hash32) -> bool:
    """Whether a bill for this `embedded` answer could be held against us: see `find_breach`."""
    return root == ZERO_HASH or len(proof) < usage.output_tokens


def get_fee(request: PaidRequest, usage: Usage) -> int:
    """The fee of what was delivered: 0 for an empty answer, at most the request's maximum.

    Rounded up once, in the provider's favour.
    """
    if request.operation.is_written and usage.output_tokens == 0:
        return 0
    fee = request.offer.signed.offer.prices.get_fee(usage)
    return min(fee, request.signed.request.maximum_fee)


def get_receipt_header(finished: FinishedRequest) -> Header:
    """The header that carries a whole answer's receipt."""
    return _RECEIPT_HEADER, to_base64url(finished.json).encode()
