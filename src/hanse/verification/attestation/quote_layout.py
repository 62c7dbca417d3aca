"""The bytes of a TDX quote, as far as they are read here.

    0    header, 48 bytes: version u16, key type u16, TEE type u32, ..., QE vendor id 16 bytes
    48   version 4: the body. Version 5: body type u16, body size u32, the body
    ..   u32: how many bytes of signature data follow
    ..   signature 64, attestation key 64, certification data: type u16 (6), size u32, ...

dcap-qvl reads what lies inside. What it does not look at is held here: that the lengths agree, that
the certification data is of the one kind that a quoting enclave writes, and that nothing but
padding follows. Integers are little-endian.

Source: Intel TDX DCAP Quoting Library API, "Quote format", versions 4 and 5.
"""

import struct
from dataclasses import dataclass

from hanse.protocol.errors import VerificationError
from hanse.verification.attestation.evidence import QUOTE_BYTES_MAX, malformed

TDX = 0x81
"""TEE type of a trust domain; 0 would be an SGX enclave."""

HEADER_BYTES = 48
BODY_BYTES = {4: 584, 5: 648}
"""Of the TD report: TDX 1.0 in a version 4 quote, TDX 1.5 in version 5."""

BODY_TYPES = {2: 584, 3: 648}
"""Version 5 names its body: TDX 1.0 or 1.5. An SGX body (1) or an extended one (4) is refused."""

QE_REPORT_CERTIFICATION = 6
_SIGNED_BYTES = 128
_SIZES = struct.Struct("<HI")


@dataclass(frozen=True)
class Measurements:
    """What a quote says is running: 48-byte hashes, in lower-case hexadecimal.

    `mr_td` is the initial memory, `rtmrs` what was measured later: 0 firmware's configuration, 1
    boot loader and kernel, 2 kernel's command line and initial disk, 3 the applications.
    """

    mr_td: str
    rtmrs: tuple[str, str, str, str]
    mr_seam: str
    mr_config_id: str
    mr_owner: str
    mr_owner_config: str


@dataclass(frozen=True)
class QuoteBody:
    """The parts of the signed bytes that are judged."""

    version: int
    attributes: str
    xfam: str
    measurements: Measurements
    report_data: bytes


def read_quote(quote: bytes) -> QuoteBody:
    """Read the signed part of a quote, which nothing here has verified.

    Raises:
        VerificationError: `attestation_malformed`; `attestation_unsupported` for another kind.
    """
    if not HEADER_BYTES < len(quote) <= QUOTE_BYTES_MAX:
        raise malformed(f"a quote of {len(quote)} bytes, {QUOTE_BYTES_MAX} are read")
    version, _, tee_type = struct.unpack_from("<HHI", quote)  # dcap-qvl judges the key type
    if tee_type != TDX:
        raise _unsupported(f"TEE type {tee_type:#x}, TDX is {TDX:#x}")
    if version not in BODY_BYTES:
        raise _unsupported(f"version {version}, known are 4 and 5")
    begin, size = HEADER_BYTES, BODY_BYTES[version]
    try:
        if version == 5:
            body_type, size = _SIZES.unpack_from(quote, begin)
            begin += _SIZES.size
            if BODY_TYPES.get(body_type) != size:
                raise _unsupported(f"a body of type {body_type} and {size} bytes")
        _check_lengths(quote, begin + size)
    except struct.error:
        raise malformed(f"the quote ends after {len(quote)} bytes") from None
    return _read_body(version, quote[begin : begin + size])


def _check_lengths(quote: bytes, begin: int) -> None:
    (size,) = struct.unpack_from("<I", quote, begin)
    end = begin + 4 + size
    kind, inner = _SIZES.unpack_from(quote, begin + 4 + _SIGNED_BYTES)
    if end > len(quote) or _SIGNED_BYTES + _SIZES.size + inner != size:
        raise malformed(f"the quote's lengths disagree: {size} and {inner} of {len(quote)} bytes")
    if kind != QE_REPORT_CERTIFICATION:
        raise _unsupported(f"certification data of type {kind}, known is {QE_REPORT_CERTIFICATION}")
    if quote[end:].strip(b"\x00"):
        raise malformed(f"{len(quote) - end} bytes follow the quote that are no padding")


def _read_body(version: int, body: bytes) -> QuoteBody:
    def take(at: int, size: int = 48) -> str:
        return body[at : at + size].hex()

    return QuoteBody(
        version=version,
        attributes=take(120, 8),
        xfam=take(128, 8),
        measurements=Measurements(
            mr_seam=take(16),
            mr_td=take(136),
            mr_config_id=take(184),
            mr_owner=take(232),
            mr_owner_config=take(280),
            rtmrs=(take(328), take(376), take(424), take(472)),
        ),
        report_data=body[520:584],
    )


def _unsupported(what: str) -> VerificationError:
    return VerificationError(
        "attestation_unsupported", f"the quote cannot be verified here: {what}"
    )
