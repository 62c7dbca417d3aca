"""Entries, submissions and promises as JSON.

What comes from outside passes through a `decode_` or `_from_json` function here, which checks form
and range and raises; `hanse.protocol.records.verify` checks signatures.

Source: `docs/records.md`, section "On the wire".
"""

from typing import Any

import msgspec

from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.limits import (
    RECORD_ENTRIES_PER_SUBMISSION_MAX,
    RECORD_FEE_MAX,
    RECORD_SEQUENCE_MAX,
)
from hanse.protocol.records.messages import (
    Promise,
    PromiseKind,
    RecordEntry,
    Side,
    SignedPromise,
    SignedSubmission,
    Submission,
)
from hanse.protocol.signatures import (
    parse_address,
    parse_hash32,
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


class _EntriesWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entries: list[_EntryWire]


def entries_from_json(body: bytes, most: int) -> tuple[RecordEntry, ...]:
    """Read `{"entries": [...]}`, as whoever asks for proofs sends it.

    Raises:
        RequestError: `invalid_request`.
    """
    try:
        found = decode_json(body, _EntriesWire).entries
        if len(found) > most:
            raise RequestError("invalid_request", f"{len(found)} entries, at most {most} at once")
        return tuple(_to_entry(entry) for entry in found)
    except HanseError as error:
        raise RequestError("invalid_request", error.message, param=error.param) from None


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


def _get_named(names: dict[str, Any], name: str, field: str) -> Any:
    if name not in names:
        raise RequestError(
            "invalid_request", f"{field} {name!r:.40} is none of {', '.join(names)}", param=field
        )
    return names[name]
