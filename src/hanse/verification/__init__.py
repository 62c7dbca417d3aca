"""Was it done as claimed: attestation of machines, audits of answers, evidence."""
