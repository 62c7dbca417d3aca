"""The path of one paid request, from its head to its stored receipt.

    header -> body -> signature -> offer -> maximum fee -> funded -> slot -> admission -> engine
    -> admission durable -> the answer's first bytes -> receipt durable -> the answer's end

An answer that is complete before its first byte leaves has both made durable by one commit.

Everything before the admission refuses without a trace in the books. After it there is a receipt,
whatever happens: 0 for an error, the delivered prefix for a stream that was cut.

Source: `docs/protocol.md`.
"""

import asyncio
import logging

from hanse.engines import CheckedFields, EngineRequest, Operation
from hanse.engines.parameters import check_request, count_choices
from hanse.protocol.commitments.promises import EMBEDDED
from hanse.protocol.commitments.seeds import get_sampling_seed
from hanse.protocol.commitments.tree import POSITIONS_MAX
from hanse.protocol.errors import RequestError, Shortfall
from hanse.protocol.hashing import hash_body, hash_response
from hanse.protocol.messages import SignedVoucher
from hanse.protocol.pricing import get_maximum_fee
from hanse.protocol.signatures import Address, Hash32
from hanse.protocol.verify import verify_voucher
from hanse.protocol.wire import decode_voucher_header, receipt_to_json
from hanse.provider.finishing import Finisher, PaidRequest, ServingParts, get_receipt_header
from hanse.provider.http import (
    NO_STORE,
    BodyBudget,
    Receive,
    Scope,
    Send,
    find_header,
    read_body,
    send_bytes,
)
from hanse.provider.offers import OfferInForce
from hanse.provider.paid_body import PaidBody, check_body, decode_body
from hanse.provider.slots import Slots
from hanse.provider.streaming import CallerWatch, StreamedAnswer
from hanse.serving import Looks
from hanse.settlement import Admission, SubAccountFunds, decode_stored_receipt
from hanse.settlement.traces.capture import TraceCapture
from hanse.settlement.traces.sealing import read_encryption_key
from hanse.settlement.traces.writer import TraceWriter
from hanse.store.database import Begun

MISSED_RECEIPTS_MAX = 100
"""Receipts inside a 402: about 70 kB. A caller that misses more reads the rest page by page."""

_log = logging.getLogger(__name__)


class PaidService:
    """Serves paid requests."""

    def __init__(self, parts: ServingParts) -> None:
        self.parts = parts
        self.finisher = Finisher(parts)
        self.slots = Slots(parts.limits)
        self.budget = BodyBudget(parts.limits.body_bytes_in_flight_max)
        self._looks = Looks(parts.limits.keep_alive_s)
        self._at_work: dict[tuple[Hash32, Address], int] = {}

    async def serve(self, operation: Operation, scope: Scope, receive: Receive, send: Send) -> None:
        """One request.

        Raises:
            HanseError: refused before admission; nothing was sent yet.
            AnswerCutError: the answer was begun and cannot be ended.
        """
        parts = self.parts
        begun = parts.monotonic()
        parsed = decode_voucher_header(find_header(scope, b"authorization") or "")
        body = await read_body(scope, receive, self.budget, parts.limits.body_time_s)
        try:
            signed = parsed.to_signed_voucher(hash_body(scope["path"], body))
            verify_voucher(signed, parts.domain, parts.provider, int(parts.now_s()))
            offer = parts.offers.get_in_force(signed.request.offer_hash)
            paid_body, checked = self._check_body(operation, body, signed, offer)
            funds = parts.chain_view.find_funds(signed.voucher.user, signed.signer)
            funds = funds or await self._fetch_funds(signed)
            request = PaidRequest(
                operation,
                signed,
                parsed.answer_key,
                parsed.header.acknowledged,
                offer,
                paid_body,
                checked,
                begun,
                None if parts.traces is None else _begin_trace(parts.traces, signed, scope, body),
            )
            watch = CallerWatch(scope, receive, self._looks, parts.limits.request_time_s)
            try:
                await self._serve_checked(request, funds, watch, send)
            finally:
                if request.trace is not None:
                    request.trace.close()
        finally:
            self.budget.give_back(len(body))

    async def close_lost(self) -> None:
        """Finish, with fee 0, what was admitted although the store said that it was not.

        Raises:
            TransientError: `store_unavailable`.
        """
        is_at_work = self._at_work.__contains__
        closed = await self.parts.book.close_lost(
            lambda request_id, signer: is_at_work((request_id, signer)), int(self.parts.now_s())
        )
        if closed:
            _log.warning("%s requests were admitted by a doubtful commit, and ended", len(closed))

    def _check_body(
        self, operation: Operation, body: bytes, signed: SignedVoucher, in_force: OfferInForce
    ) -> tuple[PaidBody, CheckedFields]:
        offer = in_force.signed.offer
        capabilities = in_force.service.engine.capabilities
        if operation not in in_force.service.operations:
            raise RequestError("not_found", f"model {offer.model} does not offer {operation.path}")
        paid_body = check_body(
            decode_body(body, operation), operation, offer, self.parts.limits.choices_max
        )
        if paid_body.model != offer.model:
            raise RequestError(
                "model_not_found",
                f"the offer signed for sells {offer.model!r}, asked was {paid_body.model[:80]!r}",
                param="model",
            )
        needed = get_maximum_fee(offer, len(body), paid_body.output_tokens)
        given = signed.request.maximum_fee
        if given < needed:
            raise RequestError(
                "fee_too_low",
                f"the maximum fee is {given} base units, this request can cost {needed}: "
                "authorise as much or ask for fewer tokens",
                details=Shortfall(needed, given).to_details(),
            )
        if offer.verifiability == EMBEDDED and paid_body.output_tokens > POSITIONS_MAX:
            raise RequestError(
                "invalid_request",
                f"{paid_body.output_tokens} output tokens are asked for in all; an answer that is "
                f"committed to has at most {POSITIONS_MAX}: ask for fewer, or for fewer choices",
                param="max_tokens",
            )
        # Engines check it too, but an error after admission would cost us rows and them nothing.
        asked = EngineRequest(operation=operation, body=paid_body.fields, answer_id="")
        return paid_body, (capabilities, check_request(asked, capabilities))

    async def _fetch_funds(self, signed: SignedVoucher) -> SubAccountFunds:
        user, signer, view = signed.voucher.user, signed.signer, self.parts.chain_view
        funds = await view.fetch_funds(user, signer)
        if funds is None:
            needed = signed.request.maximum_fee
            raise RequestError(
                "sub_account_unknown",
                f"no sub-account of user {user} with signer {signer} is funded for "
                f"{self.parts.provider}: fund it with at least {needed} base units",
                details={**Shortfall(needed, 0).to_details(), "chain_block": view.block},
            )
        return funds

    async def _serve_checked(
        self, request: PaidRequest, funds: SubAccountFunds, watch: CallerWatch, send: Send
    ) -> None:
        parts, service = self.parts, request.offer.service
        user, signer = request.signed.voucher.user, request.signed.signer
        slots = self.slots.take(service, user, signer, count_choices(request.checked[1]))
        parts.metrics.in_flight += 1
        name = (request.request_id, signer)
        # Before it is admitted: see `close_lost`.
        self._at_work[name] = self._at_work.get(name, 0) + 1
        try:
            parts.failpoint("admitting")
            try:
                admitted = await parts.book.begin_admission(
                    request.signed,
                    funds,
                    acknowledged=request.acknowledged,
                    now_s=int(parts.now_s()),
                )
            except RequestError as error:
                if error.code == "voucher_too_low":
                    await self._add_missed(request, error)
                raise
            parts.failpoint("admitted")
            proves = request.checked[0].proves
            engine_request = EngineRequest(
                operation=request.operation,
                body=request.body.fields,
                answer_id=_get_answer_id(request),
                sold_at=request.offer.signed.offer.prices,
                checked=request.checked,
                sampling_seed=_get_seed(request, parts.provider) if proves else None,
            )
            if request.body.streams:
                answer = StreamedAnswer(self.finisher, request, admitted, send, watch)
                await answer.run(service.engine.stream(engine_request))
            else:
                await self._answer_whole(request, admitted, engine_request, send, watch)
        finally:
            left = self._at_work.pop(name) - 1
            if left:  # of replays, all but one are refused at once
                self._at_work[name] = left
            parts.metrics.in_flight -= 1
            self.slots.give_back(service, user, signer, slots)

    async def _add_missed(self, request: PaidRequest, error: RequestError) -> None:
        """Tell a caller that is behind which receipts it misses."""
        signed = request.signed
        page = await self.parts.book.find_receipts(
            signed.voucher.user, signed.signer, request.acknowledged, MISSED_RECEIPTS_MAX
        )
        if page is not None:
            error.details["receipts"] = [
                {"request_id": request_id, "receipt": receipt_to_json(decode_stored_receipt(json))}
                for request_id, json in page.receipts
            ]
            error.details["more"] = page.more

    async def _answer_whole(
        self,
        request: PaidRequest,
        admitted: Begun[Admission],
        engine_request: EngineRequest,
        send: Send,
        watch: CallerWatch,
    ) -> None:
        engine = request.offer.service.engine
        try:
            with watch:
                answer = await engine.answer(engine_request)
        except (Exception, asyncio.CancelledError) as error:
            await self.finisher.finish_failed(request, admitted, send, error)
            if isinstance(error, asyncio.CancelledError) and not watch.left:
                raise
            return
        if request.trace is not None:
            request.trace.add(answer.body)
        finished = await self.finisher.finish(
            request,
            admitted,
            usage=answer.usage,
            response_hash=hash_response(answer.body),
            reason=answer.finish_reason,
            answer=answer.body,
            proof=answer.proof,
        )
        kind = request.operation.get_content_type(request.body.fields).encode()
        headers = ((b"content-type", kind), NO_STORE, get_receipt_header(finished))
        await send_bytes(send, 200, answer.body, headers)


def _begin_trace(
    traces: TraceWriter, signed: SignedVoucher, scope: Scope, body: bytes
) -> TraceCapture | None:
    other_key = read_encryption_key(find_header(scope, b"hanse-encryption-key"))
    return traces.begin(signed, scope["path"], body, other_key)


def _get_seed(request: PaidRequest, provider: Address) -> int:
    """The sampler's, for an engine that proves; what nobody checks needs none."""
    return get_sampling_seed(b"", request.request_id, provider)


def _get_answer_id(request: PaidRequest) -> str:
    prefix = "chatcmpl-" if request.operation is Operation.CHAT else "cmpl-"
    return prefix + request.request_id[2:34]
