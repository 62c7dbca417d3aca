"""What the user's side knows of the chain: services, its own funds, its own history.

Everything comes from confirmed events, folded into small documents that are kept in the user's
database together with the block they stand for, so a restart goes on where it was and a
reorganisation takes back what it must. Nothing on the request path waits for the chain.

views        ChainView, which buying stands on; FixedChain for tests
indexed      IndexedChain: the indices, and what is asked of them; open_chain
market_fold  events to services and providers
money_fold   events to funds, account, and the journal of what moved this user's money

Source: `Escrow.vy`, `Registry.vy`; `hanse.settlement.chain_state.index_storage`.
"""

from hanse.sdk.chain_view.indexed import IndexedChain, open_chain
from hanse.sdk.chain_view.views import ChainView, FixedChain
from hanse.settlement.money.journal import JournalEntry

__all__ = ["ChainView", "FixedChain", "IndexedChain", "JournalEntry", "open_chain"]
