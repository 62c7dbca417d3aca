"""What the user's side knows of the chain: services, its own funds, its own history.

Everything comes from confirmed events, folded into small documents that are kept in the user's
database together with the block they stand for, so a restart goes on where it was and a
reorganisation takes back what it must. Nothing on the request path waits for the chain.

| document | from |
| --- | --- |
| `service:<provider>:<id>` | Registry.ServicePublished, ServiceRetired |
| `provider:<provider>` | Registry.Registered, StakeAdded, UnbondingBegun, ... |
| `funds:<provider>/...` | Escrow, by `hanse.settlement.chain_state.sub_account_fold` |
| `account` | Escrow.Deposited, Withdrawn, Funded, RefundClaimed |
| `journal:<block>:<index>` | every event that moved this user's money, with its transaction |

Source: `Escrow.vy`, `Registry.vy`; `hanse.settlement.chain_state.index_storage`.
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Protocol

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
from hanse.contracts import decode_results
from hanse.market import PublishedService
from hanse.protocol.errors import InvariantError, TransientError
from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.chain_state.index_storage import FindDocument, open_index_storage
from hanse.settlement.chain_state.sub_account_fold import (
    create_provider_fold,
    decode_funds,
    find_names,
    get_document_key,
)
from hanse.store.database import Database

FOLLOW_INTERVAL_S = 0.5
"""Between looks at the head: well under any block time, and one small request."""

_log = logging.getLogger(__name__)

_SERVICE, _PROVIDER, _FUNDS, _JOURNAL = "service:", "provider:", "funds:", "journal:"
_ACCOUNT = "account"


class JournalEntry(msgspec.Struct, frozen=True):
    """One event that moved this user's money. `amount` is base units, as text in JSON.

    `name` is the event's; `provider` and `signer` are empty for the account's own.
    """

    name: str
    amount: str
    provider: Address
    signer: Address
    transaction_hash: Hash32
    block_number: int
    timestamp_s: int
    unlock_time_s: int = 0


class _Service(msgspec.Struct, frozen=True):
    revision: int
    offer_hash: str
    service_type: str
    uri: str


class _Provider(msgspec.Struct, frozen=True):
    receipt_key: str
    is_unbonding: bool = False


class ChainView(Protocol):
    """The chain at a confirmed block, from memory."""

    async def refresh(self) -> None:
        """Take in what was confirmed since; raises TransientError `chain_unavailable`."""
        ...

    def list_services(self) -> list[PublishedService]:
        """Every service on the market."""
        ...

    def find_funds(self, provider: Address) -> SubAccountFunds | None:
        """Funds of (user, provider, signer), None if never funded."""
        ...


class FixedChain:
    """A `ChainView` that is told: for tests, and for a broker that is known without a chain."""

    def __init__(
        self, services: list[PublishedService], funds: dict[Address, SubAccountFunds]
    ) -> None:
        self.services = services
        self.funds = funds

    async def refresh(self) -> None:
        """See `ChainView`."""

    def list_services(self) -> list[PublishedService]:
        """See `ChainView`."""
        return list(self.services)

    def find_funds(self, provider: Address) -> SubAccountFunds | None:
        """See `ChainView`."""
        return self.funds.get(provider)


class IndexedChain:
    """`ChainView` over an event index. Open it with `open_chain`."""

    def __init__(self, user: Address, signer: Address) -> None:
        self._user = user
        self._signer = signer
        self._documents: dict[str, bytes] = {}
        self._index: EventIndex | None = None
        # Two rounds at once would read the same blocks and apply them twice.
        self._lock = asyncio.Lock()
        self.checkpoint: Checkpoint | None = None

    async def refresh(self) -> None:
        """See `ChainView`."""
        assert self._index is not None  # set by open_chain
        async with self._lock:
            self.checkpoint = await self._index.catch_up()

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
        services = []
        for key, document in self._documents.items():
            if not key.startswith(_SERVICE):
                continue
            provider, _, service_id = key.removeprefix(_SERVICE).partition(":")
            owner = self._documents.get(_PROVIDER + provider)
            if owner is None:
                continue
            s = msgspec.json.decode(document, type=_Service)
            p = msgspec.json.decode(owner, type=_Provider)
            services.append(
                PublishedService(
                    provider,
                    int(service_id),
                    s.revision,
                    s.offer_hash,
                    s.service_type,
                    s.uri,
                    p.receipt_key,
                    not p.is_unbonding,
                )
            )
        return services

    def find_funds(self, provider: Address) -> SubAccountFunds | None:
        """See `ChainView`."""
        key = f"{_FUNDS}{provider}/{get_document_key(self._user, self._signer)}"
        document = self._documents.get(key)
        return None if document is None else decode_funds(document)

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """(provider, signer, funds) of every sub-account of this user."""
        found = []
        for key, document in self._documents.items():
            if not key.startswith(_FUNDS):
                continue
            provider, _, inner = key.removeprefix(_FUNDS).partition("/")
            names = find_names(inner)
            if names is not None:
                found.append((provider, names[1], decode_funds(document)))
        return sorted(found, key=lambda entry: entry[:2])

    def get_account(self) -> int:
        """The user's free balance as its events add up, base units."""
        return int(self._documents.get(_ACCOUNT, b"0"))

    def list_journal(self) -> list[JournalEntry]:
        """Every event that moved this user's money, oldest first."""
        keys = sorted(key for key in self._documents if key.startswith(_JOURNAL))
        return [msgspec.json.decode(self._documents[key], type=JournalEntry) for key in keys]

    def apply(self, changed: dict[str, bytes | None], at: Checkpoint | None) -> None:
        """Take over what became durable."""
        for key, document in changed.items():
            if document is None:
                self._documents.pop(key, None)
            else:
                self._documents[key] = document
        self.checkpoint = at

    def fold(self, event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
        """What one event means; pure."""
        if event.contract == "Registry":
            yield from _fold_registry(event, find)
            return
        provider = event.fields.get("provider")
        if event.fields.get("user") == self._user:
            yield from self._fold_account(event, find)
        elif event.name != "Settled":
            return
        if isinstance(provider, str):
            prefix = f"{_FUNDS}{provider}/"
            fold = create_provider_fold(provider)
            for key, document in fold(event, lambda inner: find(prefix + inner)):
                yield prefix + key, document
            if event.name == "Settled":
                yield from _fold_paid(event, lambda inner: find(prefix + inner))

    def _fold_account(self, event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
        fields = event.fields
        amount = int(fields.get("amount", 0))
        change = {
            "Deposited": amount,
            "Withdrawn": -amount,
            "Funded": int(fields.get("from_refund", 0)) - amount,
            "RefundClaimed": amount,
        }.get(event.name, 0)
        if change:
            yield _ACCOUNT, str(int(find(_ACCOUNT) or b"0") + change).encode()
        if "amount" in fields:
            yield _journal(event, amount, fields.get("provider", ""), fields.get("signer", ""))


async def open_chain(
    rpc: Rpc, deployment: Deployment, database: Database, user: Address, signer: Address
) -> IndexedChain:
    """Load what was kept and join it to the chain; `refresh` brings it up to date."""
    chain = IndexedChain(user, signer)
    storage = await open_index_storage(database, f"user:{user}", chain.fold, chain.apply)
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
    return chain


def _fold_registry(event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
    fields = event.fields
    provider = fields.get("provider")
    key = f"{_PROVIDER}{provider}"
    if event.name in ("Registered", "ReceiptKeyChanged"):
        known = find(key) if event.name == "ReceiptKeyChanged" else None  # also while unbonding
        is_unbonding = known is not None and msgspec.json.decode(known, type=_Provider).is_unbonding
        yield key, msgspec.json.encode(_Provider(fields["receipt_key"], is_unbonding))
    elif event.name in ("UnbondingBegun", "UnbondingCancelled", "UnbondingFinished"):
        known = find(key)
        if known is not None:
            receipt_key = msgspec.json.decode(known, type=_Provider).receipt_key
            is_unbonding = event.name != "UnbondingCancelled"
            yield key, msgspec.json.encode(_Provider(receipt_key, is_unbonding))
    elif event.name in ("ServicePublished", "ServiceRetired"):
        service = f"{_SERVICE}{provider}:{fields['service_id']}"
        if event.name == "ServiceRetired":
            yield service, None
            return
        offer_hash = "0x" + bytes(fields["offer_hash"]).hex()
        document = _Service(fields["revision"], offer_hash, fields["service_type"], fields["uri"])
        yield service, msgspec.json.encode(document)


def _fold_paid(event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
    """Journal what a settlement took from this user's sub-accounts."""
    for ordinal, result in enumerate(decode_results(event.fields["results"])):
        names = find("key:" + result.key_prefix.hex())
        if names is None or not result.paid:
            continue
        signer = names.decode().partition(":")[2]
        yield _journal(event, result.paid, event.fields["provider"], signer, ordinal)


def _journal(
    event: Event, amount: int, provider: Address, signer: Address, ordinal: int = 0
) -> tuple[str, bytes]:
    key = f"{_JOURNAL}{event.block_number:012d}:{event.log_index:06d}:{ordinal:03d}"
    entry = JournalEntry(
        event.name,
        str(amount),
        provider,
        signer,
        event.transaction_hash,
        event.block_number,
        event.timestamp_s,
        int(event.fields.get("unlock_time_s", 0)),
    )
    return key, msgspec.json.encode(entry)
