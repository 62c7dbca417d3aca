"""Who buys: a user with the SDK, a gateway over it, and the application that asks the gateway."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import msgspec

from chaos.machine.network import ChaosTransport
from chaos.market.components import Component
from chaos.market.recording import RECORDS, open_record_seams
from chaos.market.sellers import MODEL
from chaos.market.tracing import open_chaos_traces
from chaos.world import World, get_key
from hanse.chain import verify_deployment
from hanse.chain.outbox import Outbox
from hanse.gateway import GatewayApp, GatewaySettings
from hanse.gateway.keys import ApiKeys, open_api_keys
from hanse.protocol.errors import HanseError
from hanse.sdk import Hanse
from hanse.sdk.account import Account
from hanse.sdk.chain_view import open_chain
from hanse.sdk.client import HanseParts
from hanse.sdk.disputes import Disputes
from hanse.sdk.transport import TransportLimits, read_body
from hanse.settlement.books.voucher_book import open_voucher_book
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.settlement.disputes.dispute_book import open_dispute_book
from hanse.settlement.records.sides import open_user_submitter
from hanse.settlement.traces.document import Side

CHAT = "/v1/chat/completions"
LIMITS = TransportLimits(connect_s=2.0, silence_s=6.0, whole_s=15.0, total_s=60.0)


class UserComponent(Component):
    """A wallet that buys by the SDK.

    Attributes:
        hanse: the client of the present life, once it is open.
        pending: moves of money that were begun, by their idempotency key; one that a crash or a
            fault cut short is begun again with the same key.
        at_work: tasks of the present life.
    """

    has_traces = False

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.key = get_key(name)
        self.hanse: Hanse | None = None
        self.outcomes: Counter[str] = Counter()
        self._random = world.lot_of(f"{name}/bytes")
        self._number = 0

    async def main(self) -> None:
        """See `Component`."""
        self.hanse = None
        world, deployment = self.world, self.world.deployment
        async with contextlib.AsyncExitStack() as stack:
            database = self.open_database()
            stack.push_async_callback(database.close)
            rpc = self.connect()
            await verify_deployment(rpc, deployment)
            address = self.key.address
            chain = await open_chain(rpc, deployment, database, address, address)
            outbox = Outbox(
                rpc,
                self.key,
                await open_outbox_storage(database),
                chain_id=deployment.chain_id,
                confirmations=deployment.confirmations,
                clock=world.loop.time,
            )
            account = Account(rpc, deployment, chain, address, address, outbox, self.key)
            book = await open_voucher_book(database, world.domain)
            disputes = Disputes(
                await open_dispute_book(database, world.domain),
                *(book, chain, address, outbox, account.escrow, account.registry),
                auto=True,
                clock=self.get_time_s,
            )
            traces = None
            if self.has_traces:
                traces = await open_chaos_traces(self, database, Side.USER)
                await stack.enter_async_context(traces)
            parts = HanseParts(
                domain=world.domain,
                user=address,
                signer=self.key,
                book=book,
                chain=chain,
                transport=ChaosTransport(world.network),
                limits=LIMITS,
                account=account,
                disputes=disputes,
                traces=traces,
                clock=self.get_time_s,
                random_bytes=self._random.randbytes,
                discover_interval_s=4.0,
                resume_interval_s=6.0,
                dispute_interval_s=5.0,
            )
            hanse = await stack.enter_async_context(Hanse.join(parts))
            await account.start(stack)
            hanse.records = await stack.enter_async_context(
                open_user_submitter(
                    *(RECORDS, address, self.key, database, rpc, deployment),
                    traces.find_trace_hash if traces else None,
                    hanse._resumer.resume_provider,
                    open_record_seams(self),
                )
            )
            recording = asyncio.create_task(hanse.records.run())
            stack.callback(recording.cancel)  # where the rest of the start fails
            await self.open_more(hanse, database)
            self.hanse = hanse
            world.note(f"{self.name} is open")
            await recording  # for ever, unless it breaks

    async def open_more(self, hanse: Hanse, database: Any) -> None:
        """What a component has beside the client."""

    @property
    def is_open(self) -> bool:
        """Whether it can buy and move money."""
        return self.is_alive and self.hanse is not None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a piece of work in the present life, if there is one."""
        if not self.is_open or self.process is None:
            work.close()
            return
        self.process.spawn(work)

    async def buy(self, lot: Random) -> None:
        """One request, whole or streamed, perhaps left in the middle."""
        assert self.hanse is not None
        body = make_body(lot)
        leave_after = lot.choice((None, None, None, 0, 1, 5, 20))
        patience_s = lot.choice((30.0, 30.0, 30.0, 0.05, 1.0))
        try:
            async with asyncio.timeout(patience_s):
                answer = await self.hanse.request(CHAT, msgspec.json.encode(body))
                async with answer:
                    if not answer.is_stream:
                        await answer.read()
                    else:
                        count = 0
                        async for _ in answer.frames():
                            count += 1
                            if leave_after is not None and count > leave_after:
                                break
            self.outcomes["answered"] += 1
        except HanseError as error:
            self.outcomes[error.code] += 1
        except TimeoutError:
            self.outcomes["left"] += 1

    async def move(
        self, what: Callable[[Account, str], Coroutine[Any, Any, Any]], name: str
    ) -> None:
        """One move of money, under a key of its own."""
        assert self.hanse is not None
        self._number += 1
        key = f"{name}-{self._number}"
        try:
            await what(self.hanse.account, key)
            self.outcomes[name] += 1
        except HanseError as error:
            self.outcomes[f"{name}: {error.code}"] += 1
            self.world.note(f"{self.name} {key}: {error.message[:200]}")


class GatewayComponent(UserComponent):
    """A gateway: the same client, with OpenAI's API in front of it."""

    URL = "http://gateway"
    has_traces = True

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.api_key = ""

    async def open_more(self, hanse: Hanse, database: Any) -> None:
        """Serve applications."""
        keys: ApiKeys = await open_api_keys(database, self.get_time_s, self._random.randbytes)
        _, self.api_key = await keys.create("application")
        app = GatewayApp(
            GatewaySettings(send_stall_s=8.0),
            hanse,
            keys,
            clock_s=self.world.loop.time,
            random_bytes=self._random.randbytes,
        )
        assert self.process is not None
        self.world.network.listen(self.URL, app, self.process)


class Application:
    """Somebody's program that asks the gateway; it keeps nothing."""

    def __init__(self, world: World, gateway: GatewayComponent) -> None:
        self.outcomes: Counter[str] = Counter()
        self._world = world
        self._gateway = gateway
        self._process = world.loop.create_process("application")

    def ask(self, lot: Random) -> None:
        """One request to the gateway, perhaps left in the middle."""
        self._process.spawn(self._ask(lot))

    async def _ask(self, lot: Random) -> None:
        body = msgspec.json.encode(make_body(lot))
        headers = {
            "authorization": f"Bearer {self._gateway.api_key}",
            "content-type": "application/json",
        }
        patience_s = lot.choice((40.0, 40.0, 0.1, 1.0))
        transport = ChaosTransport(self._world.network)
        try:
            async with asyncio.timeout(patience_s):
                response = await transport.send(
                    "POST", self._gateway.URL + CHAT, headers, body, silence_s=20.0
                )
                try:
                    await read_body(response, 1_000_000)
                finally:
                    response.close()
            self.outcomes[f"status {response.status}"] += 1
        except HanseError as error:
            self.outcomes[error.code] += 1
        except TimeoutError:
            self.outcomes["left"] += 1


def make_body(lot: Random) -> dict[str, Any]:
    """A chat request of a few words."""
    words = " ".join(f"w{lot.randrange(1_000)}" for _ in range(lot.randint(1, 30)))
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": lot.choice((1, 4, 16, 40)),
    }
    if lot.random() < 0.6:
        body["stream"] = True
        if lot.random() < 0.3:
            body["stream_options"] = {"include_usage": True}
    return body
