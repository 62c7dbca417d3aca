"""A day of a whole market in half a minute: two providers, ten users, one recorder, one chain.

    async with open_day(folder, anvil_cache, say=print) as day:
        await day.play()                            # until the brokers have settled, by themselves
        account = await read_account(day)           # tests/network/day_account.py

Four watches of six hours: in three every user buys one answer of each provider, whole or streamed;
some are cut by their user, in each watch an engine of each provider breaks once. In the last watch
nobody buys. At noon one user asks for money back. Only the chain's clock is moved, by which brokers
settle; offers and deadlines live in real seconds. Nobody calls for a settlement: the brokers'
scheduler does, once something has waited for a day.

Real are node, contracts, transactions, brokers, recorder, SDK, keys, books and HTTP. Not real: the
engine (`echo`, whose tokens come at a set pace), and the asset, which anyone may mint. Brokers,
recorder and users run in this process, each with its own database.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.chain import Event, Key, create_key
from hanse.chain.asset import Asset
from hanse.engines import open_engine
from hanse.engines.echo_engine import EchoEngine, Fault
from hanse.protocol.errors import TransientError
from hanse.protocol.messages import Prices
from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings, Service
from hanse.recorder import RecorderProcess, RecorderSettings
from hanse.recorder.lifecycle import DATABASE_NAME as RECORDER_DATABASE
from hanse.sdk import Hanse, Settings
from hanse.settlement.records.submitter import RecordsSettings
from tests.network.market import until
from tests.provider.chain_parts import STAKE, Market, run_market

PROVIDERS = ("lubeck", "hamburg")
USERS = ("ada", "bo", "cai", "dina", "emil", "fatma", "goran", "hana", "ivo", "jin")
REFUNDED = "dina"
"""Who asks for money back at noon, from the first provider."""

DAY_S = 86_400
WATCH_S = 6 * 3_600
BUYING_WATCHES = 3
NOON_WATCH = 2
FUNDED = 2_000_000
"""Base units that each user sets aside for each provider."""

REFUND = 500_000
PRICES = Prices(100_000_000, 50_000_000, 1_000_000_000)
NATIVE_PRICE = 2_500_000
"""Base units for 10**18 wei. anvil asks about 1 gwei a gas: together as a native coin at 2,500 on a
chain of 0.001 gwei, so that the rule of 1 % decides something."""

TOKENS = 16
TOKEN_DELAY_S = 0.01
INTERVAL_BLOCKS = 10
BLOCK_S = 0.1
"""Between empty blocks while the recorder is waited for."""

CUT_AFTER = 3
"""Chunks that a user who cuts its stream reads of it."""

LIMIT_S = 90.0
"""For one thing to come about on a machine that is busy with others; usually within a second."""

Say = Callable[[str], None]


@dataclass
class Seller:
    """A provider and its running broker; `engine` is the fake."""

    name: str
    owner: Key
    engine: EchoEngine
    broker: BrokerProcess


@dataclass
class User:
    """A user with wallet, session key and SDK of its own."""

    name: str
    wallet: Key
    signer: Key
    hanse: Hanse
    wishes: list[str] = field(default_factory=list)


@dataclass
class Day:
    """The market of the day; `play` lets it pass."""

    folder: Path
    market: Market
    recorder: RecorderProcess
    say: Say
    sellers: list[Seller] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    commits_after_watch: list[int] = field(default_factory=list)
    settled_early: list[Event] = field(default_factory=list)

    async def play(self) -> None:
        """Four watches, the settlements at their end, and the refund a day after noon."""
        for watch in range(BUYING_WATCHES):
            if watch == NOON_WATCH:
                await self._ask_refund()
            await self._buy(watch)
            await self._wait_committed()
            await self._note_watch(f"watch {watch + 1}")
            await self.market.node.advance_time(WATCH_S)
        await self._wait_recorded()
        self.settled_early = await self.read_events("Settled")
        await self._note_watch(f"watch {BUYING_WATCHES + 1}, in which nobody buys")
        await self.market.node.advance_time(WATCH_S + 600)

        async def is_settled() -> bool:
            return len(await self.read_events("Settled")) >= len(self.sellers)

        await until(is_settled, LIMIT_S, "the brokers settle by themselves")
        self.say("the day is over; both brokers have settled by themselves")
        await self._wait_refunded()

    async def read_events(self, name: str) -> list[Event]:
        """Escrow's events of one kind since the beginning, in order."""
        rpc, contract = self.market.rpc, self.market.escrow.contract
        head = await rpc.fetch_head()
        logs = await rpc.fetch_logs([contract.address], first=0, last=head.number)
        found = (contract.find_event(log, 0) for log in logs)
        return [event for event in found if event is not None and event.name == name]

    async def fetch_commit_logs(self) -> list[dict[str, Any]]:
        """What a node answers to `eth_getLogs` for Records, as it comes."""
        query = {"address": self.market.deployment.records, "fromBlock": "0x0", "toBlock": "latest"}
        return list(await self.market.rpc.request("eth_getLogs", query))

    # what happens in a watch

    async def _buy(self, watch: int) -> None:
        """Each user one answer of each; those whose engine breaks come last, one after another."""
        failing = []
        buying = []
        for number, user in enumerate(self.users):
            for side, seller in enumerate(self.sellers):
                wish = choose_wish(number, watch, side)
                user.wishes.append(wish)
                if wish.startswith("failed"):
                    failing.append((user, seller, wish))
                else:
                    buying.append(buy(user, seller, wish))
        await asyncio.gather(*buying)
        for user, seller, wish in failing:
            seller.engine.fault = Fault(kind="break", after_tokens=2)
            await buy(user, seller, wish)
            seller.engine.fault = Fault()
        for user in self.users:
            await user.hanse.wait_idle()

    async def _wait_committed(self) -> None:
        """All that was bought is matched; then blocks pass until it is under roots of the chain."""
        bought = sum(len(user.wishes) for user in self.users)
        path = self.folder / "recorder" / RECORDER_DATABASE

        def are_matched() -> bool:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as books:
                ((count,),) = books.execute("SELECT COUNT(*) FROM record_leaves").fetchall()
            return bool(count == bought)

        await until(are_matched, LIMIT_S, "all receipts are matched")
        await self.market.node.mine(INTERVAL_BLOCKS)

        async def are_committed() -> bool:
            await self.market.node.mine()
            await asyncio.sleep(
                BLOCK_S
            )  # else a promised block passes while its root is on its way
            return (
                sum(int(log["data"][66:130], 16) for log in await self.fetch_commit_logs())
                == bought
            )

        await until(are_committed, LIMIT_S, "all receipts are under roots of the chain")

    async def _wait_recorded(self) -> None:
        """Every side holds the proof of each of its receipts."""

        async def are_recorded() -> bool:
            await self.market.node.mine()
            await asyncio.sleep(BLOCK_S)
            return all(
                [
                    await side.records.book.count_states() == {"recorded": held}
                    for side, held in await self._list_sides()
                ]
            )

        await until(are_recorded, LIMIT_S, "all sides hold their proofs")

    async def _list_sides(self) -> list[tuple[Any, int]]:
        """Every user and broker with how many receipts it has to have; the users' are the truth."""
        sides: list[tuple[Any, int]] = []
        of_sellers = dict.fromkeys(PROVIDERS, 0)
        for user in self.users:
            counts = [await count_receipts(user, seller) for seller in self.sellers]
            assert sum(counts) == len(user.wishes), f"{user.name}: a receipt for each wish"
            sides.append((user.hanse, sum(counts)))
            for seller, count in zip(self.sellers, counts, strict=True):
                of_sellers[seller.name] += count
        return sides + [(seller.broker, of_sellers[seller.name]) for seller in self.sellers]

    async def _note_watch(self, name: str) -> None:
        commits = len(await self.fetch_commit_logs())
        self.commits_after_watch.append(commits)
        bought = sum(len(user.wishes) for user in self.users)
        self.say(f"{name}: {bought} answers bought, {commits} roots committed so far")

    async def _ask_refund(self) -> None:
        user, seller = self.get_user(REFUNDED), self.sellers[0]
        await user.hanse.account.request_refund(seller.owner.address, REFUND)
        view = seller.broker.broker.parts.chain_view

        def is_seen() -> bool:
            funds = view.find_funds(user.wallet.address, user.signer.address)
            return funds is not None and funds.pending_refund == REFUND

        await until(is_seen, LIMIT_S, "the broker sees the refund")
        self.say(f"{REFUNDED} asks {seller.name} for {REFUND} base units back")

    async def _wait_refunded(self) -> None:
        """The next noon: the broker completes what has unlocked."""
        await self.market.node.advance_time(DAY_S // 2)
        wallet = self.get_user(REFUNDED).wallet.address

        async def is_back() -> bool:
            head = await self.market.rpc.fetch_head()
            return await self.market.escrow.read_account(wallet, block=head.number) == REFUND

        await until(is_back, LIMIT_S, "the broker completes the refund")
        self.say(f"the next noon: the refund of {REFUNDED} is completed by the broker")

    def get_user(self, name: str) -> User:
        return next(user for user in self.users if user.name == name)


def choose_wish(number: int, watch: int, side: int) -> str:
    """What a user does: the same each day; everybody gets two whole answers of each provider."""
    kind = (number + 3 * watch + 5 * side) % len(USERS)
    if kind == 0:
        return "failed stream" if (watch + side) % 2 else "failed"
    if kind in (1, 2):
        return "cut"
    return "stream" if kind % 2 else "whole"


async def buy(user: User, seller: Seller, wish: str) -> None:
    """One answer, brought to the end that was wished for; a refusal before it costs nothing."""
    model, words = f"echo-{seller.name}", f"{user.name} asks {seller.name} for some words"
    messages = [{"role": "user", "content": words}]
    is_stream = wish in ("stream", "cut", "failed stream")

    async def ask() -> bool:
        before = await count_receipts(user, seller)
        try:
            answer = await user.hanse.chat(model, messages, stream=is_stream, max_tokens=TOKENS)
            if is_stream:
                await _read_stream(answer, CUT_AFTER if wish == "cut" else TOKENS + 10)
        except TransientError:
            await user.hanse.wait_idle()
            # without a receipt it was not admitted: right after a failure nobody is asked
            return await count_receipts(user, seller) > before
        assert not wish.startswith("failed"), "an engine that breaks gives no whole answer"
        return True

    await until(ask, LIMIT_S, f"{user.name} is served by {seller.name}")


async def count_receipts(user: User, seller: Seller) -> int:
    """How many receipts of a provider a user holds."""
    stored = await user.hanse.get_receipts(limit=1_000)
    return sum(found.signed.receipt.provider == seller.owner.address for found in stored)


async def _read_stream(stream: Any, chunks_max: int) -> None:
    async with stream:
        chunks = 0
        async for _ in stream:
            chunks += 1
            if chunks == chunks_max:
                return


@contextlib.asynccontextmanager
async def open_day(folder: Path, cache: Path, say: Say) -> AsyncIterator[Day]:
    """Start everything: chain, contracts, recorder, two brokers, ten users with their money."""
    async with contextlib.AsyncExitStack() as stack:
        market = await stack.enter_async_context(
            run_market(folder / "chain", cache, lock_time_s=DAY_S)
        )
        settings = RecorderSettings(
            data_dir=folder / "recorder",
            rpc_url=market.url,
            deployment=market.deployment,
            interval_blocks=INTERVAL_BLOCKS,
            poll_interval_s=0.1,
        )
        recorder = await RecorderProcess.start(settings, await market.make_key())
        stack.push_async_callback(recorder.stop)
        day = Day(folder, market, recorder, say)
        day.sellers += await asyncio.gather(*(_start_seller(day, name) for name in PROVIDERS))
        for seller in day.sellers:
            stack.push_async_callback(seller.broker.stop)
        say("chain, contracts, recorder and two brokers are up")
        wallets = [await market.make_key() for _ in USERS]
        asset = Asset(market.rpc, market.deployment.asset)
        total = FUNDED * len(PROVIDERS)
        await market.do(market.owner, *(asset.mint(key.address, total) for key in wallets))
        for name, wallet in zip(USERS, wallets, strict=True):
            settings_of_user = _get_user_settings(day, name, wallet)
            hanse = await stack.enter_async_context(Hanse.open(settings_of_user))
            day.users.append(User(name, wallet, settings_of_user.signer, hanse))
        funds = {seller.owner.address: FUNDED for seller in day.sellers}
        await asyncio.gather(*(user.hanse.account.open(total, funds) for user in day.users))
        await _wait_ready(day)
        say("ten users have paid in, each with one transaction")
        yield day


async def _start_seller(day: Day, name: str) -> Seller:
    market = day.market
    if name == PROVIDERS[0]:
        owner, receipt = market.owner, market.receipt  # it has its stake already
    else:
        owner, receipt = await market.make_key(), await market.make_key()
        asset = Asset(market.rpc, market.deployment.asset)
        await market.do(owner, asset.mint(owner.address, STAKE))
    engine = open_engine(
        "echo",
        {"model": f"echo-{name}", "answer_tokens": TOKENS, "token_delay_s": TOKEN_DELAY_S},
    )
    assert isinstance(engine, EchoEngine)
    settings = BrokerSettings(
        provider=owner.address,
        data_dir=day.folder / name,
        rpc_url=market.url,
        deployment=market.deployment,
        stake=STAKE,
        native_price=NATIVE_PRICE,
        maintenance_interval_s=0.3,
        records=_get_records_settings(day),
    )
    broker = await BrokerProcess.start(
        settings, BrokerKeys(receipt, owner), [Service(1, engine, PRICES)]
    )
    return Seller(name, owner, engine, broker)


def _get_user_settings(day: Day, name: str, wallet: Key) -> Settings:
    return Settings(
        day.market.url,
        day.market.deployment,
        day.folder / f"{name}.db",
        signer=create_key(),
        user=wallet.address,
        wallet=wallet,
        records=_get_records_settings(day),
        discover_interval_s=0,
        resume_interval_s=2.0,
    )


def _get_records_settings(day: Day) -> RecordsSettings:
    return RecordsSettings((day.recorder.url,), interval_s=0.5, resume_s=1.0)


async def _wait_ready(day: Day) -> None:
    """Every broker sees every sub-account, every user both offers."""
    for seller in day.sellers:
        view = seller.broker.broker.parts.chain_view
        await until(lambda view=view: len(view.list_funds()) == len(day.users), LIMIT_S, "funds")
    for user in day.users:

        async def has_offers(hanse: Hanse = user.hanse) -> bool:
            await hanse.discover()
            return len(hanse.get_offers()) == len(day.sellers)

        await until(has_offers, LIMIT_S, f"{user.name} sees both offers")
