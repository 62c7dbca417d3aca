"""The event log replayed: what was measured, in order, held to the quote's registers.

    log = verify_event_log(boot_log, events, quote)        a VerifiedLog, or an error

A register starts as 48 zero bytes; each event makes it SHA-384(register || digest). So a log that
comes to the quote's value has every event, unchanged and in order. The boot log is what firmware
leaves in the ACPI table CCEL: a TCG log whose register 1 to 4 are RTMR0 to RTMR3. What the software
measures into RTMR3 later comes beside it, as names and payloads whose digests are made here:

    digest = SHA-384("hanse event 1" || 0x00 || u32 length of name || name || payload)

Of a boot event the digest counts; its text is what firmware wrote beside it. It is bound by the
digest only for the kinds in `CONTENT_KINDS`, where the digest is the text's own hash: there it is
compared. Of other kinds nothing here reads the text.

Source: TCG PC Client Platform Firmware Profile, "Event Logging"; Guest-Host-Communication Interface
for TDX, section on CCEL. A real log and quote are replayed in the tests.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hanse.protocol.errors import VerificationError
from hanse.verification.attestation.evidence import (
    EVENT_BYTES_MAX,
    ApplicationEvent,
)
from hanse.verification.attestation.quotes import VerifiedQuote
from hanse.verification.attestation.witness import SEAL, Witness

SHA384 = 0x0C
DIGEST_BYTES = 48
EV_NO_ACTION = 3
"""Says something about the log and is not measured."""

CONTENT_KINDS = {
    0x00000004: "separator",
    0x80000001: "variable",
    0x80000006: "partition table",
    0x80000007: "action",
    0x800000E0: "authority",
}
"""Kinds of boot events whose digest is the hash of their text."""

REGISTERS = {1: 0, 2: 1, 3: 2, 4: 3}
"""Index in the log -> RTMR. Index 0 would be MRTD, which no event extends."""

BOOT_EVENTS_MAX = 8_192
"""A boot has 40 to 200; firmware that logs each file has more."""

END_OF_LOG = 0xFFFFFFFF
NAME_BYTES_MAX = 128
_TAG = b"hanse event 1\x00"


@dataclass(frozen=True)
class BootEvent:
    """One measured event of the boot log; `register` is the RTMR that it extended."""

    register: int
    kind: int
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class VerifiedLog(Witness):
    """A log that replays to a verified quote's registers."""

    boot_events: tuple[BootEvent, ...]
    events: tuple[ApplicationEvent, ...]


def get_event_digest(event: ApplicationEvent) -> bytes:
    """What an application extends RTMR3 with for this event.

    Raises:
        VerificationError: `attestation_log_malformed`.
    """
    name = event.name.encode()
    try:
        payload = bytes.fromhex(event.payload)
    except ValueError:
        raise _broken(f"the payload of {event.name!r:.80} is not hexadecimal") from None
    if not 0 < len(name) <= NAME_BYTES_MAX or len(payload) > EVENT_BYTES_MAX:
        raise _broken(f"an event of {len(name)} and {len(payload)} bytes")
    return hashlib.sha384(_TAG + struct.pack("<I", len(name)) + name + payload).digest()


def verify_event_log(
    boot_log: bytes, events: tuple[ApplicationEvent, ...], quote: VerifiedQuote
) -> VerifiedLog:
    """Replay both logs and compare with the quote's registers: without a boot log with RTMR3 alone.

    Raises:
        VerificationError: `attestation_log_malformed`, `attestation_log_mismatch`.
    """
    boot_events = read_boot_log(boot_log)
    registers = replay(boot_events, events)
    for number in range(4) if boot_log else (3,):
        replayed, quoted = registers[number], quote.measurements.rtmrs[number]
        if replayed != quoted:
            raise VerificationError(
                "attestation_log_mismatch",
                f"the log replays RTMR{number} to {replayed}, the quote has {quoted}: "
                "an event is missing, changed, added or out of order",
            )
    return VerifiedLog(seal=SEAL, boot_events=boot_events, events=events)


def replay(
    boot_events: tuple[BootEvent, ...], events: tuple[ApplicationEvent, ...]
) -> tuple[str, ...]:
    """The values of RTMR0 to RTMR3 that these events make."""
    registers = [bytes(DIGEST_BYTES)] * 4
    for event in boot_events:
        registers[event.register] = _extend(registers[event.register], event.digest)
    for application_event in events:
        registers[3] = _extend(registers[3], get_event_digest(application_event))
    return tuple(register.hex() for register in registers)


def read_boot_log(log: bytes) -> tuple[BootEvent, ...]:
    """The measured events of a boot log; none of an empty one.

    Raises:
        VerificationError: `attestation_log_malformed`.
    """
    if not log:
        return ()
    found = tuple(event for _, event in _scan(log) if event is not None)
    if len(found) > BOOT_EVENTS_MAX:
        raise _broken(f"more than {BOOT_EVENTS_MAX} events")
    return found


def get_log_size(log: bytes) -> int:
    """Bytes of a boot log up to its last event: the rest of the table is empty.

    Raises:
        VerificationError: `attestation_log_malformed`.
    """
    return max(end for end, _ in _scan(log))


def _scan(log: bytes) -> Iterator[tuple[int, BootEvent | None]]:
    """Each event with where it ends; None for one that measures nothing."""
    try:
        at = _skip_header(log)
        yield at, None
        while at < len(log) and struct.unpack_from("<I", log, at)[0] != END_OF_LOG:
            at, event = _read_event(log, at)
            yield at, event
    except struct.error:
        raise _broken("it ends within an event") from None


def _skip_header(log: bytes) -> int:
    """The first event is in an older form and says how the others are written."""
    _, kind = struct.unpack_from("<II", log)
    (size,) = struct.unpack_from("<I", log, 28)
    if kind != EV_NO_ACTION or not log[32:].startswith(b"Spec ID Event03\x00"):
        raise _broken("it does not begin as a TCG log does")
    return 32 + int(size)


def _read_event(log: bytes, at: int) -> tuple[int, BootEvent | None]:
    index, kind, digests = struct.unpack_from("<III", log, at)
    algorithm = struct.unpack_from("<H", log, at + 12)[0]
    if digests != 1 or algorithm != SHA384:
        raise _broken(f"an event with {digests} digests of kind {algorithm:#x}, not one SHA-384")
    digest = log[at + 14 : at + 14 + DIGEST_BYTES]
    (size,) = struct.unpack_from("<I", log, at + 14 + DIGEST_BYTES)
    begin = at + 18 + DIGEST_BYTES
    text = log[begin : begin + size]
    if len(text) != size:
        raise _broken("it ends within an event")
    if kind == EV_NO_ACTION:
        return begin + size, None
    if index not in REGISTERS:
        raise _broken(f"an event for register {index}, known are 1 to 4")
    if kind in CONTENT_KINDS and hashlib.sha384(text).digest() != digest:
        raise VerificationError(
            "attestation_log_mismatch",
            f"the text of a {CONTENT_KINDS[kind]} event is not what was measured",
        )
    return begin + size, BootEvent(REGISTERS[index], kind, digest)


def _extend(register: bytes, digest: bytes) -> bytes:
    return hashlib.sha384(register + digest).digest()


def _broken(what: str) -> VerificationError:
    return VerificationError("attestation_log_malformed", f"the event log cannot be read: {what}")
