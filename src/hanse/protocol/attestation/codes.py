"""The codes of everything that can be wrong with an attestation, each with its meaning.

They are rows of the one table (`hanse.protocol.errors`), all of the kind that says: discard what
came and go elsewhere. This module imports nothing, because that table is made from it.
"""

ATTESTATION_CODES = {
    # what came
    "attestation_missing": "The broker gives no attestation, or none that verifies yet.",
    "attestation_malformed": "An attestation, or a part of it, cannot be read or is too large.",
    "attestation_unsupported": "The quote is of a kind that is not verified here.",
    # nonce and keys
    "attestation_nonce_unknown": "The nonce was never issued by this verifier.",
    "attestation_nonce_expired": "The nonce was issued too long ago.",
    "attestation_nonce_used": "The nonce was used before; each is good for one attestation.",
    "attestation_nonce_mismatch": "The attestation names another nonce than the issued one.",
    "attestation_provider_mismatch": "The attestation names another provider than the offer's.",
    "attestation_key_mismatch": "The attestation names another receipt key than the registered.",
    "attestation_unbound": "The quote's report data does not bind key, provider and nonce.",
    # the quote's signatures and what they rest on
    "attestation_signature_invalid": "The quote's body is not what its key signed.",
    "attestation_qe_invalid": "The quoting enclave's report is forged, or not of Intel's enclave.",
    "attestation_chain_invalid": "A certificate chain does not lead to the pinned root.",
    "attestation_certificate_role": "A certificate was issued for another purpose.",
    "attestation_certificate_revoked": "A certificate of the attestation is revoked.",
    "attestation_crl_invalid": "A revocation list is missing, forged or unreadable.",
    "attestation_tcb_info_invalid": "The TCB info is forged, or of another platform.",
    "attestation_qe_identity_invalid": "The quoting enclave's identity document is forged.",
    "attestation_collateral_expired": "A part of the collateral is not valid at this time.",
    # what the policy judges
    "attestation_collateral_old": "The collateral is older than the policy allows.",
    "attestation_tcb_unknown": "No TCB level of the collateral fits the platform.",
    "attestation_tcb_revoked": "The platform's TCB level is revoked.",
    "attestation_tcb_refused": "The policy does not allow the platform's TCB status.",
    "attestation_tcb_evaluation": "The TCB was evaluated by older data than the policy asks.",
    "attestation_advisory_refused": "A security advisory applies that the policy does not accept.",
    "attestation_debug": "The machine can be debugged from outside, so nothing in it is private.",
    "attestation_attributes_refused": "The machine has attributes that are not allowed.",
    "attestation_measurement_refused": "A measurement is none of those that the policy allows.",
    # the event log
    "attestation_log_missing": "The policy asks for an event log, and none came.",
    "attestation_log_malformed": "The event log cannot be read.",
    "attestation_log_mismatch": "The event log does not replay to the quote's registers.",
    "attestation_event_refused": "An application event is missing, repeated or not allowed.",
    # the GPU
    "attestation_gpu_missing": "The policy asks for a GPU's evidence, and none came.",
    "attestation_gpu_unverifiable": "Evidence of a GPU came that cannot be verified here.",
    "attestation_gpu_invalid": "The GPU's evidence is forged or malformed.",
    "attestation_gpu_expired": "The GPU's evidence is not valid at this time.",
    "attestation_gpu_unbound": "The GPU's evidence names another nonce.",
    "attestation_gpu_refused": "The GPU's evidence says that a check of it failed.",
}
"""Code -> what it means. Each is a `VerificationError`: HTTP 502, exit code 8."""
