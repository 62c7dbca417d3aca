"""Why the contracts refuse a call: their revert reasons, each with its code of the error table.

    raise refuse("balance", f"the account holds {free}, {cost} are needed")

The error carries the reason in `details["revert"]`, so that a test can hold the contracts and the
ledger to the same one, and so that `chain` can name a failed transaction's cause.
"""

from typing import NamedTuple

from hanse.protocol.errors import RequestError


class Refusal(NamedTuple):
    """Code of the error table, and what the reason means."""

    code: str
    meaning: str


REVERT_REASONS: dict[str, Refusal] = {
    "amount": Refusal("invalid_request", "An amount is 0 or would not fit 96 bits."),
    "balance": Refusal("insufficient_balance", "The account or sub-account holds too little."),
    "provider": Refusal("unprocessable", "The provider has no standing stake, or is unbonding."),
    "signer": Refusal("invalid_request", "The signer is the zero address."),
    "deadline": Refusal("voucher_expired", "The intent's deadline has passed."),
    "nonce": Refusal("request_replayed", "The intent's nonce is not the user's next one."),
    "signature": Refusal(
        "signature_invalid", "The intent is not the user's, or the receipt not the provider's."
    ),
    "no refund": Refusal("not_found", "No refund is pending."),
    "locked": Refusal("unprocessable", "The waiting time is not over."),
    "no claims": Refusal("invalid_request", "A settlement batch holds at least one claim."),
    "not permitted": Refusal("permission_denied", "The caller is none of the provider's keys."),
    "received": Refusal("unprocessable", "The asset delivered another amount than was sent."),
    "asset": Refusal("unprocessable", "The asset refused the transfer."),
    "unknown": Refusal("sub_account_unknown", "Nothing was ever set aside in the sub-account."),
    "no overclaim": Refusal(
        "unprocessable", "The receipt does not show that more was claimed than was served."
    ),
    "no equivocation": Refusal(
        "unprocessable", "These are not two different receipts for one sequence."
    ),
    "compensated": Refusal("unprocessable", "The sub-account's loss was paid back before."),
    "window": Refusal(
        "unprocessable", "The time to pay the provider's victims, or to challenge, is over."
    ),
    "condemned": Refusal("unprocessable", "The provider cheated and lost its stake for ever."),
    "not condemned": Refusal("unprocessable", "Nothing was proven against the provider."),
    "root": Refusal("invalid_request", "The root is zero."),
    "count": Refusal("invalid_request", "A commit is over at least one receipt."),
    "registered": Refusal("unprocessable", "The provider is registered already."),
    "not registered": Refusal("not_found", "The provider never registered."),
    "stake": Refusal("invalid_request", "The stake would be below the minimum, or there is none."),
    "payee": Refusal("invalid_request", "The payee is the zero address."),
    "key": Refusal("invalid_request", "The receipt key is zero or another provider's."),
    "unbonding": Refusal("unprocessable", "The stake is unbonding."),
    "not unbonding": Refusal("unprocessable", "The stake is not unbonding."),
    "not announced": Refusal("not_found", "No new key or payee was announced."),
    "revision": Refusal("unprocessable", "The offer's revision is not above the last one."),
    "offer": Refusal("invalid_request", "The offer's hash is zero or its type empty."),
    "service": Refusal("not_found", "The service is not on the market."),
    "stage": Refusal("unprocessable", "The challenge is at another stage, or there is none."),
    "early": Refusal("unprocessable", "The time for this has not come."),
    "late": Refusal("unprocessable", "The time for this is over."),
    "known": Refusal("unprocessable", "This challenger brought this evidence before."),
    "evidence": Refusal("invalid_request", "The evidence's hash is zero."),
    "answer": Refusal("invalid_request", "The answer is not the one that was sealed, or zero."),
    "auditors": Refusal("unprocessable", "There are too few auditors for a panel."),
    "busy": Refusal(
        "unprocessable", "As many challenges are open as there are auditors; close one that is due."
    ),
    "lots": Refusal("invalid_request", "So many lots cannot be bought or given back."),
    "seated": Refusal("unprocessable", "A challenge with the auditor on its panel is open."),
    "drawing": Refusal("unprocessable", "A panel is not drawn yet; anyone may draw it."),
    "seat": Refusal("permission_denied", "The auditor has no seat that can do this."),
    "vote": Refusal("invalid_request", "The vote is not the one that was sealed, or zero."),
    "verdict": Refusal("invalid_request", "A verdict is 1, upheld, or 2, rejected."),
    "appealed": Refusal("unprocessable", "The appeal's panel has judged; that is final."),
    "": Refusal("invalid_request", "An argument is outside its type, such as a 201st claim."),
}
"""Revert reason -> error code and meaning. A test finds every reason of the sources in here."""


def refuse(reason: str, message: str) -> RequestError:
    """The error of a refusal; `message` names the two values that disagree."""
    return RequestError(REVERT_REASONS[reason].code, message, details={"revert": reason})
