"""Since when a provider's receipts wait for their settlement, from its book.

    since = await read_waiting(database, owed)        # (user, signer) -> unix seconds

One look-up by an index for each sub-account, so the largest few are looked at.
"""

from collections.abc import Mapping, Sequence

from hanse.protocol.signatures import Address
from hanse.store.database import INTEGER_MAX, Database, Transaction

LOOKED_AT_MAX = 1_000
"""Sub-accounts, the largest first: some 20 ms of a reader, once in a while."""

_FIRST_AFTER = (
    "SELECT r.admitted_at FROM receipt_requests r JOIN receipt_sub_accounts s "
    "ON r.sub_account = s.number WHERE s.user_address = ? AND s.signer = ? AND r.sequence > ? "
    "ORDER BY r.sequence LIMIT 1"
)


async def read_waiting(
    database: Database, settled: Sequence[tuple[Address, Address, int]]
) -> Mapping[tuple[Address, Address], int]:
    """When the first request after the settled sequence was admitted, for each sub-account.

    Args:
        database: with the provider's book.
        settled: (user, signer, sequence that the chain's last claim named), the largest first.
    """

    def read(tx: Transaction) -> dict[tuple[Address, Address], int]:
        found = {}
        for user, signer, sequence in settled[:LOOKED_AT_MAX]:
            row = tx.find_one(_FIRST_AFTER, (user, signer, min(sequence, INTEGER_MAX)))
            if row is not None:
                found[user, signer] = int(row[0])
        return found

    return await database.read(read)
