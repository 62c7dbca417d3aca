"""Commits and inclusion proofs as JSON.

What comes from outside passes through a `_from_json` function here, which checks form and range and
raises; `hanse.protocol.records.proofs` checks the hashes.

Source: `docs/records.md`, sections "On the wire" and "The proof file".
"""

from typing import Any

import msgspec

from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.limits import AMOUNT_MAX, LEAVES_PER_COMMIT_MAX
from hanse.protocol.records.proofs import Commit, RecordProof
from hanse.protocol.records.wire import COUNT_MAX
from hanse.protocol.signatures import parse_address, parse_hash32
from hanse.protocol.wire.fields import check_range, convert_json, parse_count

SIBLINGS_MAX = LEAVES_PER_COMMIT_MAX.bit_length()


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
