"""Deposits by permit: one transaction, and a repeated wish is the same one."""

import pytest

from hanse.chain import Asset, Outbox, Rpc
from hanse.cli.buying.wallet import open_wallet
from hanse.cli.session import Session
from hanse.sdk.permit import find_permit
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.store import open_sqlite
from tests.cli.local_market import PASSWORD, UNIT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def user(market):
    return market.add_key("user", units=50)


@pytest.fixture
def session(market, user, monkeypatch):
    monkeypatch.setenv("HANSE_PASSWORD", PASSWORD)
    return Session(home=market.home)


async def test_a_deposit_is_one_transaction_even_if_asked_for_twice(market, session):
    async with open_wallet(session, market.network, "user", can_send=True) as wallet:
        head = await wallet.rpc.fetch_head()
        before = await wallet.rpc.fetch_transaction_count(wallet.user, block=head.number)

        first = await wallet.account.deposit(10 * UNIT, key="deposit-1")
        again = await wallet.account.deposit(10 * UNIT, key="deposit-1")

        head = await wallet.rpc.fetch_head()
        after = await wallet.rpc.fetch_transaction_count(wallet.user, block=head.number)
        held = await wallet.account.escrow.read_account(wallet.user, block=head.number)
    assert first.transaction_hash == again.transaction_hash
    assert after - before == 1
    assert held == 10 * UNIT


async def test_what_an_interrupted_command_left_is_finished_first(market, session, capsys):
    async with open_wallet(session, market.network, "user", can_send=True) as wallet:
        head = await wallet.rpc.fetch_head()
        before = await wallet.account.escrow.read_account(wallet.user, block=head.number)
    database = await open_sqlite(market.home / "user.db")
    async with Rpc.connect(market.url) as rpc:
        key = session.unlock_key("user")
        storage = await open_outbox_storage(database)
        outbox = Outbox(rpc, key, storage, chain_id=31_337, confirmations=2)
        call = wallet.account.escrow.withdraw(before)
        await outbox.enqueue("left-behind", call)
    await database.close()

    async with open_wallet(session, market.network, "user", can_send=True) as wallet:
        block = await wallet.account.read_block()
        assert await wallet.account.escrow.read_account(wallet.user, block=block) == 0
    said = capsys.readouterr().err
    assert f"finishing an earlier transaction first: withdraw {before}" in said
    assert "it is confirmed: 0x" in said


async def test_an_asset_that_states_another_contracts_domain_gets_no_signature(market, session):
    wallet = session.unlock_key("user")
    async with Rpc.connect(market.url) as rpc:
        head = await rpc.fetch_head()
        asset = Asset(rpc, market.network.deployment.asset)
        escrow = market.network.deployment.escrow
        assert await find_permit(asset, wallet, escrow, 1, head, 31_337) is not None
        assert await find_permit(asset, wallet, escrow, 1, head, 1) is None
        no_asset = Asset(rpc, market.network.deployment.registry)
        assert await find_permit(no_asset, wallet, escrow, 1, head, 31_337) is None
