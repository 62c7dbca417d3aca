"""`Hanse`: the user's side as one object. What it offers is told in `hanse.sdk`.

It joins the parts: chain view, discovery, matching, buying, resume, account. Every part that has a
clock, a disk, a network or chance is passed in through `HanseParts`; `Hanse.open` makes the real
ones from `Settings`.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from hanse.market import HealthBook, ListedOffer, Match, Needs, OfferIndex, ProviderHealth
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, InvariantError, RequestError
from hanse.protocol.signatures import Address, DigestSigner, Hash32
from hanse.sdk.account import Account, open_account
from hanse.sdk.attesting import Attestations
from hanse.sdk.chain_view import ChainView, IndexedChain, open_chain
from hanse.sdk.choosing import Choosing, create_chooser
from hanse.sdk.completion import Completion, CompletionStream, read_completion
from hanse.sdk.discovery import Discovery, DiscoveryReport
from hanse.sdk.disputes import Disputes, describe, find_dispute_alarms, open_disputes
from hanse.sdk.heartbeats import Heartbeats
from hanse.sdk.money import Money, read_money
from hanse.sdk.purchase.answer import Answer
from hanse.sdk.purchase.ask import read_ask
from hanse.sdk.purchase.background import Background
from hanse.sdk.purchase.buyer import Buyer, BuyerParts
from hanse.sdk.purchase.capture import Capture
from hanse.sdk.purchase.funding import Funding
from hanse.sdk.purchase.quoting import Quote, quote_match
from hanse.sdk.purchase.resume import FetchedAnswer, Resumer, ResumeReport
from hanse.sdk.purchase.spending import (
    GuardedBook,
    SpendingGuard,
    hold_meanwhile,
    open_guarded_book,
)
from hanse.sdk.receipt_file import export_receipt
from hanse.sdk.settings import Settings
from hanse.sdk.transport import Transport, TransportLimits
from hanse.sdk.transport.http import HttpTransport
from hanse.sdk.upkeep.keeper import Keeper, open_keeper
from hanse.settlement.books.voucher_book import VoucherBook
from hanse.settlement.books.voucher_records import StoredReceipt, SubAccountBook
from hanse.settlement.disputes.dispute_book import StoredDispute
from hanse.settlement.keeping.keeper import AnswerKeeper
from hanse.settlement.keeping.keeper import open_keeper as open_answer_keeper
from hanse.settlement.records.sides import open_user_submitter, run_behind
from hanse.settlement.records.submitter import Submitter
from hanse.settlement.traces.document import Side
from hanse.settlement.traces.writer import TraceWriter, open_trace_writer
from hanse.store import Database, open_database

_log = logging.getLogger(__name__)

_ANY = Needs()


@dataclass(frozen=True)
class HanseParts:
    """What a client is made of.

    Attributes:
        domain: of all signatures.
        user: whose money it is.
        signer: of the sub-accounts.
        book: the durable book.
        chain: the chain at its confirmed block.
        transport, limits: to the brokers.
        account: moves money on the chain; None without a chain.
        clock: unix seconds.
        random_bytes: for request ids and answer keys.
        disputes: finds cheats and raises them; None to keep no evidence.
        traces: keeps bodies and answers, encrypted; None for no traces.
        keeper: keeps answers that an auditor may draw; None to keep none.
        choosing: how providers are chosen.
        discover_interval_s, resume_interval_s, dispute_interval_s, heartbeat_interval_s: of the
            rounds behind; 0 for none.
    """

    domain: Domain
    user: Address
    signer: DigestSigner
    book: VoucherBook
    chain: ChainView
    transport: Transport
    limits: TransportLimits = field(default_factory=TransportLimits)
    account: Account | None = None
    disputes: Disputes | None = None
    traces: TraceWriter | None = None
    keeper: AnswerKeeper | None = None
    choosing: Choosing = field(default_factory=lambda: Choosing(trial_share=0.0))
    clock: Callable[[], float] = time.time
    random_bytes: Callable[[int], bytes] = os.urandom
    discover_interval_s: float = 0.0
    resume_interval_s: float = 0.0
    dispute_interval_s: float = 0.0
    heartbeat_interval_s: float = 0.0


@dataclass(frozen=True)
class MarketOffer:
    """An offer on the market with the health of its provider."""

    listed: ListedOffer
    health: ProviderHealth


class Hanse:
    """The user's side. Open it with `Hanse.open`, or `Hanse.join` over parts of one's own."""

    def __init__(self, parts: HanseParts) -> None:
        self._parts = parts
        self._background = Background()
        self._loops: list[asyncio.Task[None]] = []
        self.records: Submitter | None = None  # None without a chain
        self.upkeep: Keeper | None = None
        self._offers = OfferIndex()
        self._health = HealthBook(parts.clock)
        self._funding = Funding(parts.chain)
        self.chooser = create_chooser(
            parts.choosing,
            self._offers,
            self._health,
            self._funding,
            parts.clock,
            parts.random_bytes,
        )
        self._heartbeats = Heartbeats(
            parts.transport,
            self._offers,
            self.chooser.board.presence,
            self._funding.list_funded,
            parts.domain,
            parts.clock,
        )
        self._discovery = Discovery(
            parts.chain, parts.transport, self._offers, self._health, parts.domain, parts.clock
        )
        self._attestations = Attestations(
            *(parts.transport, self._offers, self.chooser.board.attested),
            *(parts.choosing.attestation, parts.clock, parts.random_bytes),
        )
        buyer_parts = BuyerParts(
            domain=parts.domain,
            user=parts.user,
            signer=parts.signer,
            book=parts.book,
            offers=self._offers,
            health=self._health,
            chooser=self.chooser,
            funding=self._funding,
            transport=parts.transport,
            limits=parts.limits,
            clock=parts.clock,
            random_bytes=parts.random_bytes,
            capture=Capture(
                parts.domain,
                parts.user,
                parts.signer.address,
                parts.chain.is_receipt_key,
                parts.disputes.book.keep_rejected if parts.disputes else None,
                parts.clock,
            ),
            traces=parts.traces,
            keeper=parts.keeper,
        )
        self._resumer = Resumer(
            buyer_parts, self._background, find_active=lambda: self._buyer.active
        )
        self._buyer = Buyer(
            buyer_parts,
            self._background,
            find_out=self._resumer.find_out,
            count_receipts=self._resumer.count_receipts,
            rediscover=lambda: self._background.start(self._rediscover()),
        )

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator["Hanse"]:
        """Open database and chain, discover, resume what was cut off, and keep all of it going.

        Raises:
            HanseError: `chain_unavailable`, `configuration_invalid`, `store_unavailable`.
        """
        async with contextlib.AsyncExitStack() as stack:
            database = await open_database(settings.database, is_served=settings.is_served)
            stack.push_async_callback(database.close)
            rpc = await stack.enter_async_context(settings.connect())
            deployment = settings.deployment
            domain = Domain(deployment.chain_id, deployment.escrow)
            user, signer = settings.get_user(), settings.signer
            chain = await open_chain(rpc, deployment, database, user, signer.address)
            account = await open_account(rpc, deployment, database, chain, settings)
            transport = settings.transport or HttpTransport(
                settings.limits, reaches_private=settings.reaches_private
            )
            stack.push_async_callback(transport.close)
            book = await open_guarded_book(database, domain)
            disputes = await open_disputes(
                rpc, deployment, database, chain, book, account, settings, time.time, stack
            )
            parts = HanseParts(
                domain=domain,
                user=user,
                signer=signer,
                book=book,
                chain=chain,
                transport=transport,
                limits=settings.limits,
                account=account,
                disputes=disputes,
                dispute_interval_s=settings.dispute_interval_s,
                traces=await _open_traces(settings, database, stack),
                keeper=await open_answer_keeper(settings.kept_answers, stack),
                choosing=settings.choosing,
                discover_interval_s=settings.discover_interval_s,
                resume_interval_s=settings.resume_interval_s,
                heartbeat_interval_s=settings.heartbeat_interval_s,
            )
            hanse = await stack.enter_async_context(cls.join(parts))
            await account.start(stack)
            if settings.upkeep is not None:
                hanse.upkeep = await open_keeper(
                    *(database, account, chain, hanse._funding, hanse._offers, book),
                    *(hanse._is_out, time.time, settings.upkeep),
                )
                hanse._loops.append(asyncio.create_task(hanse.upkeep.run()))
            hanse.records = await stack.enter_async_context(
                open_user_submitter(
                    *(settings.records, user, signer, database, rpc, deployment),
                    parts.traces.find_trace_hash if parts.traces else None,
                    hanse._resumer.resume_known,
                )
            )
            await stack.enter_async_context(run_behind(hanse.records))
            yield hanse

    @classmethod
    @contextlib.asynccontextmanager
    async def join(cls, parts: HanseParts) -> AsyncIterator["Hanse"]:
        """The same over parts that are open already; their owner closes them."""
        hanse = cls(parts)
        for sub_account in await parts.book.list_sub_accounts():
            key = sub_account.key
            if (key.user, key.signer) == (parts.user, parts.signer.address):
                hanse._funding.note(key.provider, sub_account.book)
        await hanse.discover()
        await hanse.resume()
        hanse._start_loops()
        try:
            yield hanse
        finally:
            for task in hanse._loops:
                task.cancel()
            await asyncio.gather(*hanse._loops, return_exceptions=True)
            await hanse._background.stop()
            await hanse._attestations.stop()

    # buying

    async def request(
        self,
        path: str,
        body: bytes | Mapping[str, Any],
        needs: Needs | None = None,
        asked: list[Address] | None = None,
    ) -> Answer:
        """Buy one answer from the cheapest healthy provider that fits; see `Answer`.

        Args:
            path: OpenAI's, such as `/v1/chat/completions`.
            body: the request's bytes, or an object to encode. Sent untouched, but that a stream is
                always asked to state its usage.
            needs: narrows the choice.
            asked: gets each provider's address just before it is asked, also of a call that fails.

        Raises:
            RequestError: the request is at fault, or money is short (`insufficient_balance`, with
                amounts).
            TransientError: nobody can serve it now.
            VerificationError: what came is not what was signed.
        """
        encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
        ask = read_ask(path, encoded)
        try:
            return await self._buyer.buy(ask, needs or _ANY, asked)
        except RequestError as error:
            if error.code == "insufficient_balance":  # whose sub-account is to be funded
                error.details.setdefault("signer", self._parts.signer.address)
                needed = int(error.details.get("needed", 0))
                if self.upkeep is not None:
                    async with hold_meanwhile(self._parts.book, needed, self._parts.random_bytes):
                        is_funded = await self.upkeep.fund_for(ask.service_type, ask.model)
                    if is_funded:
                        return await self._buyer.buy(ask, needs or _ANY, asked)
            raise

    def _is_out(self, provider: Address) -> bool:
        absence = self.chooser.board.presence.find_absence(provider)
        return absence is not None or self._health.get(provider).is_out(self._parts.clock())

    async def chat(
        self,
        model: str,
        messages: list[dict[str, Any]],
        *,
        stream: bool = False,
        needs: Needs | None = None,
        **params: Any,
    ) -> Completion | CompletionStream:
        """OpenAI's chat completion; see `request` for the errors."""
        body = {"model": model, "messages": messages, "stream": stream, **params}
        return await self._complete("/v1/chat/completions", body, needs)

    async def completions(
        self,
        model: str,
        prompt: str,
        *,
        stream: bool = False,
        needs: Needs | None = None,
        **params: Any,
    ) -> Completion | CompletionStream:
        """OpenAI's plain completion; see `request` for the errors."""
        body = {"model": model, "prompt": prompt, "stream": stream, **params}
        return await self._complete("/v1/completions", body, needs)

    async def embeddings(
        self, model: str, input: str | list[str], *, needs: Needs | None = None, **params: Any
    ) -> Completion:
        """OpenAI's embeddings; see `request` for the errors."""
        body = {"model": model, "input": input, **params}
        return await read_completion(await self.request("/v1/embeddings", body, needs))

    # the market

    async def discover(self) -> DiscoveryReport:
        """Read the Registry at the confirmed block, fetch and verify offers and machines."""
        report = await self._discovery.discover()
        await self._attestations.verify_due()
        return report

    async def fetch_heartbeats(self) -> None:
        """Ask the brokers that could be asked how busy they are; a loop does it too."""
        await self._heartbeats.fetch_round()

    def rank(self, path: str, body: bytes, needs: Needs | None = None) -> Match:
        """Every offer of the model that a request asks for: scores, and what stands against it."""
        needs = needs or _ANY
        shape = read_ask(path, body).get_shape(needs.session)
        return self.chooser.rank(shape, needs, self._parts.clock())

    def get_offers(self) -> list[MarketOffer]:
        """Every verified offer, by model and price."""
        return [
            MarketOffer(listed, self._health.get(listed.provider))
            for listed in self._offers.list_all()
        ]

    def quote(
        self,
        path: str,
        body: bytes | Mapping[str, Any],
        needs: Needs | None = None,
        most: int | None = None,
    ) -> list[Quote]:
        """What this request would cost by each provider: best first, then who cannot be asked.

        With `most`, by so many at most.

        Raises:
            RequestError: the request is at fault.
        """
        ask = read_ask(path, body if isinstance(body, bytes) else msgspec.json.encode(body))
        shape = ask.get_shape()
        found = self.chooser.rank(shape, needs or _ANY, self._parts.clock())
        return quote_match(found, shape, most)

    def guard_spending(self, guard: SpendingGuard) -> None:
        """Ask `guard` before each voucher from now on, and tell it what each came to.

        Raises:
            InvariantError: this client was joined over a book that asks nobody.
        """
        if not isinstance(self._parts.book, GuardedBook):
            raise InvariantError("internal_error", "the voucher book of this client has no guard")
        self._parts.book.guard = guard

    def report_failure(self, provider: Address, reason: str) -> None:
        """Say that a provider failed in a way that only whoever reads its answer has seen."""
        self._health.report_failure(provider, reason)

    def get_models(self) -> dict[str, Any]:
        """OpenAI's list of models, `owned_by` naming how many providers offer each."""
        sellers = {(o.offer.model, o.provider) for o in self._offers.list_all()}
        counts = Counter(model for model, _ in sellers)
        data = [
            {
                "id": model,
                "object": "model",
                "created": 0,
                "owned_by": f"{count} provider{'s' if count > 1 else ''}",
            }
            for model, count in sorted(counts.items())
        ]
        return {"object": "list", "data": data}

    # what became of it

    async def resume(self, *, adopt: bool = False) -> list[ResumeReport]:
        """Find out about requests whose end is unknown; see `Resumer.resume` for `adopt`."""
        return await self._resumer.resume(adopt=adopt)

    async def fetch_answer(self, request_id: Hash32) -> FetchedAnswer:
        """The bytes of an answer that was paid for and not received to its end."""
        return await self._resumer.fetch_answer(request_id)

    async def get_receipts(
        self, *, limit: int = 100, before: int | None = None, offset: int = 0
    ) -> list[StoredReceipt]:
        """Receipts, newest first, received up to `before` (unix seconds; None for now)."""
        at = int(self._parts.clock()) + 1 if before is None else before
        return await self._parts.book.list_receipts(before=at, limit=limit, offset=offset)

    async def export_receipt(self, request_id: Hash32) -> dict[str, Any]:
        """Voucher, offer and receipt as one JSON-ready document that a stranger can check.

        Raises:
            RequestError: `not_found`.
        """
        voucher = await self._parts.book.find_voucher(request_id)
        receipt = await self._parts.book.find_receipt(request_id)
        if voucher is None or receipt is None:
            raise RequestError("not_found", f"there is no receipt for request {request_id} here")
        return export_receipt(self._parts.domain, voucher, receipt)

    async def get_exposures(self) -> list[SubAccountBook]:
        """Every sub-account with what is spent, in flight, and could be claimed at most."""
        return await self._parts.book.list_sub_accounts()

    async def get_disputes(self) -> list[StoredDispute]:
        """What providers were found to have cheated in, newest first, and what became of it."""
        return await self._parts.disputes.list_all() if self._parts.disputes else []

    async def look_for_cheats(self) -> None:
        """Check every claim and receipt now, and raise what is found; a loop does it too."""
        if self._parts.disputes is None:
            return
        for dispute in await self._parts.disputes.look():
            finding = dispute.evidence.finding
            self._health.report_dishonest(finding.provider, describe(finding))

    async def wait_idle(self) -> None:
        """Until nothing is running behind: receipts of cut answers are known or given up on."""
        await self._background.wait()

    # money

    @property
    def account(self) -> Account:
        """Moves money on the chain.

        Raises:
            RequestError: `configuration_invalid` if this client was made without a chain.
        """
        if self._parts.account is None:
            raise RequestError("configuration_invalid", "this client has no chain to move money on")
        return self._parts.account

    async def read_money(self) -> Money:
        """Every unit of this wallet, by place, with the transaction that put it there.

        Raises:
            RequestError: `configuration_invalid` without a chain.
        """
        chain = self._parts.chain
        if not isinstance(chain, IndexedChain):
            raise RequestError("configuration_invalid", "this client has no chain to read from")
        money = await read_money(self.account, chain, self._parts.book, self._parts.user)
        alarms = find_dispute_alarms(await self.get_disputes())
        return replace(money, alarms=money.alarms + alarms)

    async def _complete(
        self, path: str, body: dict[str, Any], needs: Needs | None
    ) -> Completion | CompletionStream:
        answer = await self.request(path, body, needs)
        return CompletionStream(answer) if answer.is_stream else await read_completion(answer)

    async def _rediscover(self) -> None:
        try:
            await self.discover()
        except HanseError as error:
            _log.warning("discovery failed: %s", error.message)

    def _start_loops(self) -> None:
        parts = self._parts
        rounds: tuple[tuple[Callable[[], Any], float], ...] = (
            (self.discover, parts.discover_interval_s),
            (self.resume, parts.resume_interval_s),
            (self.look_for_cheats, parts.dispute_interval_s),
        )
        self._loops += [asyncio.create_task(_repeat(work, s)) for work, s in rounds if s]
        if parts.heartbeat_interval_s:
            beating = self._heartbeats.run(parts.heartbeat_interval_s)
            self._loops.append(asyncio.create_task(beating))


async def _open_traces(
    settings: Settings, database: Database, stack: contextlib.AsyncExitStack
) -> TraceWriter | None:
    if settings.traces is None:
        return None
    writer = await open_trace_writer(settings.traces, database, Side.USER, time.time)
    return await stack.enter_async_context(writer)


async def _repeat(work: Callable[[], Any], interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            await work()
        except HanseError as error:
            _log.warning("a round behind failed, the next comes: %s", error.message)
