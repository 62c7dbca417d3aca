"""What is checked of the collateral beyond dcap-qvl.

dcap-qvl 0.7.0 verifies every chain, signature, revocation list and date. Three things it does not
look at, and a fourth it leaves to its caller:

- **for what a certificate was issued**: any certificate under Intel's root could sign TCB info,
  that of a single machine too. Intel's own library compares subjects; so do we.
- **the PCE id** of the TCB info, which names the platform together with the FMSPC.
- **the chain that comes with the PCK revocation list**: dcap-qvl ignores it. Here it must lead to
  the root and have issued the list, else it is refused like everything that is not what it says.
- **how old it is**: valid for thirty days, so a host can show the older of two.

Source: for the subjects, Intel's DCAP quote verification library, `TcbSigningChain`.
"""

import binascii
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from hanse.protocol.errors import VerificationError
from hanse.verification.attestation.evidence import COLLATERAL_BYTES_MAX, Collateral, malformed

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

TCB_SIGNING = "Intel SGX TCB Signing"
PCK = "Intel SGX PCK Certificate"
PCK_ISSUERS = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")


class _TcbInfo(msgspec.Struct, rename="camel"):
    issue_date: datetime
    pce_id: str


class _QeIdentity(msgspec.Struct, rename="camel"):
    issue_date: datetime


def check_size(collateral: Collateral) -> str:
    """The collateral as dcap-qvl reads it.

    Raises:
        VerificationError: `attestation_malformed` if it is too large.
    """
    text = collateral.to_json()
    if len(text) > COLLATERAL_BYTES_MAX:
        raise malformed(f"collateral of {len(text)} bytes, {COLLATERAL_BYTES_MAX} are read")
    return text


def verify_roles(collateral: Collateral, pck_chain: str) -> None:
    """Hold every certificate to what it was issued for.

    Args:
        collateral: verified by dcap-qvl already.
        pck_chain: the platform's certificates as PEM, its own first.

    Raises:
        VerificationError: `attestation_certificate_role`, `attestation_chain_invalid`.
    """
    for chain in (collateral.tcb_info_issuer_chain, collateral.qe_identity_issuer_chain):
        leaf = read_chain(chain)[0]
        _expect(_get_name(leaf), (TCB_SIGNING,), "what signs TCB info and QE identity")
    platform = read_chain(pck_chain)[0]
    _expect(_get_name(platform), (PCK,), "the platform's certificate")
    _expect(_get_name(platform, issuer=True), PCK_ISSUERS, "the issuer of the platform's")


def verify_pck_crl_chain(collateral: Collateral, root_der: bytes) -> None:
    """Hold the chain beside the PCK revocation list to the list and to the root.

    Raises:
        VerificationError: `attestation_crl_invalid`, `attestation_chain_invalid`.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    issuer, *above = read_chain(collateral.pck_crl_issuer_chain)
    root = x509.load_der_x509_certificate(root_der)
    if above and above[-1] != root:
        raise VerificationError(
            "attestation_chain_invalid", "the PCK revocation list's chain ends at another root"
        )
    try:
        issuer.verify_directly_issued_by(root)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        raise VerificationError(
            "attestation_chain_invalid", "the PCK revocation list's issuer is not the root's"
        ) from None
    crl = x509.load_der_x509_crl(bytes.fromhex(collateral.pck_crl))
    if not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # EC, by the chain
        raise VerificationError(
            "attestation_crl_invalid", "the PCK revocation list is not of the issuer beside it"
        )


def verify_pce_id(collateral: Collateral, pce_id: bytes) -> None:
    """Hold the TCB info to the platform's PCE id.

    Raises:
        VerificationError: `attestation_tcb_info_invalid`.
    """
    named = _read_tcb_info(collateral).pce_id.lower()
    if named != pce_id.hex():
        raise VerificationError(
            "attestation_tcb_info_invalid",
            f"the TCB info is for PCE {named}, the platform has {pce_id.hex()}",
        )


def get_issued_at(collateral: Collateral) -> int:
    """When the oldest part of the collateral that is renewed each month was made, unix seconds.

    The root's own revocation list is left out: Intel makes it once a year.
    """
    from cryptography import x509

    try:
        identity = msgspec.json.decode(collateral.qe_identity, type=_QeIdentity)
        crl = x509.load_der_x509_crl(bytes.fromhex(collateral.pck_crl))
    except (msgspec.DecodeError, ValueError) as error:
        raise malformed(f"collateral: {error}"[:200]) from None
    dates = (_read_tcb_info(collateral).issue_date, identity.issue_date, crl.last_update_utc)
    return int(min(date.timestamp() for date in dates))


def read_chain(pem: str) -> "list[Certificate]":
    """The certificates of a PEM text, at least one.

    Raises:
        VerificationError: `attestation_chain_invalid`.
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, binascii.Error) as error:
        raise VerificationError(
            "attestation_chain_invalid", f"a certificate chain cannot be read: {error}"[:200]
        ) from None


def _read_tcb_info(collateral: Collateral) -> _TcbInfo:
    try:
        return msgspec.json.decode(collateral.tcb_info, type=_TcbInfo)
    except msgspec.DecodeError as error:
        raise VerificationError("attestation_tcb_info_invalid", f"TCB info: {error}") from None


def _expect(name: str, allowed: tuple[str, ...], what: str) -> None:
    if name not in allowed:
        raise VerificationError(
            "attestation_certificate_role",
            f"{what} is a certificate of {name!r:.80}, expected was {' or '.join(allowed)}",
        )


def _get_name(certificate: "Certificate", *, issuer: bool = False) -> str:
    from cryptography.x509.oid import NameOID

    name = certificate.issuer if issuer else certificate.subject
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
