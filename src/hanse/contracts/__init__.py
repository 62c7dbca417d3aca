"""The Vyper contracts and a thin Python face of their ABI.

Escrow, Registry, Records, Disputes and TestAsset.

The sources are beside this file; what they compile to is in `artifacts/` and committed. See
`hanse.contracts.artifacts` for calls and events, `hanse.contracts.claims` for settlement
batches, `hanse.contracts.compile` to rewrite the artefacts.
"""

from hanse.contracts.artifacts import Artifact, EventAbi, FunctionAbi, load_artifact
from hanse.contracts.claims import (
    Claim,
    ClaimResult,
    decode_results,
    encode_settle,
    get_sub_account_key,
)

__all__ = [
    "Artifact",
    "FunctionAbi",
    "EventAbi",
    "load_artifact",
    "Claim",
    "ClaimResult",
    "encode_settle",
    "decode_results",
    "get_sub_account_key",
]
