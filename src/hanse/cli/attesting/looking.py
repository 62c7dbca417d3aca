"""What the commands of `hanse attest` do."""

import json
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec

from hanse.cli.buying.attestation_policy import POLICY_FILE, read_attestation_policy
from hanse.cli.moments import format_time
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.signatures import parse_address, parse_hash32
from hanse.verification.attestation import (
    Attestation,
    Collateral,
    Evidence,
    Expected,
    NonceBook,
    VerifiedQuote,
    decode_evidence,
    make_policy,
    verify_attestation,
    verify_quote,
)
from hanse.verification.attestation.event_log import verify_event_log
from hanse.verification.attestation.evidence import (
    BOOT_LOG_BYTES_MAX,
    EVIDENCE_BYTES_MAX,
    QUOTE_BYTES_MAX,
    decode_base64,
)
from hanse.verification.attestation.quotes import import_qvl


def verify_file(session: Session, options: dict[str, Any]) -> None:
    """`hanse attest verify`.

    Raises:
        VerificationError: the code of what is wrong with it.
        RequestError: policy, nonce or file cannot be read.
    """
    evidence = decode_evidence(_read(options["file"]))
    policy = read_attestation_policy(options["policy_file"] or session.home / POLICY_FILE)
    nonce = parse_hash32(options["nonce"], "nonce")
    expected = Expected(
        parse_address(options["provider"] or evidence.provider, "provider"),
        parse_address(options["receipt_key"] or evidence.receipt_key, "receipt-key"),
        nonce,
    )
    now_s = _get_time(options["at"])
    nonces = NonceBook(lambda: now_s, secrets.token_bytes)
    nonces.adopt(nonce)
    attestation = verify_attestation(evidence, expected, policy, nonces, now_s)
    _warn_of_root(session, attestation.quote)
    if not options["provider"] or not options["receipt_key"]:
        session.output.note(
            "provider and receipt key are those that the file names: compare them with the offer"
        )
    session.output.show(
        _to_document(attestation), lambda: session.output.fields(_to_rows(attestation))
    )


def show_policy(session: Session, options: dict[str, Any]) -> None:
    """`hanse attest policy`.

    Raises:
        VerificationError: the quote does not lead to Intel, or its log does not replay.
        RequestError: a file cannot be read.
    """
    data, now_s = _read(options["file"]), _get_time(options["at"])
    evidence = decode_evidence(data) if data[:1] == b"{" else None
    raw = decode_base64(evidence.quote, QUOTE_BYTES_MAX, "quote") if evidence else data
    if options["collateral"] is not None:
        collateral = _read_collateral(options["collateral"])
    elif evidence is not None:
        collateral = evidence.collateral
    else:
        raise RequestError("usage", f"{options['file']} is a bare quote: name its --collateral")
    quote = verify_quote(raw, collateral, now_s)
    boot_log, events = _replay(evidence, quote)
    policy = make_policy(quote, options["name"], events, has_boot_log=bool(boot_log))
    document = msgspec.to_builtins(policy)
    session.output.note(
        f"the quote is genuine, its TCB is {quote.tcb_status}; whether what it measures is good "
        "you must know from elsewhere"
    )
    session.output.show(document, lambda: json.dumps(document, indent=2))


async def fetch_collateral(session: Session, file: Path, pccs: str, target: Path) -> None:
    """`hanse attest collateral`.

    Raises:
        TransientError: `provider_unreachable`: the service does not answer, or knows no such
            platform.
    """
    qvl, raw = import_qvl(), _read(file)
    url = pccs or str(qvl.INTEL_PCS_URL)
    if raw[:1] == b"{":
        raw = decode_base64(decode_evidence(raw).quote, QUOTE_BYTES_MAX, "quote")
    with session.output.wait(f"asking {url} ..."):
        try:
            found = await qvl.get_collateral(url, raw)
        except (ValueError, RuntimeError) as error:
            text = f"{url} gives no collateral: {' '.join(str(error).split())[:300]}"
            raise TransientError("provider_unreachable", text) from None
    document = json.loads(found.to_json())
    _write(target, json.dumps(document, indent=1) + "\n")
    info = json.loads(document["tcb_info"])
    shown = {"file": str(target), "fmspc": info["fmspc"], "next_update": info["nextUpdate"]}
    session.output.show(
        shown,
        lambda: session.output.fields(
            (("written", target), ("platform", info["fmspc"]), ("until", info["nextUpdate"]))
        ),
    )


def _replay(evidence: Evidence | None, quote: VerifiedQuote) -> tuple[bytes, tuple[Any, ...]]:
    """The logs of an attestation, held to its quote; none of a bare one."""
    if evidence is None:
        return b"", ()
    boot_log = decode_base64(evidence.boot_log, BOOT_LOG_BYTES_MAX, "boot log")
    if boot_log or evidence.events:
        verify_event_log(boot_log, evidence.events, quote)
    return boot_log, evidence.events


def _to_document(attestation: Attestation) -> dict[str, Any]:
    quote, measured = attestation.quote, attestation.quote.measurements
    return {
        "verified": True,
        "provider": attestation.expected.provider,
        "receipt_key": attestation.expected.receipt_key,
        "nonce": attestation.expected.nonce,
        "image": attestation.image,
        "valid_until": attestation.valid_until,
        "is_of_intel": quote.is_of_intel,
        "root": quote.root_id,
        "fmspc": quote.fmspc,
        "tcb_status": quote.tcb_status,
        "advisories": list(quote.advisories),
        "measurements": {
            "mr_td": measured.mr_td,
            **{f"rtmr{number}": value for number, value in enumerate(measured.rtmrs)},
        },
        "boot_events": len(attestation.log.boot_events) if attestation.log else 0,
        "events": [
            {"name": event.name, "payload": event.payload}
            for event in (attestation.log.events if attestation.log else ())
        ],
        "gpus": [{"name": gpu.name, "hardware": gpu.hardware} for gpu in attestation.gpus],
    }


def _to_rows(attestation: Attestation) -> tuple[tuple[str, str], ...]:
    quote, log = attestation.quote, attestation.log
    return (
        ("provider", attestation.expected.provider),
        ("receipt key", attestation.expected.receipt_key),
        ("image", attestation.image),
        ("TCB", f"{quote.tcb_status}, platform {quote.fmspc}"),
        ("MRTD", quote.measurements.mr_td),
        ("event log", f"{len(log.boot_events)} boot events replayed" if log else "none"),
        *(("event", f"{event.name} {event.payload}") for event in (log.events if log else ())),
        *(("GPU", f"{gpu.name} {gpu.hardware}") for gpu in attestation.gpus),
        ("counts until", format_time(attestation.valid_until)),
    )


def _warn_of_root(session: Session, quote: VerifiedQuote) -> None:
    if not quote.is_of_intel:
        session.output.note(
            f"NOT INTEL: the policy names a root of its own ({quote.root_id[:16]}...); this shows "
            "nothing about hardware"
        )


def _read_collateral(path: Path) -> Collateral:
    try:
        return msgspec.json.decode(_read(path), type=Collateral)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError("usage", f"{path} is no collateral: {error}"[:300]) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(EVIDENCE_BYTES_MAX + 1)
    except OSError as error:
        raise RequestError("usage", f"{path}: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise RequestError("usage", f"{path}: {error.strerror}") from None


def _get_time(at: int | None) -> int:
    return int(time.time()) if at is None else at
