"""Keys, limits and ladders as an application meets them: gateway, SDK and fake brokers for real."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.gateway.budgets.admission import Budgets, open_budgets
from hanse.gateway.budgets.configuration import GatewayBudgets, Step
from hanse.gateway.budgets.limits import Limits
from hanse.gateway.exchange import Exchange
from hanse.gateway.keys import ApiKeys, AtLimit, KeyTerms
from hanse.gateway.openapi import get_description
from hanse.protocol.messages import Prices
from hanse.sdk import Hanse
from hanse.sdk.purchase.spending import open_guarded_book
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.store import Database, open_database, open_memory
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import CHUNK_MODEL, MemoryMarket, until
from tests.sdk.conftest import DOMAIN, World, to_service
from tests.sdk.fake_broker import FakeBroker

CHAT = "/v1/chat/completions"
PATHS = get_description()["paths"]
FEE, TOKENS = 22, 16
"""What the cheap broker's answer takes: 10 tokens at 1 base unit in, 6 at 2 out."""


class Gateway:
    """A gateway in memory before the world's market."""

    def __init__(self, world: World, hanse: Hanse, keys: ApiKeys, budgets: Budgets) -> None:
        self.world, self.hanse, self.keys, self.budgets = world, hanse, keys, budgets
        settings = GatewaySettings(allowed_origins=("https://game.example",))
        self.app = GatewayApp(settings, hanse, keys, budgets=budgets)

    async def make_key(self, **terms: Any) -> str:
        return (await self.keys.create("test", KeyTerms(**terms)))[1]

    async def ask(self, key: str, path: str, body: Any, **headers: str) -> Caller:
        given = {"authorization": f"Bearer {key}", **headers}
        caller = Caller("POST", path, given, [json.dumps(body).encode()])
        answer = await asyncio.create_task(caller.run(self.app, within_s=10))
        assert not answer.status or str(answer.status) in PATHS[path]["post"]["responses"]
        return answer

    async def chat(self, key: str, **fields: Any) -> Caller:
        body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}
        return await self.ask(key, CHAT, body | fields)

    async def set(self, **settings: Any) -> None:
        await self.budgets.configuration.change(lambda _: GatewayBudgets(**settings))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    database = await open_memory()
    async with open_gateway(World(tmp_path), database) as opened:
        yield opened
    await database.close()


@contextlib.asynccontextmanager
async def open_gateway(world: World, database: Database) -> AsyncIterator[Gateway]:
    small = Prices(100_000, 50_000, 200_000)
    world.small = FakeBroker(  # type: ignore[attr-defined]
        DOMAIN, b"\x33" * 32, world.clock, url="http://small", prices=small, model="small"
    )
    world.brokers.append(world.small)  # type: ignore[attr-defined]
    world.chain.services = [to_service(broker) for broker in world.brokers]
    world.chain.funds[world.small.provider] = world.chain.funds[world.cheap.provider]  # type: ignore[attr-defined]
    world.transport.apps[world.small.url] = world.small  # type: ignore[attr-defined]
    world.open_book = open_guarded_book
    try:
        async with world.open() as hanse:
            keys = await open_api_keys(database, world.clock)
            yield Gateway(
                world, hanse, keys, await open_budgets(database, keys, hanse, world.clock)
            )
    finally:
        await world.transport.close()


# prices


async def test_a_quote_tells_each_providers_price_and_buys_nothing(gateway: Gateway) -> None:
    gateway.world.chain.funds[gateway.world.dear.provider] = SubAccountFunds(100, 0)
    key = await gateway.make_key(models=("echo",))
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}
    answer = await gateway.ask(key, "/hanse/v1/quote", {"path": CHAT, "body": body})
    cheap, dear = json.loads(answer.body)["quotes"]
    sent = len(json.dumps(body).encode())
    assert (cheap["provider"], cheap["obstacle"]) == (gateway.world.cheap.provider, None)
    assert int(cheap["maximum_fee"]) == sent + 512 + 2 * 6
    assert int(cheap["expected_fee"]) == sent // 4 + 2 * 6
    assert (dear["provider"], int(dear["maximum_fee"])) == (
        gateway.world.dear.provider,
        2 * int(cheap["maximum_fee"]),
    )
    assert "free are 100" in dear["obstacle"]
    assert gateway.world.cheap.paid_requests == 0
    other = await gateway.ask(key, "/hanse/v1/quote", {"body": body | {"model": "small"}})
    assert other.status == 403


async def test_a_question_for_a_quote_counts_and_is_answered_briefly(gateway: Gateway) -> None:
    key = await gateway.make_key(limits=Limits(requests_per_day=1))
    question = {"path": CHAT, "body": {"model": "echo", "messages": []}}
    asked = [await gateway.ask(key, "/hanse/v1/quote", question) for _ in range(2)]
    assert [answer.status for answer in asked] == [200, 429]
    (best,) = gateway.hanse.quote(CHAT, json.dumps(question["body"]).encode(), most=1)
    assert best.provider == gateway.world.cheap.provider
    gateway.app.apply(GatewaySettings(body_bytes_max=500, body_bytes_in_flight_max=500))
    other = Caller("POST", CHAT)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 500}

    held = gateway.keys.find(key)
    assert held is not None
    with gateway.app.paid.hold(Exchange(other.scope, receive, other.run, "req_1"), held) as read:
        await read(1.0)
        full = await gateway.ask(await gateway.make_key(), "/hanse/v1/quote", question)
    assert full.error["code"] == "overloaded"


@pytest.mark.parametrize(
    "question", [{}, {"body": 1}, {"body": {"model": 1}}, {"body": {}, "x": 1}]
)
async def test_a_question_for_a_quote_is_read_strictly(gateway: Gateway, question: Any) -> None:
    answer = await gateway.ask(await gateway.make_key(), "/hanse/v1/quote", question)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


# limits


async def test_requests_over_the_limit_are_told_when_to_try_again(gateway: Gateway) -> None:
    key = await gateway.make_key(limits=Limits(requests_per_minute=2))
    statuses = [(await gateway.chat(key)).status for _ in range(2)]
    refused = await gateway.chat(key)
    assert [*statuses, refused.status] == [200, 200, 429]
    assert refused.error["code"] == "rate_limited"
    assert refused.error["type"] == "rate_limit_error"
    assert 60 <= int(refused.headers["retry-after"]) <= 63
    assert gateway.world.cheap.paid_requests == 2
    gateway.world.clock.now += int(refused.headers["retry-after"])
    assert (await gateway.chat(key)).status == 200


async def test_money_over_the_limit_is_a_402_with_amounts(gateway: Gateway) -> None:
    key = await gateway.make_key(limits=Limits(money_per_day=700))
    assert (await gateway.chat(key)).status == 200
    while (answer := await gateway.chat(key)).status == 200:
        assert gateway.world.cheap.paid_requests < 40
    assert (answer.status, answer.error["code"]) == (402, "budget_exhausted")
    facts = answer.error["hanse"]
    spent = gateway.world.cheap.paid_requests * FEE
    assert (facts["limit"], facts["spent"], facts["window"]) == ("700", str(spent), "day")
    assert int(facts["needed"]) > int(facts["available"]) == 700 - spent
    assert facts["whose"] == "this API key"
    assert float(facts["retry_after_s"]) > 86_000


class AskedKeeper:
    """Notes what it was asked to fund."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def fund_for(self, service_type: str, model: str) -> bool:
        self.asked.append((service_type, model))
        return False


async def test_nothing_is_funded_for_a_key_that_may_not_spend_it(gateway: Gateway) -> None:
    for broker in gateway.world.brokers:
        gateway.world.chain.funds[broker.provider] = SubAccountFunds(1, 0)
    keeper = AskedKeeper()
    gateway.hanse.upkeep = keeper  # type: ignore[assignment]
    poor = await gateway.make_key(limits=Limits(money_per_day=5))
    answer = await gateway.chat(poor)
    assert (answer.error["code"], keeper.asked) == ("budget_exhausted", [])
    await gateway.chat(await gateway.make_key(limits=Limits(money_per_day=5_000)))
    assert keeper.asked == [("chat", "echo")]


async def test_tokens_are_counted_as_receipts_say(gateway: Gateway) -> None:
    key = await gateway.make_key(limits=Limits(tokens_per_minute=1_000))
    bought = 0
    while (answer := await gateway.chat(key)).status == 200:
        bought += 1
    assert (answer.status, answer.error["hanse"]["spent"]) == (429, str(bought * TOKENS))
    assert bought > 20


async def test_a_request_that_never_fits_is_told_so(gateway: Gateway) -> None:
    key = await gateway.make_key(limits=Limits(tokens_per_day=100))
    refused = await gateway.chat(key)
    assert refused.status == 429
    assert "ask for fewer tokens" in refused.error["message"]
    never = await gateway.make_key(limits=Limits(requests_per_day=0))
    message = (await gateway.chat(never)).error["message"]
    assert message.endswith("may take 0 a day: have the limit raised")


async def test_a_dear_provider_serves_within_the_limit_while_the_cheap_one_is_full(
    gateway: Gateway,
) -> None:
    cheap, dear = gateway.world.cheap.provider, gateway.world.dear.provider
    gateway.world.cheap.refuse = (503, "overloaded")
    key = await gateway.make_key(limits=Limits(money_per_day=2_000))
    first = await gateway.chat(key)
    gateway.world.cheap.refuse = None
    gateway.world.clock.now += 120
    second = await gateway.chat(key)
    assert (first.status, first.headers["hanse-provider"]) == (200, dear)
    assert (second.status, second.headers["hanse-provider"]) == (200, cheap)


async def test_a_dear_provider_gives_way_to_a_cheaper_one_that_fits(gateway: Gateway) -> None:
    cheap, dear = gateway.world.cheap.provider, gateway.world.dear.provider
    for provider, token_s in ((cheap, 0.1), (dear, 0.01)):
        for _ in range(3):
            gateway.hanse.chooser.board.measured.report_stream(
                (provider, 1), token_s, 101 * token_s, 101
            )
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}
    for limit, provider in ((2_000, dear), (1_000, cheap)):  # the dear one may come to 1,200
        key = await gateway.make_key(limits=Limits(money_per_day=limit))
        answer = await gateway.ask(key, CHAT, body, **{"hanse-policy": "fastest"})
        assert (answer.status, answer.headers["hanse-provider"]) == (200, provider)


async def test_a_limit_is_told_by_what_the_cheapest_needs(gateway: Gateway) -> None:
    cheap, dear = gateway.world.cheap.provider, gateway.world.dear.provider
    for provider, token_s in ((cheap, 0.1), (dear, 0.01)):
        for _ in range(3):
            gateway.hanse.chooser.board.measured.report_stream(
                (provider, 1), token_s, 101 * token_s, 101
            )
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}
    least = gateway.hanse.quote(CHAT, json.dumps(body).encode())[0].maximum_fee
    key = await gateway.make_key(limits=Limits(money_per_day=least - 1))
    refused = await gateway.ask(key, CHAT, body, **{"hanse-policy": "fastest"})
    assert (refused.status, refused.error["code"]) == (402, "budget_exhausted")
    assert refused.error["hanse"]["needed"] == str(least)  # the dear one's is twice that
    assert gateway.world.cheap.paid_requests == gateway.world.dear.paid_requests == 0


async def test_each_end_user_has_limits_of_its_own(gateway: Gateway) -> None:
    key = await gateway.make_key(user_limits=Limits(requests_per_day=1))
    for user in ("player-1", "player-2", None):
        fields = {} if user is None else {"user": user}
        first, second = await gateway.chat(key, **fields), await gateway.chat(key, **fields)
        assert (first.status, second.status) == (200, 429)
        assert second.error["hanse"]["whose"] == "this end user"


async def test_the_gateways_limit_holds_over_all_keys(gateway: Gateway) -> None:
    await gateway.set(limits=Limits(requests_per_minute=3))
    keys = [await gateway.make_key() for _ in range(5)]
    answers = await asyncio.gather(*(gateway.chat(key) for key in keys))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 429, 429]


async def test_money_holds_exactly_under_concurrency(gateway: Gateway) -> None:
    key = await gateway.make_key(limits=Limits(money_per_day=3_000))
    statuses = {200}
    while 200 in statuses:
        answers = await asyncio.gather(*(gateway.chat(key) for _ in range(12)))
        statuses = {answer.status for answer in answers}
    spent = gateway.world.cheap.book.cumulative_fee + gateway.world.dear.book.cumulative_fee
    assert 3_000 - 700 <= spent <= 3_000  # 700: no request can take more


async def test_what_a_lost_answer_cost_counts_once_it_is_known(gateway: Gateway) -> None:
    gateway.world.dear.refuse = (503, "overloaded")
    gateway.world.cheap.lie = "cut-before-receipt"
    key = await gateway.make_key(limits=Limits(money_per_day=10_000))
    await gateway.chat(key, stream=True)
    await gateway.hanse.wait_idle()
    gateway.world.cheap.lie = ""
    await gateway.hanse.resume()
    held = gateway.budgets.ledger._list_rows()
    assert sum(row.used[2] for row in held) == gateway.world.cheap.book.cumulative_fee > 0
    assert all(not row.open for row in held)


async def test_limits_hold_over_gateways_that_share_a_database(
    tmp_path: Path, database_url: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gateways = []
        for name in ("one", "two", "three"):
            (tmp_path / name).mkdir()
            database = await open_database(database_url)
            stack.push_async_callback(database.close)
            world = World(tmp_path / name)
            gateways.append(await stack.enter_async_context(open_gateway(world, database)))
        key = await gateways[0].make_key(limits=Limits(money_per_day=4_000, requests_per_day=30))
        statuses, rounds = {200}, 0
        while 200 in statuses and rounds < 30:
            rounds += 1
            asked = [gateway.chat(key) for gateway in gateways for _ in range(3)]
            statuses = {answer.status for answer in await asyncio.gather(*asked)}
            for gateway in gateways:
                await gateway.budgets.ledger.flush()
        brokers = [b for gateway in gateways for b in (gateway.world.cheap, gateway.world.dear)]
        assert 20 <= sum(broker.paid_requests for broker in brokers) <= 30
        assert sum(broker.book.cumulative_fee for broker in brokers) <= 4_000


# at a limit


async def test_a_key_that_queues_waits_for_what_comes_free(gateway: Gateway) -> None:
    key = await gateway.make_key(
        limits=Limits(money_per_day=700), at_limit=AtLimit.QUEUE, queue_s=20
    )
    started, go_on = asyncio.Event(), asyncio.Event()

    async def hold(number: int) -> None:
        started.set()
        await go_on.wait()

    gateway.world.cheap.at_frame = hold
    first = asyncio.create_task(gateway.chat(key, stream=True))
    await started.wait()
    second = asyncio.create_task(gateway.chat(key))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not second.done()
    go_on.set()
    assert ((await first).status, (await second).status) == (200, 200)


async def test_a_request_that_waits_is_not_bought_once_its_key_is_revoked(
    gateway: Gateway,
) -> None:
    gateway.app.apply(GatewaySettings(requests_max=1))
    started, go_on = asyncio.Event(), asyncio.Event()

    async def hold(number: int) -> None:
        started.set()
        await go_on.wait()

    gateway.world.cheap.at_frame = hold
    key, other = [await gateway.make_key() for _ in range(2)]
    first = asyncio.create_task(gateway.chat(other, stream=True))
    await started.wait()
    second = asyncio.create_task(gateway.chat(key))
    await until(lambda: gateway.app.paid.waiting == 1)
    revoked = gateway.keys.find(key)
    assert revoked is not None
    await gateway.keys.revoke(revoked.id)
    go_on.set()
    assert ((await first).status, (await second).error["code"]) == (200, "api_key_invalid")
    assert gateway.world.cheap.paid_requests == 1


async def test_a_key_that_queues_waits_no_longer_than_it_may(gateway: Gateway) -> None:
    key = await gateway.make_key(
        limits=Limits(requests_per_day=1), at_limit=AtLimit.QUEUE, queue_s=0.05
    )
    assert [(await gateway.chat(key)).status for _ in range(2)] == [200, 429]


LADDER = (Step(model="small"), Step(canned="The innkeeper nods."))


async def test_a_key_that_degrades_gets_the_smaller_model_and_is_told(gateway: Gateway) -> None:
    await gateway.set(ladders={"npc": LADDER})
    key = await gateway.make_key(
        limits=Limits(money_per_day=500), at_limit=AtLimit.DEGRADE, ladder="npc"
    )
    answer = await gateway.chat(key)
    assert (answer.status, answer.headers["hanse-degraded"]) == (200, "small")
    assert answer.headers["hanse-provider"] == gateway.world.small.provider  # type: ignore[attr-defined]
    assert gateway.world.cheap.paid_requests == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_the_last_step_costs_nothing(gateway: Gateway, stream: bool) -> None:
    await gateway.set(ladders={"npc": LADDER})
    key = await gateway.make_key(
        limits=Limits(requests_per_day=0), at_limit=AtLimit.DEGRADE, ladder="npc"
    )
    answer = await gateway.chat(key, stream=stream)
    assert (answer.status, answer.headers["hanse-degraded"]) == (200, "canned")
    assert b"The innkeeper nods." in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n") or not stream
    assert gateway.world.small.paid_requests == 0  # type: ignore[attr-defined]


async def test_a_step_may_be_the_gateways_own_engine(gateway: Gateway) -> None:
    await gateway.set(ladders={"npc": (Step(local=True),)})
    key = await gateway.make_key(
        limits=Limits(tokens_per_day=1), at_limit=AtLimit.DEGRADE, ladder="npc"
    )
    refused = await gateway.chat(key)
    settings, local = GatewaySettings(fallback_model=CHUNK_MODEL), MemoryMarket()
    gateway.app = GatewayApp(
        settings, gateway.hanse, gateway.keys, budgets=gateway.budgets, local=local
    )
    answer = await gateway.chat(key)
    assert (refused.status, answer.status, answer.headers["hanse-degraded"]) == (429, 200, "local")
    assert gateway.world.cheap.paid_requests == 0


async def test_a_ladder_that_is_not_there_refuses(gateway: Gateway) -> None:
    key = await gateway.make_key(
        limits=Limits(requests_per_day=0), at_limit=AtLimit.DEGRADE, ladder="gone"
    )
    answer = await gateway.chat(key)
    assert (answer.status, "hanse-degraded" in answer.headers) == (429, False)


# scope and minting, over HTTP


async def test_a_scope_is_refused_with_403_before_anything_is_bought(gateway: Gateway) -> None:
    key = await gateway.make_key(models=("small",), origins=("https://game.example",))
    elsewhere = await gateway.chat(key, model="small")
    page = {"origin": "https://game.example"}
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}
    wrong_model = await gateway.ask(key, CHAT, body, **page)
    right = await gateway.ask(key, CHAT, body | {"model": "small"}, **page)
    assert [elsewhere.status, wrong_model.status, right.status] == [403, 403, 200]
    assert gateway.world.cheap.paid_requests == 0


async def test_a_player_plays_on_a_minted_key_until_it_is_used_up(gateway: Gateway) -> None:
    server = await gateway.make_key(may_mint=True, limits=Limits(money_per_day=100_000))
    wish = {"ttl_s": 600, "user": "player-7", "limits": {"money_per_day": "700"}}
    minted = json.loads((await gateway.ask(server, "/hanse/v1/keys", wish)).body)
    assert minted["limits"] == {"money_per_day": "700"}
    player = minted["api_key"]
    while (answer := await gateway.chat(player, user="somebody-else")).status == 200:
        assert gateway.world.cheap.paid_requests < 40
    assert answer.error["code"] == "budget_exhausted"
    assert (await gateway.chat(server)).status == 200
    assert (await gateway.ask(player, "/hanse/v1/keys", wish)).status == 403
    gateway.world.clock.now += 600
    assert (await gateway.chat(player)).status == 401


async def test_what_children_spend_counts_against_their_parent(gateway: Gateway) -> None:
    server = await gateway.make_key(may_mint=True, limits=Limits(requests_per_day=2))
    wish = {"ttl_s": 600}
    children = [
        json.loads((await gateway.ask(server, "/hanse/v1/keys", wish)).body)["api_key"]
        for _ in range(3)
    ]
    statuses = [(await gateway.chat(child)).status for child in children]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    "wish",
    [{}, {"ttl_s": 0}, {"ttl_s": 86_401}, {"ttl_s": 5, "x": 1}, {"ttl_s": 5, "limits": {"a": 1}}],
)
async def test_a_wish_for_a_key_is_read_strictly(gateway: Gateway, wish: dict[str, Any]) -> None:
    server = await gateway.make_key(may_mint=True)
    answer = await gateway.ask(server, "/hanse/v1/keys", wish)
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
