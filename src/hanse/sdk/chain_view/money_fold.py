"""What Escrow's, Registry's and the asset's events mean for one user's money. Pure.

| document | from |
| --- | --- |
| `funds:<provider>/...` | Escrow, by `hanse.settlement.chain_state.sub_account_fold` |
| `account` | Escrow.Deposited, Withdrawn, Funded, RefundClaimed, and proofs of a fraud |
| `journal:<block>:<index>` | every event of Escrow and Registry that moved this user's money |
| `transfer:<block>:<index>` | the asset's transfers from and to this wallet, in an index apart |

Source: `Escrow.vy`, `Registry.vy`; ERC-20 for the transfers.
"""

from collections.abc import Iterator

import msgspec

from hanse.chain import Event
from hanse.contracts import decode_results
from hanse.protocol.signatures import Address
from hanse.settlement.chain_state.index_storage import FindDocument
from hanse.settlement.chain_state.sub_account_fold import create_provider_fold
from hanse.settlement.money.journal import PROOFS, JournalEntry, get_account_change

FUNDS, ACCOUNT, JOURNAL, TRANSFER = "funds:", "account", "journal:", "transfer:"

_STAKE_AMOUNTS = {
    "Registered": "stake",
    "StakeAdded": "amount",
    "UnbondingBegun": "stake",
    "UnbondingCancelled": "stake",
    "UnbondingFinished": "stake",
    "Condemned": "stake",
}
"""Of each event about a stake, the field that says how much it is about."""


def fold_escrow(
    event: Event, find: FindDocument, user: Address
) -> Iterator[tuple[str, bytes | None]]:
    """The documents that one event of Escrow changes for `user`."""
    provider = event.fields.get("provider")
    if event.fields.get("user") == user:
        yield from _fold_account(event, find)
    elif event.name != "Settled":
        return
    if isinstance(provider, str):
        prefix = f"{FUNDS}{provider}/"
        fold = create_provider_fold(provider)
        for key, document in fold(event, lambda inner: find(prefix + inner)):
            yield prefix + key, document
        if event.name == "Settled":
            yield from _fold_paid(event, lambda inner: find(prefix + inner))


def fold_stake(event: Event, user: Address) -> Iterator[tuple[str, bytes | None]]:
    """The journal of the user's own stake, if it is a provider too."""
    field = _STAKE_AMOUNTS.get(event.name)
    if field is not None and event.fields.get("provider") == user:
        yield make_entry(event, int(event.fields[field]))


def fold_transfer(event: Event, user: Address) -> Iterator[tuple[str, bytes | None]]:
    """The journal of the wallet's transfers; one to itself moves nothing."""
    if event.name != "Transfer":
        return
    sender, receiver = event.fields["sender"], event.fields["receiver"]
    if sender == receiver or user not in (sender, receiver):
        return
    name, party = ("Received", sender) if receiver == user else ("Sent", receiver)
    amount = int(event.fields["amount"])
    yield make_entry(event, amount, name=name, party=party, prefix=TRANSFER)


def make_entry(
    event: Event,
    amount: int,
    *,
    signer: Address = "",
    ordinal: int = 0,
    name: str = "",
    party: Address = "",
    prefix: str = JOURNAL,
) -> tuple[str, bytes]:
    """A journal's document. Its key keeps the chain's order."""
    fields = event.fields
    entry = JournalEntry(
        name or event.name,
        str(amount),
        fields.get("provider", ""),
        signer or fields.get("signer", ""),
        event.transaction_hash,
        event.block_number,
        event.timestamp_s,
        int(fields.get("unlock_time_s", fields.get("until_s", 0))),
        str(fields.get("from_refund", 0)),
        party,
    )
    key = f"{prefix}{event.block_number:012d}:{event.log_index:06d}:{ordinal:03d}"
    return key, msgspec.json.encode(entry)


def _fold_account(event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
    field = "compensation" if event.name in PROOFS else "amount"
    if field not in event.fields:
        return
    key, document = make_entry(event, int(event.fields[field]))
    change = get_account_change(msgspec.json.decode(document, type=JournalEntry))
    if change:
        yield ACCOUNT, str(int(find(ACCOUNT) or b"0") + change).encode()
    yield key, document


def _fold_paid(event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
    """Journal what a settlement took from this user's sub-accounts."""
    for ordinal, result in enumerate(decode_results(event.fields["results"])):
        names = find("key:" + result.key_prefix.hex())
        if names is None or not result.paid:
            continue
        signer = names.decode().partition(":")[2]
        yield make_entry(event, result.paid, signer=signer, ordinal=ordinal)
