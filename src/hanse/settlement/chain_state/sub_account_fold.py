"""What Escrow's events mean for the sub-accounts that pay one provider.

A pure fold over confirmed events, so that broker and settler know every sub-account without asking
the chain:

| event | balance | claimed, sequence | pending refund |
| --- | --- | --- | --- |
| Funded | + amount - from_refund | | as the event says |
| RefundRequested | | | as the event says |
| RefundCancelled | | | none |
| RefundClaimed | - amount | | none |
| Settled, partial or paid | - paid | + paid, the claim's sequence | at most the balance |

Documents: `sub_account:<user>:<signer>`, and `key:<start of its key>` that leads to it, since a
settlement names no more than that. A test runs the fold beside the contract.

Source: `Escrow.vy`, and `hanse.contracts.claims` for the words of a settlement.
"""

from collections.abc import Iterator

import msgspec

from hanse.chain import Event
from hanse.contracts import decode_results, get_sub_account_key
from hanse.protocol.ledger import ClaimStatus
from hanse.protocol.signatures import Address
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.chain_state.index_storage import FindDocument, Fold

KEY_PREFIX_BYTES = 15
"""Of a sub-account's key, as a settlement's results carry it."""

SUB_ACCOUNT_PREFIX = "sub_account:"

_NOTHING = SubAccountFunds(0, 0)


class _Document(msgspec.Struct, frozen=True):
    balance: str
    claimed: str
    sequence: str
    pending_refund: str
    refund_unlock_s: int


def create_provider_fold(provider: Address) -> Fold:
    """The fold for the sub-accounts of one provider; other providers' events change nothing."""

    def fold(event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
        if event.contract != "Escrow" or event.fields.get("provider") != provider:
            return
        if event.name == "Settled":
            yield from _fold_settled(event, find)
            return
        user, signer = event.fields.get("user"), event.fields.get("signer")
        if not isinstance(user, str) or not isinstance(signer, str):
            return
        before = find_funds(find, user, signer)
        after = _fold_one(event, before or _NOTHING)
        if before is None:
            key = get_sub_account_key(user, provider, signer)
            yield _get_prefix_key(key[:KEY_PREFIX_BYTES]), f"{user}:{signer}".encode()
        yield get_document_key(user, signer), encode_funds(after)

    return fold


def get_document_key(user: Address, signer: Address) -> str:
    """Where a sub-account's document is."""
    return f"{SUB_ACCOUNT_PREFIX}{user}:{signer}"


def find_names(document_key: str) -> tuple[Address, Address] | None:
    """User and signer of a sub-account's document; None for another kind of document."""
    if not document_key.startswith(SUB_ACCOUNT_PREFIX):
        return None
    user, _, signer = document_key.removeprefix(SUB_ACCOUNT_PREFIX).partition(":")
    return user, signer


def find_funds(find: FindDocument, user: Address, signer: Address) -> SubAccountFunds | None:
    """One sub-account's funds, or None if the chain never showed it."""
    document = find(get_document_key(user, signer))
    return None if document is None else decode_funds(document)


def encode_funds(funds: SubAccountFunds) -> bytes:
    """A document; amounts as text, since JSON's readers lose digits above 2^53."""
    return msgspec.json.encode(
        _Document(
            str(funds.balance),
            str(funds.claimed),
            str(funds.sequence),
            str(funds.pending_refund),
            funds.refund_unlock_s,
        )
    )


def decode_funds(document: bytes) -> SubAccountFunds:
    """What `encode_funds` wrote."""
    d = msgspec.json.decode(document, type=_Document)
    return SubAccountFunds(
        int(d.balance), int(d.claimed), int(d.sequence), int(d.pending_refund), d.refund_unlock_s
    )


def _get_prefix_key(prefix: bytes) -> str:
    return "key:" + prefix.hex()


def _fold_one(event: Event, funds: SubAccountFunds) -> SubAccountFunds:
    fields = event.fields
    balance, refund, unlock_s = funds.balance, funds.pending_refund, funds.refund_unlock_s
    if event.name == "Funded":
        balance += fields["amount"] - fields["from_refund"]
        refund = fields["refund"]
        unlock_s = unlock_s if refund else 0
    elif event.name == "RefundRequested":
        refund, unlock_s = fields["refund"], fields["unlock_time_s"]
    elif event.name == "RefundCancelled":
        refund, unlock_s = 0, 0
    elif event.name == "RefundClaimed":
        balance, refund, unlock_s = balance - fields["amount"], 0, 0
    return SubAccountFunds(balance, funds.claimed, funds.sequence, refund, unlock_s)


def _fold_settled(event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
    seen: dict[str, SubAccountFunds] = {}
    for result in decode_results(event.fields["results"]):
        if result.status not in (ClaimStatus.PARTIAL, ClaimStatus.PAID):
            continue
        names = find(_get_prefix_key(result.key_prefix))
        if names is None:
            continue
        document_key = SUB_ACCOUNT_PREFIX + names.decode()
        document = find(document_key)
        before = seen.get(document_key) or (decode_funds(document) if document else _NOTHING)
        balance = before.balance - result.paid
        seen[document_key] = SubAccountFunds(
            balance,
            before.claimed + result.paid,
            result.extend_sequence(before.sequence),
            min(before.pending_refund, balance),
            before.refund_unlock_s,
        )
    for document_key, funds in seen.items():
        yield document_key, encode_funds(funds)
