"""What the chain shows of the sub-accounts that pay this provider, at the confirmed block.

The request path asks a dictionary, never the chain. `IndexedChainView` keeps that dictionary with
an event index; only a sub-account that no event has shown yet is asked for, once in a while and not
too often, because anyone can sign for a sub-account that does not exist.

`StaticChainView` has the same face over a dictionary of one's own: for tests and for a broker that
is tried out without a chain.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

from hanse.chain import Checkpoint
from hanse.protocol.errors import HanseError
from hanse.protocol.signatures import Address
from hanse.settlement import SubAccountFunds
from hanse.settlement.chain_state.index_storage import DatabaseIndexStorage
from hanse.settlement.chain_state.sub_account_fold import decode_funds, find_names

LOOKUPS_PER_S_MAX = 5.0
"""Sub-accounts unknown to the index that are looked up in one second, over all callers."""

ABSENT_KEPT_S = 10.0
"""A sub-account that was not there is not asked for again for so long."""

ABSENT_KEPT_MAX = 10_000
"""Absent sub-accounts remembered; beyond it the oldest is forgotten."""

FetchFunds = Callable[[Address, Address], Awaitable[SubAccountFunds]]
"""Reads one sub-account (user, signer) from the chain at the confirmed block."""


class ChainView(Protocol):
    """Sub-accounts as the chain shows them at the confirmed block."""

    @property
    def block(self) -> int:
        """The confirmed block that the view stands at."""

    def find_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """A known sub-account; never waits."""

    async def fetch_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """A sub-account that `find_funds` does not know; None if the chain has none either."""

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """All that are known, as (user, signer, funds)."""


class StaticChainView:
    """A `ChainView` over a dictionary that its holder fills."""

    def __init__(self, block: int = 1) -> None:
        self.block = block
        self._funds: dict[tuple[Address, Address], SubAccountFunds] = {}

    def set_funds(self, user: Address, signer: Address, funds: SubAccountFunds) -> None:
        """Show this of a sub-account from now on."""
        self._funds[user, signer] = funds

    def find_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """See `ChainView`."""
        return self._funds.get((user, signer))

    async def fetch_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """See `ChainView`."""
        return self._funds.get((user, signer))

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """See `ChainView`."""
        return [(user, signer, funds) for (user, signer), funds in self._funds.items()]


class IndexedChainView:
    """A `ChainView` that an event index keeps.

    Give `on_change` to the index's storage and `load` it before the index runs.
    """

    def __init__(self, fetch: FetchFunds, monotonic: Callable[[], float]) -> None:
        self.block = 0
        self._fetch = fetch
        self._monotonic = monotonic
        self._funds: dict[tuple[Address, Address], SubAccountFunds] = {}
        self._absent: OrderedDict[tuple[Address, Address], float] = OrderedDict()
        self._lookups = LOOKUPS_PER_S_MAX
        self._lookups_at = monotonic()

    async def load(self, storage: DatabaseIndexStorage) -> None:
        """Take over what the storage holds from earlier runs."""
        checkpoints = await storage.read_checkpoints()
        documents: dict[str, bytes | None] = dict(await storage.read_documents())
        self.on_change(documents, checkpoints[0] if checkpoints else None)

    def on_change(self, documents: dict[str, bytes | None], at: Checkpoint | None) -> None:
        """Take over documents that have just become durable."""
        self.block = at.number if at else 0
        for key, document in documents.items():
            names = find_names(key)
            if names is None:
                continue
            self._absent.pop(names, None)
            if document is None:
                self._funds.pop(names, None)
                continue
            self._funds[names] = decode_funds(document)

    def find_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """See `ChainView`."""
        return self._funds.get((user, signer))

    async def fetch_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """See `ChainView`; asks the chain at a bounded rate, and answers None above it."""
        names, now = (user, signer), self._monotonic()
        until = self._absent.get(names)
        if (until is not None and now < until) or not self._take_lookup(now):
            return None
        self._absent[names] = now + ABSENT_KEPT_S  # also while the answer is on its way
        if len(self._absent) > ABSENT_KEPT_MAX:
            self._absent.popitem(last=False)
        try:
            funds = await self._fetch(user, signer)
        except HanseError:
            return None
        if funds.balance == 0 and funds.claimed == 0:
            return None
        # The index is the authority; it may have spoken meanwhile.
        return self._funds.setdefault(names, funds)

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """See `ChainView`."""
        return [(user, signer, funds) for (user, signer), funds in self._funds.items()]

    def _take_lookup(self, now: float) -> bool:
        refilled = self._lookups + (now - self._lookups_at) * LOOKUPS_PER_S_MAX
        self._lookups, self._lookups_at = min(LOOKUPS_PER_S_MAX, refilled), now
        if self._lookups < 1:
            return False
        self._lookups -= 1
        return True
