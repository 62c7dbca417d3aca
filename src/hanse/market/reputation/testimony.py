"""A testimony: one witness's word on a provider, with the hash of what shows it.

Who reads one in has checked its signature and, for an audit, may have run the evidence again; here
it is data. A witness is an address with a stake in the Registry: that stake is all its word weighs.

As a line of JSON, which is what `hanse match --testimonies FILE` takes:

    {"provider": "0x...", "witness": "0x...", "word": "audit_failed",
     "evidence_hash": "0x...", "at_s": 1900000000}
"""

import json
from enum import StrEnum
from typing import Any

import msgspec

from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Address, Hash32

FIRST_TOKEN_MS_MAX = 600_000
"""Ten minutes: no request waits longer, so a larger number is no measurement."""

LINE_BYTES_MAX = 1_024
"""A line of five fields takes about 300 bytes."""


class Word(StrEnum):
    """What a witness says.

    Success of ordinary requests is not among them: it costs nothing to invent, and who paid for an
    answer knows better.
    """

    AUDIT_PASSED = "audit_passed"
    AUDIT_FAILED = "audit_failed"
    AUDIT_DOUBTED = "audit_doubted"  # what it found is no ground for a penalty alone
    REQUEST_FAILED = "request_failed"
    FIRST_TOKEN = "first_token"  # noqa: S105  # of an answer, not of a password


class Testimony(msgspec.Struct, frozen=True, order=True):
    """See the module.

    Attributes:
        evidence_hash: of the signed file that shows it; two with one hash count once.
        provider: whom it is about.
        witness: who says so, and signed the evidence.
        word: what.
        at_s: time of the block at which the evidence was public, unix seconds.
        first_token_ms: how long the first token took; 0 for every other word.
    """

    evidence_hash: Hash32
    provider: Address
    witness: Address
    word: Word
    at_s: int
    first_token_ms: int = 0


def parse_testimony(line: bytes | str) -> Testimony:
    """One line of JSON.

    Raises:
        RequestError: `invalid_request`, if it is no testimony or out of range.
    """
    raw = line.encode() if isinstance(line, str) else line
    if len(raw) > LINE_BYTES_MAX:
        raise _refuse(f"the line has {len(raw)} bytes, at most {LINE_BYTES_MAX} are taken")
    try:
        document: Any = json.loads(raw)
        found = msgspec.convert(document, Testimony)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise _refuse(f"the line is no testimony: {error}") from None
    if not 0 <= found.at_s < 2**40:
        raise _refuse(f"at_s is {found.at_s}, it has to be unix seconds")
    if not 0 <= found.first_token_ms <= FIRST_TOKEN_MS_MAX:
        raise _refuse(f"first_token_ms is {found.first_token_ms}, at most {FIRST_TOKEN_MS_MAX}")
    for name, length in (("provider", 42), ("witness", 42), ("evidence_hash", 66)):
        text = getattr(found, name)
        digits = text[2:]
        if len(text) != length or text[:2] != "0x" or set(digits) - set("0123456789abcdef"):
            raise _refuse(f"{name} is {text!r:.80}, it has to be 0x and {length - 2} small digits")
    return found


def _refuse(message: str) -> RequestError:
    return RequestError("invalid_request", message)
