"""What a broker hands out for a nonce: quote, collateral, event log, and a GPU's evidence.

    evidence = decode_evidence(body)         from a stranger: bounded, and nothing of it believed
    encode_evidence(evidence)                JSON, for the wire and for files

In the file `quote`, `boot_log` and `gpu` are base64; `collateral` is the JSON that dcap-qvl and
Intel's tools write. What the machine claims of itself (`nonce`, `provider`, `receipt_key`) is there
to say early and clearly what is wrong; the proof is the quote's report data.
"""

import base64
import binascii

import msgspec

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import parse_address, parse_hash32

QUOTE_BYTES_MAX = 32 * 1024
"""A TDX quote has about 5 kB, with its certificates; some sources pad it to 8."""

COLLATERAL_BYTES_MAX = 256 * 1024
"""Two documents, two revocation lists and three chains: 16 to 19 kB."""

BOOT_LOG_BYTES_MAX = 1024 * 1024
"""A CCEL table is 64 to 256 kB, most of it empty."""

EVENTS_MAX = 1_024
"""Application events; a machine that measures what it runs has a handful."""

EVENT_BYTES_MAX = 4_096
"""Of one event's payload: a hash, a configuration, never a file."""

GPU_BYTES_MAX = 512 * 1024
"""Tokens of eight GPUs and a switch, 20 kB each, with room."""

EVIDENCE_BYTES_MAX = 4 * 1024 * 1024
"""All of the above in JSON and base64."""


class Collateral(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What Intel says of the platform: signed documents, revocation lists and their issuers.

    Hexadecimal where it is bytes, as dcap-qvl writes it.
    """

    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str
    pck_certificate_chain: str | None = None

    def to_json(self) -> str:
        """As dcap-qvl reads it."""
        document = msgspec.to_builtins(self)
        if self.pck_certificate_chain is None:
            del document["pck_certificate_chain"]
        return msgspec.json.encode(document).decode()


class ApplicationEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that the software measured into RTMR3: a name, and bytes in hexadecimal."""

    name: str
    payload: str


class GpuEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Evidence of GPUs.

    Attributes:
        kind: `nras`, a token of NVIDIA's attestation service; any other is refused.
        evidence: its bytes as they came, in base64.
    """

    kind: str
    evidence: str


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attestation, unverified; see the module."""

    nonce: str
    provider: str
    receipt_key: str
    quote: str
    collateral: Collateral
    boot_log: str = ""
    events: tuple[ApplicationEvent, ...] = ()
    gpu: GpuEvidence | None = None
    version: int = 1


def decode_evidence(body: bytes) -> Evidence:
    """Read an attestation that somebody sent.

    Raises:
        VerificationError: `attestation_malformed`.
    """
    if len(body) > EVIDENCE_BYTES_MAX:
        raise malformed(f"{len(body)} bytes, at most {EVIDENCE_BYTES_MAX} are read")
    if is_nested_too_deep(body):
        raise malformed("it is nested too deep")
    try:
        evidence = msgspec.json.decode(body, type=Evidence)
        parse_hash32(evidence.nonce, "nonce")
        parse_address(evidence.provider, "provider")
        parse_address(evidence.receipt_key, "receipt_key")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(f"{error}"[:200]) from None
    except RequestError as error:
        raise malformed(error.message) from None
    if evidence.version != 1:
        raise malformed(f"it has version {evidence.version}, only 1 is known")
    if len(evidence.events) > EVENTS_MAX:
        raise malformed(f"{len(evidence.events)} events, at most {EVENTS_MAX} are read")
    return evidence


def encode_evidence(evidence: Evidence) -> bytes:
    """JSON of an attestation."""
    return msgspec.json.encode(evidence)


def decode_base64(text: str, bytes_max: int, what: str) -> bytes:
    """Bytes of a field.

    Raises:
        VerificationError: `attestation_malformed`.
    """
    if len(text) > bytes_max * 4 // 3 + 4:
        raise malformed(f"{what} has more than {bytes_max} bytes")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise malformed(f"{what} is not base64") from None


def malformed(what: str) -> VerificationError:
    """The error for what cannot be read."""
    return VerificationError("attestation_malformed", f"the attestation cannot be read: {what}")
