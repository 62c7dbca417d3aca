"""Which market this home folder is about: HOME/network.json.

    {"rpc_url": "http://127.0.0.1:8545", "asset_symbol": "tUSD", "asset_decimals": 6,
     "deployment": {"chain_id": ..., "escrow": "0x...", ...}}

`hanse up` writes it; for another market copy the file of whoever runs it and put your own node's
URL in. Nothing in it is secret, unless the URL holds an access key: then give it in HANSE_RPC_URL,
which overrides the file. Nothing in it must be believed either: commands that move money compare
the contracts' code on the chain with this version of Hanse first.
"""

import os
import secrets
import stat
from pathlib import Path

import msgspec

from hanse.chain import Rpc
from hanse.chain.deployment import FILE_BYTES_MAX, Deployment, verify_deployment
from hanse.cli.amounts import AssetUnits
from hanse.contracts.artifacts import load_artifact
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import ASSET_DECIMALS_MAX

FILE_NAME = "network.json"
RPC_URL_VARIABLE = "HANSE_RPC_URL"

SYMBOL_CHARS_MAX = 16
"""An asset's symbol has 3 to 5 letters; it is printed, so a hostile one must not be long."""

RECORDERS_MAX = 16
"""Recorders that a side knows; each is watched once a round."""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One market: its node, its contracts, and how its asset is written.

    Attributes:
        rpc_url: of an EVM node.
        asset_symbol: such as `USDC`.
        asset_decimals: decimal places of one whole unit.
        deployment: which contracts.
        private_endpoints: whether brokers at loopback and private addresses are called; null: on
            a development chain only.
        recorders: base URLs of recorders that both sides of this market use, the preferred first.
    """

    rpc_url: str
    asset_symbol: str
    asset_decimals: int
    deployment: Deployment
    private_endpoints: bool | None = None
    recorders: tuple[str, ...] = ()

    @property
    def units(self) -> AssetUnits:
        """How amounts are read and written here."""
        return AssetUnits(self.asset_symbol, self.asset_decimals)


async def fetch_network(rpc_url: str, deployment: Deployment) -> Network:
    """Check a deployment against its chain, and ask the asset how it is written.

    Raises:
        RequestError: `configuration_invalid` if the chain and the deployment disagree.
        TransientError: the node does not answer.
    """
    from hanse.chain.contract import Contract

    async with Rpc.connect(rpc_url) as rpc:
        await verify_deployment(rpc, deployment)
        head = await rpc.fetch_head()
        block = max(0, head.number - deployment.confirmations)
        asset = Contract(rpc, load_artifact("TestAsset"), deployment.asset)
        (symbol,) = await asset.read("symbol", block=block)
        (decimals,) = await asset.read("decimals", block=block)
    return _checked(Network(rpc_url, str(symbol), int(decimals), deployment))


def load_network(home: Path) -> Network:
    """Read HOME/network.json.

    Raises:
        RequestError: `configuration_invalid` if it is missing or malformed; the message says how to
            get one.
    """
    path = home / FILE_NAME
    _verify_owner(home)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RequestError(
            "configuration_invalid",
            f"{path}: {error.strerror}; start a local network with: hanse up, "
            "or copy the file of the market that you want to join",
        ) from None
    if len(raw) > FILE_BYTES_MAX:
        raise RequestError("configuration_invalid", f"{path} has more than {FILE_BYTES_MAX} bytes")
    try:
        network = _checked(msgspec.json.decode(raw, type=Network))
    except (msgspec.DecodeError, RequestError) as error:
        raise RequestError("configuration_invalid", f"{path}: {error}") from None
    url = os.environ.get(RPC_URL_VARIABLE)
    return msgspec.structs.replace(network, rpc_url=url) if url else network


def save_network(home: Path, network: Network) -> None:
    """Write HOME/network.json, whole or not at all."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = home / f".{FILE_NAME}.{secrets.token_hex(8)}"
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(network), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(home / FILE_NAME)


def _verify_owner(home: Path) -> None:
    """Refuse a home folder that another user prepared, as `./.hanse` under /tmp may be.

    Who may write there chooses the node that is believed, and the contracts that are paid.
    """
    try:
        found = home.stat()
    except OSError:
        return  # the file is not there either, which has a message of its own
    me = os.geteuid()  # root works in mounted folders of any owner
    if (me and found.st_uid not in (me, 0)) or found.st_mode & stat.S_IWOTH:
        raise RequestError(
            "configuration_invalid",
            f"{home} belongs to another user or can be written by anybody: "
            "use another --home, or take it into your own hands (chown, chmod 700)",
        )


def _checked(network: Network) -> Network:
    symbol, decimals = network.asset_symbol, network.asset_decimals
    for url in network.recorders:
        if not url.startswith(("http://", "https://")) or len(network.recorders) > RECORDERS_MAX:
            raise RequestError(
                "configuration_invalid",
                f"recorders has {url!r:.80}, expected at most {RECORDERS_MAX} http or https URLs",
            )
    if not 0 < len(symbol) <= SYMBOL_CHARS_MAX or not symbol.isprintable() or " " in symbol:
        raise RequestError(
            "configuration_invalid",
            f"asset_symbol is {symbol!r:.40}, expected 1 .. {SYMBOL_CHARS_MAX} printable letters",
        )
    if not 0 <= decimals <= ASSET_DECIMALS_MAX:
        raise RequestError(
            "configuration_invalid",
            f"asset_decimals is {decimals}, expected 0 .. {ASSET_DECIMALS_MAX}",
        )
    return network
