"""Which contracts, on which chain: made once, kept in a file, checked at every start.

    deployment = await deploy(rpc, outbox, Terms(lock_time_s=3600), confirmations=2)
    save_deployment(path, deployment)
    ...
    deployment = load_deployment(path)
    await verify_deployment(rpc, deployment)

The file holds nothing secret and nothing that must be believed: `verify_deployment` compares the
code at the addresses with ours, and what the contracts say of one another with the file.

Source: docs/decisions/0004-escrow-storage-and-claims.md (predicted addresses).
"""

import os
import secrets
from pathlib import Path

import msgspec

from hanse.chain.asset import Asset
from hanse.chain.chain_types import BlockNumber, Call
from hanse.chain.disputes import Disputes
from hanse.chain.escrow import Escrow
from hanse.chain.outbox import POLL_INTERVAL_S, Outbox
from hanse.chain.records import Records
from hanse.chain.registry import Registry
from hanse.chain.rpc import Rpc
from hanse.contracts.artifacts import Artifact
from hanse.contracts.deployment import Terms, plan_deployment
from hanse.protocol.errors import RequestError

FILE_BYTES_MAX = 16_384
"""A deployment file has under 1 kB."""

_IMMUTABLE_WORDS_MAX = 16
"""Words that Vyper appends to the code for immutables; Hanse's contracts have at most 13."""


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One market's contracts on one chain.

    Attributes:
        chain_id: EIP-155.
        genesis_hash: of block 0: tells a chain from a fresh one with the same id.
        asset, registry, escrow: addresses, lower case.
        lock_time_s: how long a refund waits.
        confirmations: how deep a block must be before we act on it; a setting of ours, not of the
            contracts.
        start_block: nothing of these contracts is older.
        records, disputes: addresses of Records and Disputes, lower case. Last, and with a default,
            only so that a file from before them is refused in words that help.
    """

    chain_id: int
    genesis_hash: str
    asset: str
    registry: str
    escrow: str
    lock_time_s: int
    confirmations: int
    start_block: BlockNumber
    records: str = ""
    disputes: str = ""

    def __post_init__(self) -> None:
        for name in ("records", "disputes"):
            if not getattr(self, name):
                raise ValueError(
                    f"`{name}` is missing: this file is of contracts from before {name.title()},"
                    " which this version of Hanse does not speak; deploy anew, or take the market's"
                    " new file (a local network: `hanse up` with a fresh --home)"
                )


async def deploy(
    rpc: Rpc,
    outbox: Outbox,
    terms: Terms,
    *,
    confirmations: int,
    asset: str | None = None,
    poll_interval_s: float = POLL_INTERVAL_S,
) -> Deployment:
    """Deploy the contracts, with the test asset if `asset` is None; resumes after a crash.

    Costs about 10 M gas. Nothing else may be enqueued meanwhile: the addresses follow from the
    nonces.

    Raises:
        ChainError: a deployment failed, for instance because a nonce was taken; nothing is half
            used, start again with a fresh outbox.
    """
    first = await outbox.find(_key("TestAsset" if asset is None else "Registry"))
    nonce = first.nonce if first and first.nonce is not None else await outbox.read_next_nonce()
    steps = plan_deployment(outbox.address, nonce, terms, asset)
    for step in steps:
        call = Call(to=None, data=step.data, label=f"deploy {step.name}")
        await outbox.enqueue(_key(step.name), call)
    blocks = []
    for step in steps:
        entry = await outbox.wait_final(_key(step.name), poll_interval_s=poll_interval_s)
        blocks.append(entry.block_number or 0)
    addresses = {step.name: step.address for step in steps}
    deployment = Deployment(
        chain_id=await rpc.fetch_chain_id(),
        genesis_hash=await _fetch_genesis_hash(rpc),
        asset=asset or addresses["TestAsset"],
        registry=addresses["Registry"],
        escrow=addresses["Escrow"],
        lock_time_s=terms.lock_time_s,
        confirmations=confirmations,
        start_block=min(blocks),
        records=addresses["Records"],
        disputes=addresses["Disputes"],
    )
    await verify_deployment(rpc, deployment)
    return deployment


async def verify_deployment(rpc: Rpc, deployment: Deployment) -> None:
    """Check chain, code and the contracts' own words against the file.

    Raises:
        RequestError: `configuration_invalid`, naming what differs.
    """
    _verify_equal("chain id", await rpc.fetch_chain_id(), deployment.chain_id)
    _verify_equal("hash of block 0", await _fetch_genesis_hash(rpc), deployment.genesis_hash)
    head = await rpc.fetch_head()
    block = max(0, head.number - deployment.confirmations)
    escrow, registry = Escrow(rpc, deployment.escrow), Registry(rpc, deployment.registry)
    records, disputes = open_records(rpc, deployment), open_disputes(rpc, deployment)
    for contract in (escrow.contract, registry.contract, records.contract, disputes.contract):
        code = await rpc.fetch_code(contract.address, block=block)
        _verify_code(contract.artifact, contract.address, code)
    if not await rpc.fetch_code(deployment.asset, block=block):
        raise _differs("asset's code", "none", "an ERC-20 contract")
    said = await escrow.read_terms(block=block)
    _verify_equal("Escrow's asset", said.asset, deployment.asset)
    _verify_equal("Escrow's registry", said.registry, deployment.registry)
    _verify_equal("Escrow's lock time", said.lock_time_s, deployment.lock_time_s)
    _verify_equal("Registry's asset", await registry.read_asset(block=block), deployment.asset)
    _verify_equal("Registry's escrow", await registry.read_escrow(block=block), deployment.escrow)
    slasher = await registry.read_disputes(block=block)
    _verify_equal("Registry's disputes", slasher, deployment.disputes)


def save_deployment(path: Path, deployment: Deployment) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(deployment), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def load_deployment(path: Path) -> Deployment:
    """Read the file.

    Raises:
        RequestError: `configuration_invalid` if it is missing or malformed.
    """
    try:
        raw = path.read_bytes()
        if len(raw) > FILE_BYTES_MAX:
            raise ValueError(f"larger than {FILE_BYTES_MAX} bytes")
        return msgspec.json.decode(raw, type=Deployment)
    except (OSError, ValueError) as error:
        raise RequestError(
            "configuration_invalid", f"{path} is not a deployment file: {error}; deploy or copy one"
        ) from None


def open_contracts(rpc: Rpc, deployment: Deployment) -> tuple[Escrow, Registry, Asset]:
    """The typed faces of a deployment's contracts."""
    return (
        Escrow(rpc, deployment.escrow),
        Registry(rpc, deployment.registry),
        Asset(rpc, deployment.asset),
    )


def open_records(rpc: Rpc, deployment: Deployment) -> Records:
    """The typed face of a deployment's Records."""
    return Records(rpc, deployment.records)


def open_disputes(rpc: Rpc, deployment: Deployment) -> Disputes:
    """The typed face of a deployment's Disputes."""
    return Disputes(rpc, deployment.disputes)


def _key(name: str) -> str:
    return f"deploy-{name}"


async def _fetch_genesis_hash(rpc: Rpc) -> str:
    (genesis,) = await rpc.fetch_headers(0, 0)
    return genesis.hash


def _verify_code(artifact: Artifact, address: str, code: bytes) -> None:
    """The code, less the immutables that Vyper appends, must be all that our creation code makes.

    All: a piece of it would be a contract of another meaning.
    """
    body, appended = code[: artifact.runtime_bytes], len(code) - artifact.runtime_bytes
    fits = 0 <= appended <= 32 * _IMMUTABLE_WORDS_MAX and appended % 32 == 0
    if fits and body in artifact.bytecode:
        return
    found = f"{len(code)} bytes of other code" if code else "no code"
    raise _differs(f"{artifact.name} at {address}", found, "the code of this version of Hanse")


def _verify_equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise _differs(what, found, expected)


def _differs(what: str, found: object, expected: object) -> RequestError:
    return RequestError(
        "configuration_invalid",
        f"{what}: the chain has {found}, the deployment file {expected}; use the file of this"
        " chain or deploy anew",
    )
