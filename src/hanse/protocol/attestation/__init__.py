"""What both sides of an attestation agree on: the codes of its failures, and what a quote binds.

See `hanse.protocol.attestation.codes`, `hanse.protocol.attestation.binding`.
"""
