"""Submissions, promises and proofs as JSON.

What comes from outside passes through a `decode_` or `_from_json` function here, which checks form
and range and raises. `verify_submission` and `verify_promise` check signatures.

Source: `docs/records.md`, section "On the wire".
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.limits import (
    AMOUNT_MAX,
    CLOCK_SKEW_S_MAX,
    LEAVES_PER_COMMIT_MAX,
    RECORD_ENTRIES_PER_SUBMISSION_MAX,
    RECORD_FEE_MAX,
    RECORD_SEQUENCE_MAX,
    SUBMISSION_VALID_S_MAX,
)
from hanse.protocol.records.messages import (
    Promise,
    PromiseKind,
    RecordEntry,
    Side,
    SignedPromise,
    SignedSubmission,
    Submission,
    hash_entries,
)
from hanse.protocol.records.proofs import Commit, RecordProof
from hanse.protocol.signatures import (
    Address,
    parse_address,
    parse_hash32,
    recover_signer,
    to_hex,
    verify_signature,
)
from hanse.protocol.wire.fields import (
    TIME_MAX,
    WIRE_VERSION,
    check_range,
    check_version,
    convert_json,
    decode_json,
    parse_count,
)

COUNT_MAX = 2**64 - 1
"""Of commits, blocks and leaves: more than any chain will see."""

SIBLINGS_MAX = LEAVES_PER_COMMIT_MAX.bit_length()

_SIDES = {side.name.lower(): side for side in Side}
_KINDS = {kind.name.lower(): kind for kind in PromiseKind}


class _EntryWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str
    provider: str
    signer: str
    sequence: str
    receipt_digest: str
    fee: str
    trace_hash: str


class _SubmissionWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    recorder: str
    side: str
    party: str
    entries: list[_EntryWire]
    deadline: int
    signature: str


class _PromiseWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    recorder: str
    kind: str
    entries_hash: str
    block: int
    signature: str


class _CommitWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: str
    root: str
    count: str
    fee_total: str
    previous_head: str
    head: str


class _ProofWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    recorder: str
    commit: _CommitWire
    user_trace_hash: str
    provider_trace_hash: str
    index: str
    siblings: list[str]
    transaction_hash: str
    block_number: int


def entry_to_json(entry: RecordEntry) -> dict[str, Any]:
    """An entry as a JSON-ready dict."""
    return {
        "user": entry.user,
        "provider": entry.provider,
        "signer": entry.signer,
        "sequence": str(entry.sequence),
        "receipt_digest": entry.receipt_digest,
        "fee": str(entry.fee),
        "trace_hash": entry.trace_hash,
    }


def entry_from_json(data: object) -> RecordEntry:
    """Read an entry from decoded JSON; raises RequestError."""
    return _to_entry(convert_json(data, _EntryWire))


def submission_to_json(signed: SignedSubmission) -> dict[str, Any]:
    """A signed submission as a JSON-ready dict."""
    submission = signed.submission
    return {
        "v": WIRE_VERSION,
        "recorder": submission.recorder,
        "side": submission.side.name.lower(),
        "party": signed.party,
        "entries": [entry_to_json(entry) for entry in submission.entries],
        "deadline": submission.deadline,
        "signature": signed.signature,
    }


def decode_submission(body: bytes) -> SignedSubmission:
    """Read a submission; its signature is still unchecked.

    Raises:
        RequestError: `invalid_request`, naming what is wrong.
    """
    try:
        w = decode_json(body, _SubmissionWire)
        check_version(w.v)
        if len(w.entries) > RECORD_ENTRIES_PER_SUBMISSION_MAX:
            raise RequestError(
                "invalid_request",
                f"{len(w.entries)} entries, at most {RECORD_ENTRIES_PER_SUBMISSION_MAX} at once",
                param="entries",
            )
        submission = Submission(
            parse_address(w.recorder, "recorder"),
            _get_named(_SIDES, w.side, "side"),
            tuple(_to_entry(entry) for entry in w.entries),
            check_range(w.deadline, TIME_MAX, "deadline"),
        )
        return SignedSubmission(submission, parse_address(w.party, "party"), w.signature)
    except HanseError as error:
        raise RequestError("invalid_request", error.message, param=error.param) from None


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
    if (
        not -CLOCK_SKEW_S_MAX
        <= submission.deadline - now_s
        <= (SUBMISSION_VALID_S_MAX + CLOCK_SKEW_S_MAX)
    ):
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


def promise_to_json(signed: SignedPromise) -> dict[str, Any]:
    """A signed promise as a JSON-ready dict."""
    promise = signed.promise
    return {
        "v": WIRE_VERSION,
        "recorder": promise.recorder,
        "kind": promise.kind.name.lower(),
        "entries_hash": promise.entries_hash,
        "block": promise.block,
        "signature": signed.signature,
    }


def promise_from_json(data: object) -> SignedPromise:
    """Read a promise from decoded JSON; its signature is still unchecked.

    Raises:
        VerificationError: `response_malformed`.
    """
    try:
        w = convert_json(data, _PromiseWire)
        check_version(w.v)
        promise = Promise(
            parse_address(w.recorder, "recorder"),
            _get_named(_KINDS, w.kind, "kind"),
            parse_hash32(w.entries_hash, "entries_hash"),
            check_range(w.block, COUNT_MAX, "block"),
        )
    except HanseError as error:
        raise VerificationError("response_malformed", f"promise: {error.message}") from None
    return SignedPromise(promise, w.signature)


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


def commit_to_json(commit: Commit) -> dict[str, Any]:
    """A commit as a JSON-ready dict."""
    return {
        "number": str(commit.number),
        "root": commit.root,
        "count": str(commit.count),
        "fee_total": str(commit.fee_total),
        "previous_head": commit.previous_head,
        "head": commit.head,
    }


def commit_from_json(data: object) -> Commit:
    """Read a commit from decoded JSON; its hashes are still unchecked.

    Raises:
        VerificationError: `proof_invalid`.
    """
    try:
        return _to_commit(convert_json(data, _CommitWire))
    except HanseError as error:
        raise VerificationError("proof_invalid", f"commit: {error.message}") from None


def proof_to_json(proof: RecordProof) -> dict[str, Any]:
    """An inclusion proof as a JSON-ready dict."""
    return {
        "recorder": proof.recorder,
        "commit": commit_to_json(proof.commit),
        "user_trace_hash": proof.user_trace_hash,
        "provider_trace_hash": proof.provider_trace_hash,
        "index": str(proof.index),
        "siblings": list(proof.siblings),
        "transaction_hash": proof.transaction_hash,
        "block_number": proof.block_number,
    }


def proof_from_json(data: object) -> RecordProof:
    """Read an inclusion proof from decoded JSON; its hashes are still unchecked.

    Raises:
        VerificationError: `proof_invalid`.
    """
    try:
        w = convert_json(data, _ProofWire)
        if len(w.siblings) > SIBLINGS_MAX:
            raise RequestError(
                "invalid_request", f"{len(w.siblings)} siblings, at most {SIBLINGS_MAX}"
            )
        return RecordProof(
            parse_address(w.recorder, "recorder"),
            _to_commit(w.commit),
            parse_hash32(w.user_trace_hash, "user_trace_hash"),
            parse_hash32(w.provider_trace_hash, "provider_trace_hash"),
            parse_count(w.index, COUNT_MAX, "index"),
            tuple(parse_hash32(sibling, "siblings") for sibling in w.siblings),
            parse_hash32(w.transaction_hash, "transaction_hash"),
            check_range(w.block_number, COUNT_MAX, "block_number"),
        )
    except HanseError as error:
        raise VerificationError("proof_invalid", f"proof: {error.message}") from None


def _to_entry(w: _EntryWire) -> RecordEntry:
    sequence = parse_count(w.sequence, RECORD_SEQUENCE_MAX, "sequence")
    return RecordEntry(
        parse_address(w.user, "user"),
        parse_address(w.provider, "provider"),
        parse_address(w.signer, "signer"),
        check_range(sequence, RECORD_SEQUENCE_MAX, "sequence", 1),
        parse_hash32(w.receipt_digest, "receipt_digest"),
        parse_count(w.fee, RECORD_FEE_MAX, "fee"),
        parse_hash32(w.trace_hash, "trace_hash"),
    )


def _to_commit(w: _CommitWire) -> Commit:
    count = parse_count(w.count, LEAVES_PER_COMMIT_MAX, "count")
    return Commit(
        parse_count(w.number, COUNT_MAX, "number"),
        parse_hash32(w.root, "root"),
        check_range(count, LEAVES_PER_COMMIT_MAX, "count", 1),
        parse_count(w.fee_total, AMOUNT_MAX, "fee_total"),
        parse_hash32(w.previous_head, "previous_head"),
        parse_hash32(w.head, "head"),
    )


def _get_named(names: dict[str, Any], name: str, field: str) -> Any:
    if name not in names:
        raise RequestError(
            "invalid_request", f"{field} {name!r:.40} is none of {', '.join(names)}", param=field
        )
    return names[name]
