"""The chain at its confirmed block, from events that are folded into the user's database.

Two indices: one of Escrow and Registry, which buying stands on and `follow` keeps up to date; one
of the asset's transfers from and to this wallet, which only money in words asks for, by
`refresh_transfers`. The node picks those out by topic, so a busy asset costs nothing.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator

import msgspec

from hanse.chain import (
    ChainError,
    Checkpoint,
    Deployment,
    Escrow,
    Event,
    EventIndex,
    Registry,
    Rpc,
)
from hanse.chain.asset import Asset
from hanse.market import PublishedService
from hanse.protocol.errors import InvariantError, TransientError
from hanse.protocol.signatures import Address, to_bytes
from hanse.sdk.chain_view.market_fold import fold_market, is_receipt_key, read_services
from hanse.sdk.chain_view.money_fold import (
    ACCOUNT,
    FUNDS,
    JOURNAL,
    TRANSFER,
    fold_escrow,
    fold_stake,
    fold_transfer,
)
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.chain_state.index_storage import (
    DatabaseIndexStorage,
    FindDocument,
    open_index_storage,
)
from hanse.settlement.chain_state.sub_account_fold import (
    decode_funds,
    find_names,
    get_document_key,
)
from hanse.settlement.disputes.proven_fold import Proven, fold_proven, read_proven
from hanse.settlement.money.journal import JournalEntry
from hanse.store.database import Database

FOLLOW_INTERVAL_S = 0.5
"""Between looks at the head: well under any block time, and one small request."""

FOLD_VERSION = 2
"""Part of the index's name: with another fold, documents of an older one are read anew."""

_log = logging.getLogger(__name__)


class IndexedChain:
    """`ChainView` over event indices. Open it with `open_chain`."""

    def __init__(self, user: Address, signer: Address) -> None:
        self._user = user
        self._signer = signer
        self._own = "/" + get_document_key(user, signer)
        self._funded: set[Address] = set()
        self._funds: dict[Address, SubAccountFunds] = {}  # asked for several times a request
        self._documents: dict[str, bytes] = {}
        self._index: EventIndex | None = None
        self._transfers: EventIndex | None = None
        # Two rounds at once would read the same blocks and apply them twice.
        self._lock = asyncio.Lock()
        self.checkpoint: Checkpoint | None = None
        self.start_block = 0

    async def refresh(self) -> None:
        """See `ChainView`."""
        assert self._index is not None  # set by open_chain
        async with self._lock:
            self.checkpoint = await self._index.catch_up()

    async def refresh_transfers(self) -> None:
        """Take in the wallet's transfers that were confirmed since.

        Raises:
            TransientError: `chain_unavailable`.
        """
        assert self._transfers is not None  # set by open_chain
        await self._transfers.catch_up()

    async def follow(self) -> None:
        """Take in new blocks for ever; run it as a task.

        Raises:
            InvariantError: `chain_reorganised`.
        """
        while True:
            try:
                await self.refresh()
            except (TransientError, ChainError) as error:
                _log.warning("the view of the chain waits: %s", error.message)
            except InvariantError as error:
                _log.error("the view of the chain stopped: %s", error.message)
                raise
            await asyncio.sleep(FOLLOW_INTERVAL_S)

    def list_services(self) -> list[PublishedService]:
        """See `ChainView`."""
        return read_services(self._documents)

    def find_funds(self, provider: Address) -> SubAccountFunds | None:
        """See `ChainView`."""
        return self._funds.get(provider)

    def list_funded(self) -> Collection[Address]:
        """See `ChainView`."""
        return self._funded

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """(provider, signer, funds) of every sub-account of this user."""
        found = []
        for key, document in self._documents.items():
            if not key.startswith(FUNDS):
                continue
            provider, _, inner = key.removeprefix(FUNDS).partition("/")
            names = find_names(inner)
            if names is not None:
                found.append((provider, names[1], decode_funds(document)))
        return sorted(found, key=lambda entry: entry[:2])

    def is_receipt_key(self, provider: Address, key: Address) -> bool:
        """See `ChainView`."""
        return is_receipt_key(self._documents, provider, key)

    def list_proven(self) -> list[Proven]:
        """Proofs about this user's sub-accounts that Escrow accepted, oldest first."""
        return read_proven(self._documents)

    def get_account(self) -> int:
        """The user's free balance as its events add up, base units."""
        return int(self._documents.get(ACCOUNT, b"0"))

    def list_journal(self) -> list[JournalEntry]:
        """Every event of Escrow and Registry that moved this user's money, oldest first."""
        return self._list_entries(JOURNAL)

    def list_transfers(self, last_block: int) -> list[JournalEntry]:
        """The wallet's transfers up to a block, oldest first."""
        return [e for e in self._list_entries(TRANSFER) if e.block_number <= last_block]

    def apply(self, changed: dict[str, bytes | None], at: Checkpoint | None) -> None:
        """Take over what became durable."""
        self.apply_transfers(changed, at)
        self.checkpoint = at

    def apply_transfers(self, changed: dict[str, bytes | None], at: Checkpoint | None) -> None:
        """The same of the transfers' index, whose block is its own."""
        for key, document in changed.items():
            if document is None:
                self._documents.pop(key, None)
            else:
                self._documents[key] = document
            if key.startswith(FUNDS) and key.endswith(self._own):
                self._note_funds(key.removeprefix(FUNDS).partition("/")[0], document)

    def fold(self, event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
        """What one event of Escrow or Registry means; pure."""
        if event.contract == "Registry":
            yield from fold_market(event, find)
            yield from fold_stake(event, self._user)
        else:
            yield from fold_escrow(event, find, self._user)
            yield from fold_proven(event, self._user)

    def fold_transfer(self, event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
        """What one event of the asset means; pure."""
        yield from fold_transfer(event, self._user)

    def _note_funds(self, provider: Address, document: bytes | None) -> None:
        if document is None:
            self._funds.pop(provider, None)
        else:
            self._funds[provider] = decode_funds(document)
            self._funded.add(provider)

    def _list_entries(self, prefix: str) -> list[JournalEntry]:
        keys = sorted(key for key in self._documents if key.startswith(prefix))
        return [msgspec.json.decode(self._documents[key], type=JournalEntry) for key in keys]


async def open_chain(
    rpc: Rpc, deployment: Deployment, database: Database, user: Address, signer: Address
) -> IndexedChain:
    """Load what was kept and join it to the chain; `refresh` brings it up to date."""
    chain = IndexedChain(user, signer)
    chain.start_block = deployment.start_block
    storage = await open_index_storage(
        database, f"user:{user}/{FOLD_VERSION}", chain.fold, chain.apply
    )
    contracts = [
        Escrow(rpc, deployment.escrow).contract,
        Registry(rpc, deployment.registry).contract,
    ]
    chain._index = EventIndex(
        rpc,
        contracts,
        storage,
        start_block=deployment.start_block,
        confirmations=deployment.confirmations,
    )
    of_wallet = await open_index_storage(
        database, f"wallet:{user}", chain.fold_transfer, chain.apply_transfers
    )
    chain._transfers = _create_transfer_index(rpc, deployment, of_wallet, user)
    return chain


def _create_transfer_index(
    rpc: Rpc, deployment: Deployment, storage: DatabaseIndexStorage, user: Address
) -> EventIndex:
    asset = Asset(rpc, deployment.asset).contract
    topic = asset.artifact.events["Transfer"].topic
    word = bytes(12) + to_bytes(user)
    return EventIndex(
        rpc,
        [asset],
        storage,
        start_block=deployment.start_block,
        confirmations=deployment.confirmations,
        filters=((topic, word), (topic, None, word)),
    )
