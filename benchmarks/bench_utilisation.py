"""Requests at 99 % of a balance, while it is topped up, refunded and settled all the time.

    make -s bench-utilisation REQUESTS=100000

Real: the broker application (called as ASGI, without sockets), both books on a SQLite file each (or
any store, by `--store`), vouchers, receipts and their checks. The engine is `echo`, a fake; the
chain is the reference ledger, which a stateful test holds equal to the contracts, and its vouchers
are settled with their real signatures.

The user's side signs whatever it is asked to, so that the broker has to decide. Its treasurer tops
up by what a refusal says is missing, at most 1 % of the balance beyond it, asks for refunds of more
than is free, cancels them, and completes them once their lock time is over: that is, once what was
at work when they were asked for has ended. The broker's treasurer settles before.

Held at every step: no negative balance, never owed more than claimed + balance (no overdraft), and
of each refusal that it is a 402 `insufficient_balance` with the amounts of that moment. At the end
both books say the same and the provider was paid every fee.

One JSON line to standard output; exits 1 on a violation.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.chain import Key
from hanse.engines.echo_engine import EchoEngine, Settings
from hanse.protocol.eip712 import Domain
from hanse.protocol.hashing import hash_body, hash_response
from hanse.protocol.intents import Fund
from hanse.protocol.ledger import (
    Ledger,
    Rules,
    Step,
    SubAccountId,
    VoucherClaim,
    apply_cancel_refund,
    apply_claim_refund,
    apply_deposit,
    apply_fund,
    apply_register,
    apply_request_refund,
    apply_settle,
)
from hanse.protocol.ledger.invariants import asset_held_equals_books, no_balance_is_negative
from hanse.protocol.messages import Prices, Request
from hanse.protocol.pricing import get_maximum_fee
from hanse.protocol.signatures import ZERO_HASH, to_compact, to_hex
from hanse.protocol.verify import verify_receipt, verify_receipt_signature
from hanse.protocol.wire import decode_receipt, encode_voucher_header
from hanse.provider import Broker, OfferBook, Service, StaticChainView
from hanse.settlement import SubAccountFunds, open_receipt_book
from hanse.settlement.books.voucher_book import Purchase, open_voucher_book
from hanse.settlement.books.voucher_records import SubAccountKey, Verification
from hanse.store import open_database
from tests.provider.offer_parts import put_on_offer

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
OWNER, RECEIPT_KEY, USER = Key(b"\x04" * 32), Key(b"\x02" * 32), Key(b"\x01" * 32)
PRICES = Prices(0, 0, 300_000_000)
WORKERS = 24
MOST = 3_000
"""Base units that one request can cost: 10 tokens."""
PATH = "/v1/chat/completions"
ACCOUNT = SubAccountId(USER.address, OWNER.address, USER.address)
BOOK_KEY = SubAccountKey(*ACCOUNT)
LIMITLESS = SubAccountFunds(2**95, 0)
LOCK_TIME_S = 3_600
SETTLEMENTS = 10
"""Of one run: between two, what was spent stays in the balance, as on a chain."""


class Treasury:
    """The chain (a reference ledger), and what both sides do with money on it."""

    def __init__(self, view: StaticChainView) -> None:
        rules = Rules(DOMAIN, LOCK_TIME_S, 1, 3_600, 7_200, 3_600)
        self.ledger = Ledger(rules)
        self.view = view
        self.now_s = 1
        self.funded_seen: deque[int] = deque(maxlen=4_096)
        self.moves = {"top_ups": 0, "refunds_asked": 0, "refunds_cancelled": 0, "refunds_paid": 0}
        self.settlements = 0
        self.apply(
            apply_register(self.ledger, OWNER.address, 1, RECEIPT_KEY.address, OWNER.address)
        )
        self.apply(apply_deposit(self.ledger, USER.address, 10**18))

    def apply(self, step: Step) -> None:
        self.ledger = step.ledger
        no_balance_is_negative(self.ledger)
        asset_held_equals_books(self.ledger)
        funds = self.funds
        self.view.set_funds(USER.address, USER.address, funds)
        self.funded_seen.append(funds.funded)

    @property
    def funds(self) -> SubAccountFunds:
        account = self.ledger.sub_accounts.get(ACCOUNT)
        if account is None:
            return SubAccountFunds(0, 0)
        refund = self.ledger.refunds.get(ACCOUNT)
        pending = min(refund.amount, account.balance) if refund else 0
        return SubAccountFunds(account.balance, account.claimed, account.sequence, pending)

    def top_up(self, amount: int) -> None:
        """Also takes back as much of a pending refund."""
        self.moves["top_ups"] += 1
        self.apply(apply_fund(self.ledger, USER.address, Fund(OWNER.address, USER.address, amount)))

    def ask_refund(self, amount: int) -> None:
        free = self.funds.balance - self.funds.pending_refund
        if min(amount, free) > 0:
            self.moves["refunds_asked"] += 1
            amount = min(amount, free)
            self.apply(apply_request_refund(self.ledger, ACCOUNT, amount, self.now_s))

    def cancel_refund(self) -> None:
        self.moves["refunds_cancelled"] += 1
        self.apply(apply_cancel_refund(self.ledger, ACCOUNT))

    def complete_refund(self) -> None:
        self.now_s += LOCK_TIME_S
        self.moves["refunds_paid"] += 1
        self.apply(apply_claim_refund(self.ledger, ACCOUNT, self.now_s))


@dataclass
class Run:
    """One run's counters."""

    served: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    used_ppm: list[int] = field(default_factory=list)


class Market:
    """Both sides in one process."""

    def __init__(self, requests: int, seed: int) -> None:
        self.requests, self.random = requests, random.Random(seed)
        self.view = StaticChainView()
        self.treasury = Treasury(self.view)
        self.run = Run()
        self.begun = 0
        self.at_work: set[int] = set()
        self.locked_by: set[int] = set()
        self.shortfall = 0
        self.waiting = 0  # refused, and not tried again yet
        self.settle_every = self.settle_at = max(20, requests // SETTLEMENTS)
        self.turn = asyncio.Lock()  # one move of money at a time

    async def open(self, stack: contextlib.AsyncExitStack, stores: tuple[str, str]) -> None:
        theirs, mine = [await open_database(store) for store in stores]
        stack.push_async_callback(theirs.close)
        stack.push_async_callback(mine.close)
        self.receipts = await open_receipt_book(theirs, OWNER.address, DOMAIN, RECEIPT_KEY)
        self.vouchers = await open_voucher_book(mine, DOMAIN)
        engine = EchoEngine(Settings(answer_tokens=8))
        await engine.start()
        stack.push_async_callback(engine.close)
        service, offers = Service(1, engine, PRICES), OfferBook(time.time)
        await put_on_offer(
            offers,
            service,
            provider=OWNER.address,
            url="http://broker.test",
            domain=DOMAIN,
            receipt_key=RECEIPT_KEY,
        )
        (current,) = offers.list_current()
        self.signed_offer = current.signed
        self.offer = current.signed.offer
        self.broker = Broker(
            provider=OWNER.address,
            domain=DOMAIN,
            book=self.receipts,
            chain_view=self.view,
            offers=offers,
        )
        self.broker.admitting = True

    async def work(self) -> None:
        await asyncio.gather(*(self._buy_until_done() for _ in range(WORKERS)))
        await self._settle()

    async def _buy_until_done(self) -> None:
        while self.begun < self.requests:
            self.begun += 1
            number = self.begun
            while not await self._buy(number):
                self.waiting += 1
                await self._move_money()
                self.waiting -= 1
            if self.run.served % 40 == 0:
                await self._move_money()
            if self.run.served >= self.settle_at:
                self.settle_at += self.settle_every
                async with self.turn:
                    await self._settle_and_refund()

    async def _buy(self, number: int) -> bool:
        """One request with a voucher of its own; False if it was refused, correctly or not."""
        tokens = self.random.choice((8, 8, 8, 9, 10))  # the engine answers 8: some fees are less
        words = {"model": "echo-fake", "messages": [{"role": "user", "content": "w " * 12}]}
        body = json.dumps({**words, "max_tokens": tokens}).encode()
        maximum_fee = get_maximum_fee(self.offer, len(body), tokens)
        request = Request(
            to_hex(self.offer.struct_hash()),
            hash_body(PATH, body),
            maximum_fee,
            to_hex(os.urandom(32)),
            int(time.time()) + 600,
        )
        answer_key = os.urandom(32)
        purchase = Purchase(
            *(request, PATH, self.signed_offer, RECEIPT_KEY.address, answer_key, len(body), tokens)
        )
        now_s = int(time.time())
        issued = await self.vouchers.issue(BOOK_KEY, purchase, LIMITLESS, USER, now_s)
        header = encode_voucher_header(issued.signed, issued.book.acknowledged, answer_key)
        funded_before = self.treasury.funds.funded
        self.treasury.funded_seen.append(funded_before)
        self.at_work.add(number)
        try:
            status, headers, answer = await self._call(header, body)
        finally:
            self.at_work.discard(number)
            self.locked_by.discard(number)
        if status == 200:
            receipt = decode_receipt(headers["hanse-receipt"])
            verify_receipt_signature(receipt, DOMAIN, RECEIPT_KEY.address)
            verify_receipt(receipt, issued.signed, self.offer, hash_response(answer))
            await self.vouchers.acknowledge(receipt, Verification.VERIFIED, now_s=now_s)
            self.run.served += 1
            return True
        self._judge_refusal(status, answer, maximum_fee)
        await self.vouchers.release(request.request_id, "refused")
        return False

    def _judge_refusal(self, status: int, answer: bytes, maximum_fee: int) -> None:
        self.run.refused += 1
        error = json.loads(answer)["error"]
        if status != 402 or error["code"] != "insufficient_balance":
            self.run.wrong.append(f"{status} {error['code']}: {error['message']}")
            return
        said = error["hanse"]
        needed, available = int(said["needed"]), int(said["available"])
        parts = int(said["cumulative_fee"]) + int(said["reserved"]) + int(said["maximum_fee"])
        self.shortfall = needed - available
        if not (needed == parts and needed > available and int(said["missing"]) == self.shortfall):
            self.run.wrong.append(f"the amounts of a refusal disagree: {said}")
        if int(said["maximum_fee"]) != maximum_fee:
            self.run.wrong.append(f"asked for {maximum_fee}: {said}")
        if available not in self.treasury.funded_seen:
            self.run.wrong.append(f"the chain never showed {available}")

    async def _call(self, header: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The broker's application, as its server would call it."""
        sent: list[dict[str, Any]] = []
        parts = deque([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.popleft()
            await asyncio.Event().wait()
            raise AssertionError("nobody hangs up")

        async def send(event: Any) -> None:
            sent.append(event)

        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "query_string": b"",
            "headers": [
                (b"authorization", header.encode()),
                (b"content-length", str(len(body)).encode()),
            ],
        }
        await self.broker(scope, receive, send)
        headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, b"".join(event.get("body", b"") for event in sent[1:])

    async def _move_money(self) -> None:
        """What the treasurer does when a request was refused, and now and then besides."""
        async with self.turn:
            await self._move()

    async def _move(self) -> None:
        treasury, dice = self.treasury, self.random.random()
        state = await self.receipts.find_state(USER.address, USER.address)
        funds = treasury.funds
        if state is not None:
            held = funds.claimed + funds.balance
            if state.book.owed_max > held:
                self.run.wrong.append(f"owed {state.book.owed_max}, held {held}: an overdraft")
            used = state.book.owed_max - funds.claimed
            free = max(1, funds.balance - funds.pending_refund)
            self.run.used_ppm.append(min(1_000_000, used * 1_000_000 // free))
        if funds.pending_refund and dice < 0.1:
            treasury.cancel_refund()
        elif dice < 0.2:
            treasury.ask_refund(self.random.randint(1, 5 * MOST))
            self.locked_by = set(self.at_work)
        if self.shortfall:
            spare = self.random.randint(0, max(1, min(funds.balance // 100, 2 * MOST)))
            treasury.top_up(self.shortfall + max(0, self.waiting - 1) * MOST + spare)
            self.shortfall = 0

    async def _settle_and_refund(self) -> None:
        treasury = self.treasury
        if not treasury.funds.pending_refund:
            treasury.ask_refund(MOST)
            self.locked_by = set(self.at_work)
        # Before the settlement: what ends later is not claimed by it.
        while self.locked_by:  # noqa: ASYNC110 - an event would have to follow every change
            await asyncio.sleep(0.001)
        await self._settle()  # before the refund: the broker has the lock time for it
        if treasury.funds.pending_refund:
            treasury.complete_refund()

    async def _settle(self) -> None:
        for due in await self.receipts.read_due_claims():
            r, vs = to_compact(due.signature)
            claim = VoucherClaim(
                user=due.user,
                signer=due.signer,
                cumulative_max=due.cumulative_max,
                claimed=due.cumulative_fee,
                sequence=due.sequence,
                sequence_max=due.sequence_max,
                request_hash=due.request_hash,
                r=r,
                vs=vs,
            )
            treasury = self.treasury
            treasury.apply(
                apply_settle(
                    treasury.ledger, RECEIPT_KEY.address, OWNER.address, [claim], ZERO_HASH
                )
            )
            treasury.settlements += 1
            await self.receipts.apply_settled(due.user, due.signer, treasury.funds.claimed)


async def measure(requests: int, stores: tuple[str, str], seed: int = 1) -> dict[str, Any]:
    market = Market(requests, seed)
    async with contextlib.AsyncExitStack() as stack:
        await market.open(stack, stores)
        started, used = time.perf_counter(), time.process_time()
        await market.work()
        took, cpu = time.perf_counter() - started, time.process_time() - used
        theirs = await market.receipts.find_state(USER.address, USER.address)
        mine = await market.vouchers.find_sub_account(BOOK_KEY)
    assert theirs is not None
    assert mine is not None
    run, treasury = market.run, market.treasury
    fees = theirs.book.cumulative_fee
    ends = (mine.book.acknowledged_fee, treasury.funds.claimed, theirs.settled_fee)
    if ends != (fees, fees, fees):
        run.wrong.append(f"fees {fees}; acknowledged, paid and settled are {ends}")
    if (theirs.book.sequence, theirs.book.reserved, mine.book.in_flight) != (requests, 0, 0):
        run.wrong.append(f"not all has ended: {theirs.book}, {mine.book}")
    return {
        "requests": run.served,
        "refused_402": run.refused,
        "violations": len(run.wrong),
        "first_violations": run.wrong[:3],
        "utilisation_percent_median": round(statistics.median(run.used_ppm) / 10_000, 2),
        "utilisation_percent_mean": round(statistics.fmean(run.used_ppm) / 10_000, 2),
        **treasury.moves,
        "settlements": treasury.settlements,
        "fees": fees,
        "paid": treasury.funds.claimed,
        "seconds": round(took, 1),
        "cpu_us_per_request": round(cpu / run.served * 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", nargs=2, default=None, help="URLs of the broker's and user's")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = arguments.store or [str(Path(folder) / name) for name in ("broker", "user")]
        found = asyncio.run(measure(arguments.requests, tuple(stores), arguments.seed))
    print(json.dumps(found))
    sys.exit(1 if found["violations"] else 0)


if __name__ == "__main__":
    main()
