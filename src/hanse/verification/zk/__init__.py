"""Zero knowledge, for models of some thousand weights: the last rung of the ladder.

    onnx_file   writes a small classifier as ONNX
    npc         the example: which of five actions does this game character take?
    backend     ezkl, and its refusals as errors of ours
    circuit     set-up: a folder with keys and the files that stand for one model
    proofs      `prove`, and `verify_proof`, which raises
    contract    the verifier as a contract, and the call to it

Needs the extra `zk` (ezkl, numpy), imported when it is used. What it costs beside the other rungs:
`docs/verification/ladder.md`.
"""

from hanse.verification.zk.circuit import Circuit, load_circuit, set_up, verify_key
from hanse.verification.zk.contract import (
    VerifierContract,
    compile_source,
    encode_call,
    write_source,
)
from hanse.verification.zk.proofs import (
    Inference,
    Proof,
    decode_proof,
    encode_proof,
    prove,
    verify_proof,
)

__all__ = [
    "Circuit",
    "Inference",
    "Proof",
    "VerifierContract",
    "compile_source",
    "decode_proof",
    "encode_call",
    "encode_proof",
    "load_circuit",
    "prove",
    "set_up",
    "verify_key",
    "verify_proof",
    "write_source",
]
