"""What dcap-qvl's refusals mean, as codes of ours.

dcap-qvl raises one kind of error with a text. The texts below are those of the version that is
pinned; the first row whose words all occur counts. A text that no row knows is a refusal all the
same, as `attestation_malformed`: nothing here can turn a refusal into a success.

Source: dcap-qvl 0.7.0, `src/verify.rs` and `src/utils.rs`, each row tried by a test.
"""

from hanse.protocol.errors import VerificationError

_ROWS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("CertRevoked",), "attestation_certificate_revoked"),
    (("CrlExpired",), "attestation_collateral_expired"),
    (("CertExpired",), "attestation_collateral_expired"),
    (("CertNotValidYet",), "attestation_collateral_expired"),
    (("TCBInfo expired",), "attestation_collateral_expired"),
    (("TCBInfo issue date is in the future",), "attestation_collateral_expired"),
    (("QE Identity expired",), "attestation_collateral_expired"),
    (("QE Identity issue date is in the future",), "attestation_collateral_expired"),
    (("Failed to parse root CA CRL",), "attestation_crl_invalid"),
    (("Failed to parse PCK CRL",), "attestation_crl_invalid"),
    (("UnknownRevocationStatus",), "attestation_crl_invalid"),
    (("InvalidCrlSignature",), "attestation_crl_invalid"),
    (("Failed to decode quote",), "attestation_malformed"),
    (("Signature is invalid for tcb_info",), "attestation_tcb_info_invalid"),
    (("Failed to decode TcbInfo",), "attestation_tcb_info_invalid"),
    (("Fmspc mismatch",), "attestation_tcb_info_invalid"),
    (("non-TDX TCB info",), "attestation_tcb_info_invalid"),
    (("Signature is invalid for qe_identity",), "attestation_qe_identity_invalid"),
    (("Failed to decode QeIdentity",), "attestation_qe_identity_invalid"),
    (("Unsupported QE Identity id/version",), "attestation_qe_identity_invalid"),
    (("Invalid key length",), "attestation_malformed"),
    (("Certificate chain is too short",), "attestation_chain_invalid"),
    (("Too many intermediate certificates",), "attestation_chain_invalid"),
    (("Failed to verify certificate chain",), "attestation_chain_invalid"),
    (("leaf certificate",), "attestation_chain_invalid"),
    (("PCK certificate",), "attestation_chain_invalid"),
    (("Failed to parse certs",), "attestation_chain_invalid"),
    (("Unsupported DCAP",), "attestation_unsupported"),
    (("Unknown QE vendor ID",), "attestation_unsupported"),
    (("must have version",), "attestation_unsupported"),
    (("Unsupported TEE type",), "attestation_unsupported"),
    (("Signature is invalid for qe_report",), "attestation_qe_invalid"),
    (("QE report",), "attestation_qe_invalid"),
    (("Invalid QE auth data length",), "attestation_qe_invalid"),
    (("mismatch", "QE"), "attestation_qe_invalid"),
    (("QE ISVSVN",), "attestation_qe_invalid"),
    (("ISV enclave report signature",), "attestation_signature_invalid"),
    (("No matching TCB level",), "attestation_tcb_unknown"),
    (("TDX module",), "attestation_tcb_unknown"),
    (("TCB status is invalid: Revoked",), "attestation_tcb_revoked"),
    (("Debug mode is enabled",), "attestation_debug"),
    (("TD profiling is enabled",), "attestation_attributes_refused"),
    (("Reserved bits in TD attributes",), "attestation_attributes_refused"),
    (("TD migration is enabled",), "attestation_attributes_refused"),
    (("SERVTD_EXT is enabled",), "attestation_attributes_refused"),
    (("SEPT_VE_DISABLE",), "attestation_attributes_refused"),
    (("MR service TD",), "attestation_attributes_refused"),
)


def explain_refusal(text: str) -> VerificationError:
    """Our error for a refusal of dcap-qvl."""
    detail = " ".join(text.split("@")[0].split()).removeprefix("Verification failed: ")[:300]
    for words, code in _ROWS:
        if all(word in text for word in words):
            return VerificationError(code, f"the quote is refused: {detail}")
    return VerificationError("attestation_malformed", f"the quote is refused: {detail}")
