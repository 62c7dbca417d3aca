"""The broker's side of attestation: a quote for the verifier's nonce, with all that it needs.

sources      where quotes and GPUs' evidence come from: the kernel, or a command
service      what `GET /hanse/v1/attestation/<nonce>` answers
"""

from hanse.provider.attesting.service import Attesting, open_attesting
from hanse.provider.attesting.sources import AttestingSettings, read_attesting_settings

__all__ = ["Attesting", "AttestingSettings", "open_attesting", "read_attesting_settings"]
