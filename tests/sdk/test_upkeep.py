"""Sub-accounts that are kept by themselves: the rules, then contracts, broker and outbox."""

import time
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import pytest

from hanse.chain.asset import Asset
from hanse.market import ListedOffer, OfferIndex
from hanse.market.health import HealthBook
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Prices, SignedOffer
from hanse.protocol.signatures import ZERO_HASH
from hanse.sdk import CompletionStream, Hanse, Settings
from hanse.sdk.upkeep import UpkeepSettings
from hanse.sdk.upkeep.keeper import Keeper, KeeperParts
from hanse.sdk.upkeep.moves import open_move_book
from hanse.sdk.upkeep.rules import Facts, Kept, Move, plan
from hanse.store import Database, open_memory, open_sqlite
from tests.provider.chain_parts import run_market
from tests.sdk.test_on_chain import MESSAGES, start_broker
from tests.sdk.test_voucher_book import OFFER
from tests.waiting import until

A, B, C = ("0x" + byte * 20 for byte in ("aa", "bb", "cc"))
SETTINGS = UpkeepSettings(target=100, refill_below=40, daily_cap=1_000)
IDLE = replace(SETTINGS, idle_s=60, return_to="0x" + "cc" * 20)
NOTHING = Facts(wanted=(), kept={}, account=0, wallet=0, moved=0)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({"wanted": (A,), "account": 500}, Move("fund", 0, {A: 100}), id="opens"),
        pytest.param({"wanted": (A,), "wallet": 500}, Move("fund", 100, {A: 100}), id="deposits"),
        pytest.param(
            {"wanted": (A,), "wallet": 500, "account": 30},
            Move("fund", 70, {A: 100}),
            id="deposits what the account lacks",
        ),
        pytest.param(
            {"wanted": (A, B), "account": 500, "kept": {B: Kept(39)}},
            Move("fund", 0, {A: 100, B: 61}),
            id="opens and fills up in one",
        ),
        pytest.param({"wanted": (A,), "account": 500, "kept": {A: Kept(40)}}, None, id="enough"),
        pytest.param({"wanted": (A,)}, None, id="nothing to fund with"),
        pytest.param({"wanted": (A,), "account": 24}, None, id="too little to be worth it"),
        pytest.param({"wanted": (A,), "account": 25}, Move("fund", 0, {A: 25}), id="a quarter"),
        pytest.param(
            {"wanted": (A, B), "account": 500, "moved": 950},
            Move("fund", 0, {A: 50}),
            id="up to the cap",
        ),
        pytest.param({"wanted": (A,), "account": 500, "moved": 980}, None, id="cap reached"),
        pytest.param(
            {"wanted": (A, B), "account": 500, "moved": 450, "asked": frozenset({B})},
            Move("fund", 0, {A: 100}),
            id="leaves half of the cap to those always wanted",
        ),
        pytest.param(
            {"wanted": (A,), "account": 500, "kept": {A: Kept(0, refund=80)}},
            Move("cancel", 80, {A: 80}),
            id="takes its refund back",
        ),
        pytest.param(
            {"kept": {A: Kept(0, refund=80, is_due=True)}},
            Move("claim", 80, {A: 80}),
            id="completes a refund",
        ),
        pytest.param({"kept": {A: Kept(9, idle_for_s=10**6)}, "account": 9}, None, id="keeps"),
    ],
)
def test_the_next_move_follows_from_what_is_there(facts, expected):
    assert plan(replace(NOTHING, **facts), SETTINGS) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({"kept": {A: Kept(9, idle_for_s=59)}}, None, id="not idle yet"),
        pytest.param(
            {"kept": {A: Kept(9, idle_for_s=60)}}, Move("refund", 9, {A: 9}), id="asks it back"
        ),
        pytest.param(
            {"kept": {A: Kept(90, idle_for_s=99)}, "wanted": (A,)}, None, id="wanted is kept"
        ),
        pytest.param(
            {"kept": {A: Kept(3, refund=6, idle_for_s=99)}}, None, id="does not restart the wait"
        ),
        pytest.param({"account": 9, "idle_for_s": 59}, None, id="the account is in use"),
        pytest.param({"account": 9, "idle_for_s": 60}, Move("withdraw", 9), id="withdraws"),
        pytest.param({"wallet": 9, "idle_for_s": 60}, Move("send", 9), id="sends it home"),
        pytest.param({"wallet": 9, "idle_for_s": 60, "wanted": (A,)}, None, id="may be needed"),
    ],
)
def test_idle_money_flows_back(facts, expected):
    assert plan(replace(NOTHING, **facts), IDLE) == expected


def test_who_is_out_is_not_funded_however_cheap():
    index, parts = OfferIndex(), dict.fromkeys(field.name for field in fields(KeeperParts))
    index.replace_all([make_offer(A, 1), make_offer(B, 2), make_offer(C, 3)])
    parts |= {"offers": index, "is_out": {A}.__contains__, "clock": lambda: 0.0}
    keeper = Keeper(KeeperParts(**parts), replace(SETTINGS, providers_max=1))
    assert keeper._list_wanted([("chat", "small")]) == (B,)


def make_offer(provider: str, price: int) -> ListedOffer:
    prices = Prices(price, price, price)
    offer = msgspec.structs.replace(OFFER.offer, provider=provider, model="small", prices=prices)
    return ListedOffer(SignedOffer(offer, "0x"), ZERO_HASH, provider)


def test_a_moments_trouble_is_not_out_but_a_row_of_failures_and_dishonesty_are():
    now = [1_000.0]
    health = HealthBook(lambda: now[0])
    found = []
    for _ in range(3):
        health.report_failure(A, "down")
        found.append(health.get(A).is_out(now[0]))
        now[0] = health.get(A).retry_at
    health.report_dishonest(B, "lied")
    assert (found, health.get(B).is_out(now[0])) == ([False, False, True], True)
    assert not health.get(A).is_out(now[0])  # it may be asked again, and so funded


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": 0},
        {"refill_below": 0},
        {"refill_below": 101},
        {"daily_cap": 24},
        {"providers_max": 0},
        {"providers_max": 21},
    ],
)
def test_settings_that_could_not_work_are_refused(wrong):
    with pytest.raises(RequestError) as caught:
        replace(SETTINGS, **wrong)
    assert caught.value.code == "configuration_invalid"


async def test_the_cap_counts_what_may_have_been_moved():
    database = await open_memory()
    moves = await open_move_book(database)
    for number, state in enumerate(("done", "failed", ""), 1):
        stored = await moves.decide(Move("fund", 5, {A: 100}), 1_000.0)
        assert stored.key == f"upkeep-{number}"
        if state:
            await moves.end(stored.number, state)
    assert await moves.find_open() == stored
    assert await moves.sum_funded(1_000.0) == 200
    assert await moves.sum_funded(1_000.0 + 86_401) == 0
    await database.close()


async def count_moves(database: Database) -> dict[str, int]:
    rows = await database.read(
        lambda tx: tx.find_all("SELECT document, state FROM upkeep_moves ORDER BY number LIMIT 99")
    )
    kinds = [row[0].split('"')[3] + ("" if row[1] == "done" else f" {row[1]}") for row in rows]
    return {kind: kinds.count(kind) for kind in kinds}


@pytest.mark.slow
async def test_a_wallet_is_needed_once_and_gets_back_what_is_idle(
    tmp_path: Path, anvil_cache: Path
) -> None:
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        process = await start_broker(market, tmp_path)
        wallet, session = await market.make_key(), await market.make_key()
        asset = Asset(market.rpc, market.deployment.asset)
        # the one time that the wallet is needed
        await market.do(
            wallet, asset.mint(wallet.address, 900_000), asset.transfer(session.address, 900_000)
        )
        upkeep = UpkeepSettings(
            target=200_000,
            refill_below=150_000,
            daily_cap=500_000,
            look_s=0.05,
            return_to=wallet.address,
        )
        settings = Settings(
            market.url,
            market.deployment,
            tmp_path / "session.db",
            signer=session,
            wallet=session,
            discover_interval_s=0.2,
            upkeep=upkeep,
        )
        spent = 0
        async with Hanse.open(settings) as hanse:
            await until(hanse.get_offers)
            model = hanse.get_offers()[0].listed.offer.model
            for _ in range(2):  # the first one waits for its sub-account, the others do not
                answer = await hanse.chat(model, MESSAGES, max_tokens=8)
                assert not isinstance(answer, CompletionStream)
                spent += answer.receipt.fee
            places = {place.place: place.amount for place in (await hanse.read_money()).places}
            assert places["free"] + places["accrued"] == 200_000
            assert (places["wallet"], places["account"]) == (700_000, 0)

        # a crash between the decision and its transaction: sent once, however often it is found
        database = await open_sqlite(tmp_path / "session.db")
        moves = await open_move_book(database)
        await moves.decide(Move("fund", 50_000, {market.owner.address: 50_000}), time.time())
        await database.close()
        for _ in range(2):
            async with Hanse.open(settings) as hanse:
                assert hanse.upkeep is not None
                await hanse.upkeep.look()
                places = {p.place: p.amount for p in (await hanse.read_money()).places}
                assert places["free"] + places["accrued"] == 250_000
                assert places["wallet"] == 650_000

        # nothing is asked for any more: all that is not owed comes home
        await process.settle_now()
        idle = replace(settings, upkeep=replace(upkeep, idle_s=0.2))
        async with Hanse.open(idle) as hanse:
            funds = hanse._parts.chain.find_funds
            await until(lambda: (f := funds(market.owner.address)) and f.pending_refund)
            await market.node.advance_time(3_601)

            async def is_home() -> bool:
                return await market.read_asset(wallet.address) >= 900_000 - spent

            await until(is_home, what="what is idle comes home")
        assert await market.read_asset(wallet.address) == 900_000 - spent
        database = await open_sqlite(tmp_path / "session.db")
        counted = await count_moves(database)
        await database.close()
        assert counted["fund"] == 2
        assert counted["refund"] == 1
        assert not any("failed" in kind for kind in counted)
        await process.stop()
