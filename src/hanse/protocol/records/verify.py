"""Checks of submissions and promises. Every function raises; none returns a bool.

Source: `docs/records.md`, section "Messages".
"""

from collections.abc import Sequence

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.limits import CLOCK_SKEW_S_MAX, SUBMISSION_VALID_S_MAX
from hanse.protocol.records.messages import (
    Promise,
    PromiseKind,
    RecordEntry,
    Side,
    SignedPromise,
    SignedSubmission,
    hash_entries,
)
from hanse.protocol.signatures import Address, recover_signer, to_hex, verify_signature


def verify_submission(
    signed: SignedSubmission, domain: Domain, recorder: Address, now_s: int
) -> Address:
    """Check that a submission is for this recorder, fresh, of one party, and who signed it.

    The caller still owes: on the provider's side that the key returned is the party's receipt key;
    on either side that the sub-accounts exist.

    Returns:
        The address that signed: on the user's side the party itself.

    Raises:
        RequestError: `unprocessable`, `voucher_expired`, `signature_invalid`.
    """
    submission, party = signed.submission, signed.party
    if submission.recorder != recorder:
        raise RequestError(
            "unprocessable", f"the submission is for {submission.recorder}, this is {recorder}"
        )
    ahead_s = submission.deadline - now_s
    if ahead_s < -CLOCK_SKEW_S_MAX or ahead_s > SUBMISSION_VALID_S_MAX + CLOCK_SKEW_S_MAX:
        raise RequestError(
            "voucher_expired",
            f"the submission's deadline is {submission.deadline}, now is {now_s}: "
            f"sign it for at most {SUBMISSION_VALID_S_MAX} s ahead",
        )
    is_user = submission.side is Side.USER
    for entry in submission.entries:
        owner = entry.signer if is_user else entry.provider
        if owner != party:
            raise RequestError(
                "unprocessable", f"an entry is of {owner}, the submission speaks for {party}"
            )
    if len({entry.key for entry in submission.entries}) != len(submission.entries):
        raise RequestError("unprocessable", "the submission names a sequence twice")
    digest = domain.digest(submission.struct_hash())
    if is_user:
        verify_signature(digest, signed.signature, party, "the submission")
        return party
    return recover_signer(digest, signed.signature)


def verify_promise(
    signed: SignedPromise,
    domain: Domain,
    recorder: Address,
    kind: PromiseKind,
    entries: Sequence[RecordEntry],
) -> None:
    """Check that a recorder promised this about these entries.

    Raises:
        VerificationError: `recorder_dishonest`, naming what differs.
    """
    promise = signed.promise
    try:
        verify_signature(
            domain.digest(promise.struct_hash()), signed.signature, recorder, "the promise"
        )
    except RequestError as error:
        raise VerificationError("recorder_dishonest", error.message) from None
    expected = Promise(recorder, kind, to_hex(hash_entries(entries)), promise.block)
    if promise != expected:
        raise VerificationError(
            "recorder_dishonest",
            f"the promise is {promise.kind.name.lower()} of {promise.recorder} about "
            f"{promise.entries_hash}, expected {kind.name.lower()} of {recorder} about "
            f"{expected.entries_hash}",
        )
