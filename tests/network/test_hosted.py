"""A hosted gateway: its user pays it by voucher, it pays its providers, and both have receipts."""

from pathlib import Path

import pytest

from hanse.chain import Rpc
from hanse.chain.registry import Registry
from hanse.cli.local_network import NATIVE_WEI, find_free_port
from hanse.cli.selling.resale import add_margin
from hanse.market import ListedOffer, Needs
from hanse.sdk import Hanse, Settings
from tests.network.market import Market, is_healthy, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

MODEL = "echo-shared"
MARGIN_PPM = 100_000


async def start_hosted(market: Market) -> str:
    """A hosted gateway on the market's chain, selling one model; returns its provider's address."""
    network = market.network
    provider = network.get_key("host").address
    async with Rpc.connect(network.rpc_url) as rpc:
        registry = Registry(rpc, network.deployment.registry)
        stake = await registry.read_minimum_stake(block=(await rpc.fetch_head()).number)
    await network.give("host", stake)
    await network.node.fund(network.get_key("host-receipt").address, NATIVE_WEI)
    await network.give("buying", 2_000_000)
    port = find_free_port()
    arguments = ["gateway", "host", "--margin-percent", "10", "--key", "buying", "--model", MODEL]
    arguments += ["--fund-to", "0.5", "--fund-per-day", "2", "--register", "--settle-every", "0"]
    child = await network._start("host", port, [*arguments, "--port", str(port)])
    await until(lambda: is_healthy(child), 90, "the hosted gateway admits requests")
    return provider


async def test_a_user_pays_a_hosted_gateway_which_pays_its_providers(
    market: Market, tmp_path: Path
) -> None:
    network = market.network
    hosted = await start_hosted(market)
    try:
        await network.give("tenant", 1_000_000)
        tenant = network.get_key("tenant")
        settings = Settings(
            network.rpc_url,
            network.deployment,
            tmp_path / "tenant.db",
            signer=tenant,
            wallet=tenant,
            discover_interval_s=0.2,
        )
        async with Hanse.open(settings) as hanse:
            await hanse.account.open(500_000, {hosted: 500_000})

            def find_offer() -> ListedOffer | None:
                offers = [offer.listed for offer in hanse.get_offers()]
                return next((one for one in offers if one.provider == hosted), None)

            offer = await until(find_offer, 30, "its offer is on the market")
            dear = [
                one.listed.offer.prices
                for one in hanse.get_offers()
                if one.listed.provider == market.get_address("hamburg")
            ]
            assert offer.offer.prices == add_margin(dear[0], MARGIN_PPM)

            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": "three words here"}],
                "max_tokens": 3,
            }
            needs = Needs(providers=frozenset({hosted}))
            sold = []
            for stream in (False, True):
                answer = await hanse.request(
                    "/v1/chat/completions", body | {"stream": stream}, needs
                )
                if stream:
                    _ = [frame async for frame in answer.frames()]
                else:
                    await answer.read()
                assert answer.receipt is not None
                sold.append(answer.receipt.signed.receipt)
        # the other half of the chain: what the gateway bought, by its own vouchers and books
        shown = await network.run_command("receipts", "list", "--key", "buying")
        bought = [one["receipt"] for one in shown["receipts"]]
        assert len(bought) == len(sold) == 2
        sellers = {market.get_address("lubeck"), market.get_address("hamburg")}
        assert {one["provider"] for one in bought} <= sellers
        assert {one.provider for one in sold} == {hosted}
        margin = sum(one.fee for one in sold) - sum(int(one["fee"]) for one in bought)
        assert [one.fee for one in sold] == [
            3 * 110 + 3 * 440
        ] * 2  # as docs/gateway/hosted.md says
        assert {int(one["fee"]) for one in bought} <= {3 * 100 + 3 * 200, 3 * 100 + 3 * 400}
        assert margin > 0
        tokens = sum(one.usage.output_tokens for one in sold)
        assert tokens == sum(int(one["output_tokens"]) for one in bought) == 6
        status = await network.run_command("provider", "money", "--name", "host")
        assert status["earned"] == str(sum(one.fee for one in sold))
    finally:
        await network.stop_process("host")
    keys = await network.run_command("gateway", "keys", "list")
    lent = [one for one in keys["keys"] if one["name"] == "host-host"]
    assert lent
    assert all(one["revoked_at"] for one in lent)
