"""Everything that findings are made from, read at once: receipts that may contradict something.

Of a sub-account with a million receipts only few can: the first one from the claimed sequence on
(sums only rise after it), those that wait for one before them, and those that the book did not take
with what it holds for the same sequences. Each costs an indexed look, about 20 us in all.

Source: `docs/decisions/0016-disputes.md`; the tables of `hanse.settlement.books.voucher_tables`.
"""

from collections.abc import Mapping

import msgspec

from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import Address
from hanse.protocol.wire import receipt_from_json
from hanse.settlement.books.voucher_records import SubAccountKey
from hanse.settlement.disputes import tables as sql
from hanse.settlement.disputes.findings import Claimed, Finding, find_equivocation, find_overclaim
from hanse.settlement.disputes.rejected import REJECTED_PER_SUB_ACCOUNT_MAX
from hanse.store.database import INTEGER_MAX, Database, Transaction

SUB_ACCOUNTS_CHECKED_MAX = 10_000
"""Sub-accounts of one wallet; a gateway has one a provider."""

WAITING_CHECKED_MAX = 1_024
"""Receipts whose predecessors are missing: no more than requests may be in flight."""

CONFLICTS_CHECKED_MAX = 64
"""Receipts of one sub-account that contradict others; the book keeps no more."""

_LIST_SUB_ACCOUNTS = (
    "SELECT number, provider, signer, acknowledged FROM voucher_sub_accounts "
    "WHERE user_address = ? ORDER BY number LIMIT ?"
)
_FIND_FIRST = (
    "SELECT receipt FROM voucher_receipts WHERE sub_account = ? AND sequence >= ? "
    "ORDER BY sequence LIMIT 1"
)
_LIST_WAITING = (
    "SELECT receipt FROM voucher_receipts WHERE sub_account = ? AND sequence > ? "
    "ORDER BY sequence LIMIT ?"
)
_LIST_CONFLICTS = (
    "SELECT sequence, receipt FROM voucher_conflicts WHERE sub_account = ? "
    "ORDER BY sequence, receipt LIMIT ?"
)
_FIND_AT = "SELECT receipt FROM voucher_receipts WHERE sub_account = ? AND sequence = ?"


async def read_findings(
    database: Database, user: Address, claimed: Mapping[tuple[Address, Address], Claimed]
) -> list[Finding]:
    """Every cheat that is provable now, at most one of each kind for a sub-account.

    Args:
        database: the user's, with the tables of its book and of its disputes.
        user: whose sub-accounts.
        claimed: by (provider, signer), what the chain shows at the confirmed block.
    """
    receipts = await database.read(lambda tx: _read_receipts(tx, user, claimed))
    findings = []
    for key, signed in receipts.items():
        of = claimed.get((key.provider, key.signer), Claimed())
        findings += [find_overclaim(of, signed), find_equivocation(of, signed)]
    return [finding for finding in findings if finding is not None]


def _read_receipts(
    tx: Transaction, user: Address, claimed: Mapping[tuple[Address, Address], Claimed]
) -> dict[SubAccountKey, list[SignedReceipt]]:
    found = {}
    for number, provider, signer, acknowledged in tx.find_all(
        _LIST_SUB_ACCOUNTS, (user, SUB_ACCOUNTS_CHECKED_MAX)
    ):
        of = claimed.get((provider, signer), Claimed())
        key = SubAccountKey(user, provider, signer)
        encoded = _read_one(tx, number, key, acknowledged, of)
        found[key] = [
            receipt_from_json(msgspec.json.decode(text)) for text in dict.fromkeys(encoded)
        ]
    return found


def _read_one(
    tx: Transaction, number: int, key: SubAccountKey, acknowledged: int, of: Claimed
) -> list[str]:
    encoded: list[str] = []
    if of.amount and of.sequence <= INTEGER_MAX:
        first = tx.find_one(_FIND_FIRST, (number, of.sequence))
        encoded += [first[0]] if first else []
    waiting = tx.find_all(_LIST_WAITING, (number, acknowledged, WAITING_CHECKED_MAX))
    encoded += [row[0] for row in waiting]
    names = (key.user, key.provider, key.signer, REJECTED_PER_SUB_ACCOUNT_MAX)
    against = [
        *tx.find_all(_LIST_CONFLICTS, (number, CONFLICTS_CHECKED_MAX)),
        *tx.find_all(sql.LIST_REJECTED, names),
    ]
    encoded += [row[1] for row in against]
    for sequence in {int(row[0]) for row in against}:
        held = tx.find_one(_FIND_AT, (number, sequence)) if sequence <= INTEGER_MAX else None
        encoded += [held[0]] if held else []
    return encoded
