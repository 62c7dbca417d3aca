"""What the commands of `hanse traces` do with a trace, once they know whose it is."""

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from hanse.cli.session import Session
from hanse.cli.tracing.side import TraceSide, delete_object, open_trace_side, read_file
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.records.proof_wire import proof_from_json
from hanse.protocol.records.proofs import verify_record
from hanse.protocol.signatures import Address, Hash32, to_hex
from hanse.settlement.traces.document import Side, Trace
from hanse.settlement.traces.notes import Drops, TraceNote


async def read_trace(
    session: Session, name: str, options: dict[str, Any]
) -> tuple[Trace, Hash32, tuple[Domain, Address, SignedReceipt | None, bool]]:
    """A trace in clear, its hash, and what to check it against.

    Returns:
        The trace, its hash, and (domain, receipt key, receipt held, whether the key is known here).
    """
    if bool(name) == bool(options["file"]):
        raise RequestError("usage", "name a trace by its ID, or a file by --file")
    async with open_trace_side(session, options["key"], options["provider"]) as side:
        trace, trace_hash = await side.decrypt(
            name, options["file"], use_keyring=options["keyring"]
        )
        receipt_key, held = await side.find_receipt(trace)
        is_ours = receipt_key is not None
        if receipt_key is None:
            receipt_key = side.recover_receipt_key(trace.receipt)
        return trace, trace_hash, (side.domain, receipt_key, held, is_ours)


async def forget_traces(side: TraceSide, name: str, until: int) -> tuple[int, int]:
    """Forget one trace, or, without a name, all that were noted before then.

    Returns:
        How many were forgotten, and how many objects could not be deleted.
    """
    forgotten, left = 0, 0
    while True:
        notes = [await side.get_note(name)] if name else await side.notes.list_stored(until)
        for note in notes:
            forgotten += await side.notes.forget(note.trace_hash, "on command")
            left += bool(note.has_object and await delete_object(side, note))
        if name or not notes:
            return forgotten, left
        side.session.output.note(f"{forgotten} forgotten ...")


def check_proof(path: Path, trace: Trace, trace_hash: Hash32, domain: Domain) -> None:
    """Check that a record's leaf binds a trace and its receipt.

    The caller still owes: that the chain has the commit that the proof names.

    Raises:
        VerificationError: `proof_invalid`.
    """
    try:
        raw = read_file(path)
        document = {} if is_nested_too_deep(raw) else json.loads(raw)
        document = document.get("proof", document)
    except (ValueError, AttributeError, RecursionError):
        raise VerificationError("proof_invalid", f"{path} is not an inclusion proof") from None
    proof = proof_from_json(document)
    is_user = trace.side is Side.USER
    bound = proof.user_trace_hash if is_user else proof.provider_trace_hash
    if bound != trace_hash:
        raise VerificationError(
            "proof_invalid", f"the record binds the {trace.side}'s trace {bound}, not {trace_hash}"
        )
    verify_record(proof, to_hex(domain.digest(trace.receipt.receipt.struct_hash())))


def to_seconds(day: str) -> int:
    """The beginning of a day, in this machine's zone, as unix seconds.

    Raises:
        RequestError: `usage`.
    """
    try:
        found = int(datetime.fromisoformat(day).timestamp())
    except (ValueError, OverflowError, OSError):
        raise RequestError("usage", f"--before {day!r:.40} is not a day: YYYY-MM-DD") from None
    if found > time.time() + 86_400:
        raise RequestError("usage", f"--before {day} is in the future: forget what is there")
    return found


def check_new(path: Path) -> None:
    """Refuse, before hours of work, a place where `write_new` could not write.

    Raises:
        RequestError: `usage`.
    """
    if path.exists():
        raise RequestError("usage", f"{path} is there already; remove it or name another one")
    if not path.parent.is_dir():
        raise RequestError("usage", f"cannot write {path}: there is no folder {path.parent}")


def write_new(path: Path, content: bytes) -> None:
    """Write a new file, mode 0600; what is there is never replaced.

    Raises:
        RequestError: `usage`.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise RequestError("usage", f"cannot write {path}: {error.strerror}") from None


def note_to_document(note: TraceNote) -> dict[str, Any]:
    """A note, JSON-ready."""
    names = (
        "trace_hash", "request_id", "user", "provider", "signer", "sequence", "object_bytes",
        "location", "reason", "created_at",
    )  # fmt: skip
    return {name: getattr(note, name) for name in names} | {"state": note.state.value}


def drop_to_document(drop: Drops) -> dict[str, Any]:
    """What was dropped for one reason, JSON-ready."""
    return {"reason": drop.reason, "dropped": drop.dropped, "last_at": drop.last_at}
