"""Proofs that a circuit's model gives these outputs for these inputs.

    proof = prove(circuit, inputs)                  the provider's side, 1 s
    inference = verify_proof(proof, inputs, circuit)     the other side, 20 ms; raises

Same shape as the other rungs: bytes of a stranger are decoded within limits, the caller says what
it expects, and the answer is what was verified or an error with its code.

A proof says that the weights of the circuit's key map these inputs to these outputs, in fixed point
(`Circuit.scale_bits`). It does not say who made it, when, or for which request: the same inputs
give a proof that anyone may show again, which harms nobody since the outputs are the same. Inputs
are public; zero knowledge hides nothing here, it only proves.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hanse.protocol.errors import RequestError
from hanse.protocol.wire.files import FileForm
from hanse.verification.zk import backend
from hanse.verification.zk.circuit import Circuit

PROOF_FILE_BYTES_MAX = 256 * 1024
"""The example's proof is a file of 7 kB."""

INPUT_MAX = 64.0
"""Largest absolute input: at 2**10 steps a number, sums of a layer stay below the circuit's range
of 2**28."""

FIELD = 0x30644E72E131A029B85045B68181585D2833E84879B9709143E1F593F0000001
"""Order of BN254's scalar field; negative numbers are counted down from it."""

VALUE_MAX = 1 << 40
"""Absolute value of any public number; beyond, it wrapped round."""

FORMAT = "hanse zk proof 1"


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A proof as it travels.

    Attributes:
        format: `FORMAT`.
        key_hash: of the verification key that it is for.
        inputs, outputs: fixed-point integers.
        proof: hexadecimal, with 0x.
    """

    format: str
    key_hash: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    proof: str


FORM = FileForm(FORMAT, Proof, PROOF_FILE_BYTES_MAX, "zk_proof_invalid", "the proof is refused")


@dataclass(frozen=True, slots=True)
class Inference:
    """What was proven: this model gives these outputs, of which `label` is the largest."""

    model_hash: str
    inputs: tuple[float, ...]
    outputs: tuple[float, ...]
    label: str


def to_fixed(values: Sequence[float], circuit: Circuit) -> tuple[int, ...]:
    """The inputs as the circuit counts them, rounded to the nearest step, halves to even.

    Raises:
        RequestError: `invalid_request`, if there are more or fewer than it takes, or one is too
            large.
    """
    if len(values) != circuit.inputs:
        raise RequestError(
            "invalid_request", f"{len(values)} inputs were given, the model takes {circuit.inputs}"
        )
    for value in values:
        if not math.isfinite(value) or abs(value) > INPUT_MAX:
            raise RequestError(
                "invalid_request", f"an input is {value!r}, at most {INPUT_MAX:g} is taken"
            )
    return tuple(round(value * (1 << circuit.scale_bits)) for value in values)


def prove(circuit: Circuit, inputs: Sequence[float]) -> Proof:
    """Run the model on these inputs and prove it.

    Raises:
        RequestError: `invalid_request`.
    """
    fixed = to_fixed(inputs, circuit)
    exact = [value / (1 << circuit.scale_bits) for value in fixed]
    with tempfile.TemporaryDirectory(prefix="zk-proof-") as draft:
        texts, proof = backend.make_proof(Path(circuit.folder), Path(draft), exact)
    values = [_from_field(text) for text in texts]
    return Proof(
        FORMAT,
        circuit.key_hash,
        tuple(values[: circuit.inputs]),
        tuple(values[circuit.inputs :]),
        "0x" + proof.hex(),
    )


def verify_proof(proof: Proof, expected: Sequence[float], circuit: Circuit) -> Inference:
    """Check a proof against the inputs that the caller asked about.

    1. It is for this circuit's key. 2. It is about these inputs, exactly. 3. It has one output a
    label, each within range. 4. It has the length that proofs of this circuit have. 5. It verifies.

    The caller still owes: a circuit that it trusts (`hanse.verification.zk.circuit`).

    Raises:
        VerificationError: `zk_proof_invalid`.
        RequestError: `invalid_request`, if `expected` is nothing that this model takes.
    """
    if proof.key_hash != circuit.key_hash:
        raise FORM.refuse(
            f"it is for the key {proof.key_hash}, this circuit's is {circuit.key_hash}"
        )
    fixed = to_fixed(expected, circuit)
    if proof.inputs != fixed:
        differing = [
            n for n, pair in enumerate(zip(proof.inputs, fixed, strict=False)) if pair[0] != pair[1]
        ]
        where = f"input {differing[0]}" if differing else "their number"
        raise FORM.refuse(f"it is about other inputs than those asked about: {where} differs")
    if len(proof.outputs) != circuit.outputs:
        raise FORM.refuse(f"it has {len(proof.outputs)} outputs, the model {circuit.outputs}")
    if any(abs(value) > VALUE_MAX for value in proof.outputs):
        raise FORM.refuse("an output is out of range")
    raw = get_proof_bytes(proof)
    if len(raw) != circuit.proof_bytes:
        raise FORM.refuse(f"it has {len(raw)} bytes, proofs of this circuit {circuit.proof_bytes}")
    values = [_to_field(value) for value in (*proof.inputs, *proof.outputs)]
    with tempfile.TemporaryDirectory(prefix="zk-proof-") as draft:
        backend.verify(Path(circuit.folder), Path(draft), values, raw)
    step = 1 << circuit.scale_bits
    return Inference(
        circuit.model_hash,
        tuple(value / step for value in proof.inputs),
        tuple(value / step for value in proof.outputs),
        circuit.labels[proof.outputs.index(max(proof.outputs))],
    )


def encode_proof(proof: Proof) -> bytes:
    """The proof's file."""
    return msgspec.json.encode(proof) + b"\n"


def decode_proof(raw: bytes) -> Proof:
    """A proof's file, of anybody.

    Raises:
        VerificationError: `zk_proof_invalid`, if it is none.
    """
    return FORM.decode(raw)


def get_proof_bytes(proof: Proof) -> bytes:
    """The proof itself.

    Raises:
        VerificationError: `zk_proof_invalid`, if it is not hexadecimal.
    """
    try:
        if not proof.proof.startswith("0x"):
            raise ValueError
        return bytes.fromhex(proof.proof[2:])
    except ValueError:
        raise FORM.refuse("its proof is not hexadecimal with 0x before it") from None


def _to_field(value: int) -> str:
    """As ezkl writes a field element: 32 bytes, least significant first, hexadecimal."""
    return (value % FIELD).to_bytes(32, "little").hex()


def _from_field(text: str) -> int:
    value = int.from_bytes(bytes.fromhex(text), "little")
    return value if value < FIELD // 2 else value - FIELD
