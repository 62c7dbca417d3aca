"""network.json: what it must hold, and what a person is told when it does not."""

import json

import pytest

from hanse.chain.deployment import Deployment
from hanse.cli.amounts import AssetUnits
from hanse.cli.moments import format_until
from hanse.cli.network import Network, load_network, save_network
from hanse.protocol.errors import RequestError

NETWORK = Network(
    "http://127.0.0.1:8545",
    "tUSD",
    6,
    Deployment(
        31337,
        "0x" + "11" * 32,
        *("0x" + n * 20 for n in ("aa", "bb", "cc")),
        86_400,
        2,
        1,
        records="0x" + "dd" * 20,
        disputes="0x" + "ee" * 20,
    ),
)


def test_what_is_saved_is_loaded(home):
    save_network(home, NETWORK)

    assert load_network(home) == NETWORK
    assert [path.name for path in home.iterdir()] == ["network.json"]


def test_the_node_of_the_environment_overrides_the_file(home, monkeypatch):
    save_network(home, NETWORK)
    monkeypatch.setenv("HANSE_RPC_URL", "http://127.0.0.1:9")

    assert load_network(home).rpc_url == "http://127.0.0.1:9"


def test_a_home_that_anybody_may_write_to_is_not_believed(home):
    """As `./.hanse` would be that somebody put into /tmp, with a node of their own."""
    save_network(home, NETWORK)
    home.chmod(0o777)

    with pytest.raises(RequestError, match="can be written by anybody"):
        load_network(home)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"asset_decimals": 37}, "asset_decimals is 37"),
        ({"asset_symbol": "A" * 17}, "asset_symbol"),
        ({"asset_symbol": "\x1b[2J"}, "asset_symbol"),
        ({"rpc_url": 5}, "rpc_url"),
        ({"unknown": 1}, "unknown"),
        ({"deployment": {}}, "deployment"),
    ],
)
def test_a_malformed_file_is_refused_by_name(home, change, reason):
    save_network(home, NETWORK)
    file = home / "network.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))

    with pytest.raises(RequestError, match=r"network\.json") as caught:
        load_network(home)
    assert caught.value.code == "configuration_invalid"
    assert reason in caught.value.message


@pytest.mark.parametrize("name", ["records", "disputes"])
def test_a_home_from_before_a_contract_is_told_what_to_do(home, name):
    save_network(home, NETWORK)
    file = home / "network.json"
    written = json.loads(file.read_text())
    del written["deployment"][name]
    file.write_text(json.dumps(written))

    with pytest.raises(RequestError, match=rf"`{name}` is missing.*`hanse up` with a fresh --home"):
        load_network(home)


def test_without_a_network_the_commands_say_how_to_get_one(run):
    ran = run("money")

    assert ran.exit_code == 2
    assert "hanse up" in ran.stderr


def test_amounts_are_exact_and_carry_the_symbol():
    units = AssetUnits("tUSD", 6)

    assert units.parse("12.5") == units.parse("12.5 tUSD") == 12_500_000
    assert units.format(12_500_000) == "12.5 tUSD"
    for wrong in ("0.0000001", "1e3", "-1", "", "tUSD", "1,5"):
        with pytest.raises(RequestError):
            units.parse(wrong)


@pytest.mark.parametrize(
    ("left_s", "text"),
    [(0, "now"), (-5, "now"), (59, "in 59 s"), (3_600, "in 1 h"), (90_061, "in 1 d 1 h")],
)
def test_waits_are_told_in_two_units(left_s, text):
    assert format_until(1_000_000 + left_s, 1_000_000) == text
