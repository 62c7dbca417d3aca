"""Talking to an EVM chain: node, keys, transactions, events, contracts, and a local chain.

Public API (import from here). Reads name their block: use head.number - confirmations to decide.

    # rpc: one node; only fetch_head says "latest"
    Rpc.connect(url)   Rpc(transport: RpcTransport)          async with, or await rpc.close()
    await rpc.fetch_head() -> Header      .number .hash .parent_hash .timestamp_s .base_fee_wei
    await rpc.fetch_chain_id() | fetch_balance(address, block=) | fetch_receipt(hash)
    await rpc.call(Call, block=) -> bytes
    errors: TransientError("chain_unavailable"), ChainError (.reason, .is_revert)

    # keys: encrypted files; a Key is a protocol.signatures.DigestSigner
    create_key() -> Key
    create_keystore(path, password, key=None, scrypt=Scrypt.STANDARD) -> Key
    unlock_keystore(path, password) -> Key      get_password(account, use_keyring=False) -> str
    key.address   key.sign_digest(digest) -> Signature

    # outbox: one per sending key and chain; survives crashes, lost sends, reorganisations
    Outbox(rpc, key, storage: OutboxStorage, chain_id=, confirmations=, fee_policy=FeePolicy())
    await outbox.enqueue(idempotency_key, Call) -> OutboxEntry   # durable; same key, same entry
    await outbox.wait_final(idempotency_key) -> OutboxEntry      # confirmed, or ChainError why
    await outbox.submit(idempotency_key, Call) -> OutboxEntry    # enqueue, then wait_final
    await outbox.run()                 # the loop, as a task; `await outbox.step()` is one round

    # index: confirmed events, each exactly once
    EventIndex(rpc, contracts, storage: IndexStorage, start_block=, confirmations=)
    await index.catch_up() -> Checkpoint | None     # until nothing new is confirmed
    await index.advance() -> EventBatch | None      # one batch, applied by storage.apply_batch
    await index.run()                               async for batch in index.batches()
    await index.read_checkpoint() -> Checkpoint | None      await index.rewind()

    # contracts: writes return a Call for an outbox
    Deployment   .chain_id .genesis_hash .asset .registry .escrow .records .disputes
                 .lock_time_s .confirmations .start_block
    await deploy(rpc, outbox, hanse.contracts.deployment.Terms(...), confirmations=) -> Deployment
    load_deployment(path)   save_deployment(path, deployment)
    await verify_deployment(rpc, deployment)
    open_contracts(rpc, deployment) -> (Escrow, Registry, Asset)
    open_records(rpc, deployment) -> Records       open_disputes(rpc, deployment) -> Disputes
    Escrow(rpc, address)    .read_account(user, block=) .deposit(amount) .fund(...) .settle(...)
                            .read_sub_account(user, provider, signer, block=) -> SubAccount
                            .prove_overclaim(SignedReceipt) .prove_equivocation(first, second)
    Registry(rpc, address)  .read_provider(provider, block=) .read_service(...) .register(...)
                            .burn_rest(provider)
    Records(rpc, address)   .read_head(recorder, block=) -> RecordsHead   .commit(root, count, ...)
    parse_committed(Event) -> Committed
    Disputes(rpc, address)  .read_challenge(name, block=) .challenge(...) .draw(name) .tally(name)
    parse_challenged(Event) -> Challenged      parse_closed(Event) -> Closed
    Asset(rpc, address)     .read_balance(owner, block=) .approve(...) .mint(...)
    Escrow, Registry, Records, Disputes and Asset have .contract, a Contract, for EventIndex

    # a chain of one's own
    LocalNode(folder, chain_id=31337, port=0, block_time_s=1.0 or None, confirmations=2)
    await node.start() -> url      node.url      await node.stop()
    await node.mine(n) | node.advance_time(seconds) | node.fund(address, wei)

Each name is imported when it is first used: the node client and the ABI codec take half a second,
and most commands need neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanse.chain.asset import Asset as Asset
    from hanse.chain.chain_types import BlockNumber as BlockNumber
    from hanse.chain.chain_types import Call as Call
    from hanse.chain.chain_types import ChainError as ChainError
    from hanse.chain.chain_types import Event as Event
    from hanse.chain.chain_types import Header as Header
    from hanse.chain.chain_types import Log as Log
    from hanse.chain.chain_types import TransactionReceipt as TransactionReceipt
    from hanse.chain.contract import Contract as Contract
    from hanse.chain.deployment import Deployment as Deployment
    from hanse.chain.deployment import deploy as deploy
    from hanse.chain.deployment import load_deployment as load_deployment
    from hanse.chain.deployment import open_contracts as open_contracts
    from hanse.chain.deployment import open_disputes as open_disputes
    from hanse.chain.deployment import open_records as open_records
    from hanse.chain.deployment import save_deployment as save_deployment
    from hanse.chain.deployment import verify_deployment as verify_deployment
    from hanse.chain.disputes import Challenged as Challenged
    from hanse.chain.disputes import Closed as Closed
    from hanse.chain.disputes import Disputes as Disputes
    from hanse.chain.disputes import parse_challenged as parse_challenged
    from hanse.chain.disputes import parse_closed as parse_closed
    from hanse.chain.escrow import Escrow as Escrow
    from hanse.chain.escrow import EscrowTerms as EscrowTerms
    from hanse.chain.escrow import PermitSignature as PermitSignature
    from hanse.chain.escrow import SubAccount as SubAccount
    from hanse.chain.index import EventIndex as EventIndex
    from hanse.chain.keys import Key as Key
    from hanse.chain.keys import Scrypt as Scrypt
    from hanse.chain.keys import create_key as create_key
    from hanse.chain.keys import create_keystore as create_keystore
    from hanse.chain.keys import get_password as get_password
    from hanse.chain.keys import read_keystore_address as read_keystore_address
    from hanse.chain.keys import store_in_keyring as store_in_keyring
    from hanse.chain.keys import unlock_keystore as unlock_keystore
    from hanse.chain.localnode import LocalNode as LocalNode
    from hanse.chain.outbox import Outbox as Outbox
    from hanse.chain.outbox.fees import Fee as Fee
    from hanse.chain.outbox.fees import FeePolicy as FeePolicy
    from hanse.chain.outbox.transactions import get_contract_address as get_contract_address
    from hanse.chain.records import Committed as Committed
    from hanse.chain.records import Records as Records
    from hanse.chain.records import RecordsHead as RecordsHead
    from hanse.chain.records import parse_committed as parse_committed
    from hanse.chain.registry import ProviderInfo as ProviderInfo
    from hanse.chain.registry import PublishedService as PublishedService
    from hanse.chain.registry import Registry as Registry
    from hanse.chain.registry import ServiceInfo as ServiceInfo
    from hanse.chain.rpc import Rpc as Rpc
    from hanse.chain.rpc_transport import HttpTransport as HttpTransport
    from hanse.chain.rpc_transport import RpcTransport as RpcTransport
    from hanse.chain.storage import Attempt as Attempt
    from hanse.chain.storage import Checkpoint as Checkpoint
    from hanse.chain.storage import EventBatch as EventBatch
    from hanse.chain.storage import IndexStorage as IndexStorage
    from hanse.chain.storage import MemoryIndexStorage as MemoryIndexStorage
    from hanse.chain.storage import MemoryOutboxStorage as MemoryOutboxStorage
    from hanse.chain.storage import OutboxEntry as OutboxEntry
    from hanse.chain.storage import OutboxStorage as OutboxStorage
    from hanse.chain.storage import TransactionState as TransactionState

_NAMES_BY_MODULE = {
    "asset": ("Asset",),
    "chain_types": (
        "BlockNumber",
        "Call",
        "ChainError",
        "Event",
        "Header",
        "Log",
        "TransactionReceipt",
    ),
    "contract": ("Contract",),
    "deployment": (
        "Deployment",
        "deploy",
        "load_deployment",
        "open_contracts",
        "open_disputes",
        "open_records",
        "save_deployment",
        "verify_deployment",
    ),
    "disputes": ("Challenged", "Closed", "Disputes", "parse_challenged", "parse_closed"),
    "escrow": (
        "Escrow",
        "EscrowTerms",
        "PermitSignature",
        "SubAccount",
    ),
    "index": ("EventIndex",),
    "keys": (
        "Key",
        "Scrypt",
        "create_key",
        "create_keystore",
        "get_password",
        "read_keystore_address",
        "store_in_keyring",
        "unlock_keystore",
    ),
    "localnode": ("LocalNode",),
    "outbox": ("Outbox",),
    "outbox.fees": (
        "Fee",
        "FeePolicy",
    ),
    "outbox.transactions": ("get_contract_address",),
    "records": ("Committed", "Records", "RecordsHead", "parse_committed"),
    "registry": (
        "ProviderInfo",
        "PublishedService",
        "Registry",
        "ServiceInfo",
    ),
    "rpc": ("Rpc",),
    "rpc_transport": ("HttpTransport", "RpcTransport"),
    "storage": (
        "Attempt",
        "Checkpoint",
        "EventBatch",
        "IndexStorage",
        "MemoryIndexStorage",
        "MemoryOutboxStorage",
        "OutboxEntry",
        "OutboxStorage",
        "TransactionState",
    ),
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


__all__ = list(_MODULES)  # mypy takes `import X as X` above as public
