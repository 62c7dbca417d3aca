"""The read endpoints that a sub-account's signer opens with a signed query.

A query is good for two minutes, for one broker and one sub-account; whoever holds it can read what
the signer could, and change nothing.

Source: `docs/protocol.md`, sections "On the wire" and "Resume".
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from hanse.protocol.books import ProviderBook
from hanse.protocol.commitments.tree import OPENING_RETAINED_S
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import RECEIPTS_PER_PAGE_MAX
from hanse.protocol.messages import Query
from hanse.protocol.signatures import Hash32, parse_hash32
from hanse.protocol.verify import verify_query
from hanse.protocol.wire import decode_query_header
from hanse.provider.finishing import ServingParts
from hanse.provider.http import NO_STORE, Scope, Send, find_header, send_bytes, send_json
from hanse.settlement import SubAccountFunds, SubAccountState

OCTETS = (b"content-type", b"application/octet-stream")


class QueryService:
    """Answers signed queries."""

    def __init__(self, parts: ServingParts) -> None:
        self._parts = parts

    async def send_sub_account(self, scope: Scope, send: Send) -> None:
        """`GET /hanse/v1/sub-account`."""
        query = self._verify(scope)
        state = await self._parts.book.find_state(query.user, query.signer)
        await send_json(send, 200, self._to_json(query, state))

    async def send_receipts(self, scope: Scope, send: Send) -> None:
        """`GET /hanse/v1/receipts`."""
        query = self._verify(scope)
        page = await self._parts.book.find_receipts(
            query.user, query.signer, query.after_sequence, RECEIPTS_PER_PAGE_MAX
        )
        if page is None:
            empty = {"receipts": [], "in_flight": [], "more": False}
            await send_json(send, 200, {"state": self._to_json(query, None), **empty})
            return
        receipts: Sequence[tuple[Hash32, bytes]] = page.receipts
        cheat = self._parts.cheats.receipts
        if cheat is not None:
            receipts = await cheat.falsify(self._parts.book, query, receipts)
        data = {
            "state": self._to_json(query, page.state),
            "receipts": [
                {"request_id": request_id, "receipt": msgspec.Raw(json)}
                for request_id, json in receipts
            ],
            "in_flight": page.in_flight,
            "more": page.more,
        }
        await send_json(send, 200, data)

    async def send_answer(self, scope: Scope, send: Send, request_id: str) -> None:
        """`GET /hanse/v1/answers/<request id>`: the sealed bytes."""
        query = self._verify(scope)
        wanted = parse_hash32(request_id, "request_id")
        sealed = await self._parts.book.find_answer(
            query.user, query.signer, wanted, int(self._parts.now_s())
        )
        if sealed is None:
            raise RequestError(
                "not_found",
                f"no answer of request {wanted} is kept: it was acknowledged, is too old, or never "
                "was",
            )
        await send_bytes(send, 200, sealed, (OCTETS, NO_STORE))

    async def send_opening(self, scope: Scope, send: Send, request_id: str) -> None:
        """`GET /hanse/v1/openings/<request id>`: what its receipt's commitment root stands for."""
        query = self._verify(scope)
        wanted = parse_hash32(request_id, "request_id")
        book, opening = self._parts.openings, None
        if book is not None:
            now_s = int(self._parts.now_s())
            opening = await book.find(query.user, query.signer, wanted, now_s)
        if opening is None:
            raise RequestError(
                "not_found",
                f"no opening of request {wanted} is kept: its receipt has no commitment root, or "
                f"is older than {OPENING_RETAINED_S} s",
            )
        await send_bytes(send, 200, opening, (OCTETS, NO_STORE))

    def _verify(self, scope: Scope) -> Query:
        parts = self._parts
        query, signature = decode_query_header(find_header(scope, b"authorization") or "")
        verify_query(query, signature, parts.domain, parts.provider, int(parts.now_s()))
        return query

    def _to_json(self, query: Query, state: SubAccountState | None) -> dict[str, Any]:
        view = self._parts.chain_view
        funds = view.find_funds(query.user, query.signer) or SubAccountFunds(0, 0)
        book = state.book if state else ProviderBook(funds.sequence, funds.claimed)
        return {
            "user": query.user,
            "provider": query.provider,
            "signer": query.signer,
            "sequence": str(book.sequence),
            "cumulative_fee": str(book.cumulative_fee),
            "reserved": str(book.reserved),
            "in_flight": book.in_flight,
            "cumulative_max": str(book.cumulative_max),
            "sequence_max": str(book.sequence_max),
            "funded": str(funds.funded),
            "claimed": str(funds.claimed),
            "chain_block": view.block,
        }
