"""When the entries of the two sides are one record, and why they are not.

Two entries of one (user, provider, signer, sequence) are a record if they name the same receipt,
that is the same digest, and so the same fee. Their trace hashes may differ: each side has a trace
of its own, or none.

| reason | means | then |
| --- | --- | --- |
| missing_at_user | the user's side has not submitted it | it resumes and submits |
| missing_at_provider | the provider has not submitted it | it submits |
| digests_differ | two receipts for one sequence | both resume; else equivocation |
| fees_differ | one receipt, two fees stated | the side that is wrong submits again |
| recorded_differently | another receipt or trace is matched already | the first stands |
| too_many_waiting | the sub-account has too many unmatched ones | submit it again later |
| over_share | its provider has, or its sub-account, what the recorder takes of one | likewise |

Source: `docs/records.md`, section "Matching".
"""

from enum import StrEnum

from hanse.protocol.records.messages import RecordEntry, Side


class Reason(StrEnum):
    """Why an entry is not matched."""

    MISSING_AT_USER = "missing_at_user"
    MISSING_AT_PROVIDER = "missing_at_provider"
    DIGESTS_DIFFER = "digests_differ"
    FEES_DIFFER = "fees_differ"
    RECORDED_DIFFERENTLY = "recorded_differently"
    TOO_MANY_WAITING = "too_many_waiting"
    OVER_SHARE = "over_share"


def find_mismatch(user: RecordEntry | None, provider: RecordEntry | None) -> Reason | None:
    """Why two entries of one key are no record, or None if they are one.

    Args:
        user: what the user's side submitted, or None.
        provider: what the provider submitted, or None.

    Raises:
        ValueError: if neither is there, or they are of different keys.
    """
    if user is None and provider is None:
        raise ValueError("there is no entry to match")
    if user is None:
        return Reason.MISSING_AT_USER
    if provider is None:
        return Reason.MISSING_AT_PROVIDER
    if user.key != provider.key:
        raise ValueError("the two entries are of different requests")
    if user.receipt_digest != provider.receipt_digest:
        return Reason.DIGESTS_DIFFER
    return None if user.fee == provider.fee else Reason.FEES_DIFFER


def get_missing_reason(side: Side) -> Reason:
    """The reason of an entry that only `side` has submitted."""
    return Reason.MISSING_AT_PROVIDER if side is Side.USER else Reason.MISSING_AT_USER
