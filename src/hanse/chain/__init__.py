"""Talking to an EVM chain: node, keys, transactions, events, contracts, and a local chain.

Public API (import from here):

    # rpc: a node. Every read names its block; only fetch_head says "latest".
    Rpc.connect(url) -> Rpc                      Rpc(transport: RpcTransport)       async with / await rpc.close()
    await rpc.fetch_head() -> Header             .number .hash .parent_hash .timestamp_s .base_fee_wei
    await rpc.fetch_chain_id() | fetch_balance(address, block=) | fetch_receipt(hash) | call(Call, block=)
    errors: TransientError("chain_unavailable"), ChainError (.reason, .is_revert)

    # keys
    create_key() -> Key                          create_keystore(path, password, key=None, scrypt=Scrypt.STANDARD) -> Key
    unlock_keystore(path, password) -> Key       get_password(account, use_keyring=False) -> str
    key.address; key.sign_digest(digest) -> Signature     # a protocol.signatures.DigestSigner

    # outbox: one per sending key and chain; survives crashes, lost sends, reorgs
    Outbox(rpc, key, storage: OutboxStorage, chain_id=, confirmations=, fee_policy=FeePolicy(), clock=time.monotonic)
    await outbox.enqueue(idempotency_key, Call) -> OutboxEntry      # durable on return; same key, same entry
    await outbox.wait_final(idempotency_key) -> OutboxEntry         # confirmed; raises ChainError(reason) if it failed
    await outbox.submit(idempotency_key, Call) -> OutboxEntry       # enqueue + wait_final
    await outbox.run(poll_interval_s=0.25)       # the loop, as a task;   await outbox.step() is one round of it

    # index: confirmed events, exactly once
    EventIndex(rpc, contracts: Sequence[Contract], storage: IndexStorage, start_block=, confirmations=)
    await index.advance() -> EventBatch | None   # one batch, applied through storage.apply_batch; None: nothing new
    await index.run(poll_interval_s=0.25)        async for batch in index.batches(poll_interval_s)
    await index.read_checkpoint() -> Checkpoint | None              await index.rewind() -> Checkpoint | None

    # contracts
    Deployment: .chain_id .genesis_hash .asset .registry .escrow .lock_time_s .confirmations .start_block
    load_deployment(path) / save_deployment(path, d)     await deploy(rpc, outbox, contracts.deployment.Terms(...), confirmations=) -> Deployment
    await verify_deployment(rpc, deployment)      open_contracts(rpc, deployment) -> (Escrow, Registry, Asset)
    Escrow(rpc, address) .read_account(user, block=) .read_sub_account(user, provider, signer, block=) .deposit(...)
    Registry(rpc, address) .read_provider(provider, block=) .read_service(...) .register(...) ...
    Asset(rpc, address) .read_balance(owner, block=) .read_nonce(...) .approve(...) .mint(...)
    Writes return a Call for outbox.enqueue; reads take block= (use head.number - confirmations for decisions).

    # a chain of one's own
    LocalNode(folder, chain_id=31337, block_time_s=1.0 | None, confirmations=2)
    await node.start() -> url; node.url; await node.stop(); await node.mine(n); await node.advance_time(seconds)
    await node.fund(address, wei): native coin for a development key
"""

from hanse.chain.asset import Asset
from hanse.chain.chain_types import (
    BlockNumber,
    Call,
    ChainError,
    Event,
    Header,
    Log,
    TransactionReceipt,
)
from hanse.chain.contract import Contract
from hanse.chain.deployment import (
    Deployment,
    deploy,
    load_deployment,
    open_contracts,
    save_deployment,
    verify_deployment,
)
from hanse.chain.escrow import Escrow, EscrowTerms, PermitSignature, SubAccount
from hanse.chain.fees import Fee, FeePolicy
from hanse.chain.index import EventIndex
from hanse.chain.keys import (
    Key,
    Scrypt,
    create_key,
    create_keystore,
    get_password,
    read_keystore_address,
    store_in_keyring,
    unlock_keystore,
)
from hanse.chain.localnode import LocalNode
from hanse.chain.outbox import Outbox
from hanse.chain.registry import ProviderInfo, Registry, ServiceInfo, ServiceListing
from hanse.chain.rpc import HttpTransport, Rpc, RpcTransport
from hanse.chain.storage import (
    Attempt,
    Checkpoint,
    EventBatch,
    IndexStorage,
    MemoryIndexStorage,
    MemoryOutboxStorage,
    OutboxEntry,
    OutboxStorage,
    TransactionState,
)
from hanse.chain.transactions import get_contract_address

__all__ = [
    "BlockNumber",
    "Call",
    "ChainError",
    "Event",
    "Header",
    "Log",
    "TransactionReceipt",
    "Contract",
    "Key",
    "Scrypt",
    "create_key",
    "create_keystore",
    "get_password",
    "read_keystore_address",
    "store_in_keyring",
    "unlock_keystore",
    "HttpTransport",
    "Rpc",
    "RpcTransport",
    "Attempt",
    "Checkpoint",
    "EventBatch",
    "IndexStorage",
    "MemoryIndexStorage",
    "MemoryOutboxStorage",
    "OutboxEntry",
    "OutboxStorage",
    "TransactionState",
    "Asset",
    "Deployment",
    "deploy",
    "load_deployment",
    "open_contracts",
    "save_deployment",
    "verify_deployment",
    "Escrow",
    "EscrowTerms",
    "PermitSignature",
    "SubAccount",
    "Fee",
    "FeePolicy",
    "EventIndex",
    "LocalNode",
    "Outbox",
    "ProviderInfo",
    "Registry",
    "ServiceInfo",
    "ServiceListing",
    "get_contract_address",
]
