"""A circuit: one classifier made ready to be proven, as a folder.

    circuit.json        what it is: hashes of the files below, shapes, labels
    model.onnx          the weights
    settings.json, srs.kzg, verification.key     what a verifier needs besides
    circuit.ezkl, proving.key                    what the prover needs besides

    circuit = set_up(folder, onnx, labels)       3 s for the example, all on this machine
    circuit = load_circuit(folder)               the files are held against their hashes

**What a circuit is trusted for.** Weights are constants of it, so its verification key stands for
exactly these weights; `verify_key` makes the key anew from model.onnx and compares. The structured
reference string (SRS) has a secret that its maker could keep to forge proofs: a proof is worth what
is thought of that maker. So who checks makes it, or takes one of a public ceremony (`srs`).

Source: ezkl 23.0.5; `docs/decisions/0035-zk.md`.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from hanse.protocol.errors import RequestError, VerificationError
from hanse.verification.zk import backend

MODEL_BYTES_MAX = 4 * 1024 * 1024
"""A million weights: far above what a proof of seconds can hold."""

LABELS_MAX = 64
INPUTS_MAX = 1_024
"""Each public value costs the verifier contract gas, and a field element in the call."""

FORMAT = "hanse zk circuit 1"

_FILES = {
    "model_hash": "model.onnx",
    "settings_hash": "settings.json",
    "srs_hash": "srs.kzg",
    "key_hash": "verification.key",
}

Say = Callable[[str], None]


class Circuit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What circuit.json says.

    Attributes:
        format: `FORMAT`.
        model_hash, settings_hash, srs_hash, key_hash: SHA-256 of the files.
        srs_origin: `local` if it was made here, `given` if it was brought.
        inputs, outputs: numbers that go in and come out.
        scale_bits: a number counts in steps of 2**-scale_bits.
        rows_log2: size of the circuit.
        proof_bytes: length of every proof.
        labels: names of the outputs.
        folder: where it lies; not part of the file.
    """

    format: str
    model_hash: str
    settings_hash: str
    srs_hash: str
    key_hash: str
    srs_origin: str
    inputs: int
    outputs: int
    scale_bits: int
    rows_log2: int
    proof_bytes: int
    labels: tuple[str, ...]
    folder: str = ""


def set_up(
    folder: Path,
    onnx: bytes,
    labels: Sequence[str],
    *,
    rows_log2: int = backend.ROWS_LOG2_MIN,
    srs: Path | None = None,
    say: Say = lambda text: None,
) -> Circuit:
    """Make a circuit of a classifier, in a folder that is not there yet.

    Ends with a proof and its verification, so that what does not work is known now. A failure
    leaves no folder behind.

    Args:
        folder: where to.
        onnx: the model, one float tensor in and one out.
        labels: names of the outputs.
        rows_log2: size; the default holds about 1,000 multiplications.
        srs: a reference string for at least this size, as ezkl writes it; None to make one.
        say: is told each step, for a progress bar.

    Raises:
        RequestError: `invalid_request`, `configuration_invalid`.
    """
    _check_arguments(folder, onnx, labels, rows_log2)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="circuit-draft-", dir=folder.parent) as name:
        draft = Path(name) / "circuit"
        draft.mkdir()
        say("reading the model")
        (draft / "model.onnx").write_bytes(onnx)
        settings = backend.make_settings(draft, rows_log2)
        inputs, outputs = _get_sizes(settings, labels)
        say("making a reference string" if srs is None else "copying the reference string")
        if srs is None:
            backend.make_srs(draft, rows_log2)
        else:
            shutil.copyfile(srs, draft / "srs.kzg")
        say("making the keys")
        backend.make_keys(draft)
        say("proving and verifying once")
        values, proof = backend.make_proof(draft, Path(name), [0.0] * inputs)
        backend.verify(draft, Path(name), values, proof)
        circuit = Circuit(
            format=FORMAT,
            **{field: _hash(draft / file) for field, file in _FILES.items()},
            srs_origin="local" if srs is None else "given",
            inputs=inputs,
            outputs=outputs,
            scale_bits=backend.SCALE_BITS,
            rows_log2=rows_log2,
            proof_bytes=len(proof),
            labels=tuple(labels),
            folder=str(folder),
        )
        document = msgspec.structs.asdict(circuit)
        del document["folder"]
        (draft / "circuit.json").write_text(json.dumps(document, indent=2) + "\n")
        draft.rename(folder)
    return circuit


def load_circuit(folder: Path) -> Circuit:
    """Read a circuit and hold its files against their hashes.

    Raises:
        RequestError: `configuration_invalid`, if a file is missing or is another.
    """
    path = folder / "circuit.json"
    try:
        document = json.loads(path.read_text())
        circuit = msgspec.convert({**document, "folder": str(folder)}, Circuit)
    except (OSError, ValueError, TypeError, msgspec.ValidationError) as error:
        raise _not_a_circuit(path, f"it cannot be read: {error}") from None
    if circuit.format != FORMAT:
        raise _not_a_circuit(path, f"its format is {circuit.format!r:.80}, known is {FORMAT!r}")
    if circuit.inputs < 1 or circuit.inputs > INPUTS_MAX or len(circuit.labels) != circuit.outputs:
        raise _not_a_circuit(path, f"{circuit.inputs} inputs, {len(circuit.labels)} labels")
    for field, name in _FILES.items():
        found, stated = _hash(folder / name), getattr(circuit, field)
        if found != stated:
            raise _not_a_circuit(folder / name, f"its hash is {found}, circuit.json says {stated}")
    return circuit


def verify_key(circuit: Circuit) -> None:
    """Make the verification key anew from model, settings and SRS, and compare: 1 s.

    What a verifier does once that was handed a circuit by somebody else. It owes besides to look
    at `model_hash` and at where the SRS comes from.

    Raises:
        VerificationError: `zk_circuit_invalid`, if the key is that of another model.
    """
    folder = Path(circuit.folder)
    with tempfile.TemporaryDirectory(prefix="circuit-draft-") as name:
        draft = Path(name)
        for file in ("model.onnx", "srs.kzg"):
            shutil.copyfile(folder / file, draft / file)
        backend.make_settings(draft, circuit.rows_log2)
        backend.make_keys(draft)
        made, stated = _hash(draft / "verification.key"), circuit.key_hash
        is_same = made == stated and _hash(draft / "settings.json") == circuit.settings_hash
    if not is_same:
        raise VerificationError(
            "zk_circuit_invalid",
            f"model.onnx gives the verification key {made}, circuit.json says {stated}: the key "
            "proves another model",
        )


def _check_arguments(folder: Path, onnx: bytes, labels: Sequence[str], rows_log2: int) -> None:
    if folder.exists():
        raise RequestError(
            "invalid_request", f"{folder} is there already: name another folder or remove it"
        )
    if len(onnx) > MODEL_BYTES_MAX:
        raise RequestError(
            "invalid_request", f"the model has {len(onnx)} bytes, at most {MODEL_BYTES_MAX}"
        )
    if not 1 <= len(labels) <= LABELS_MAX:
        raise RequestError("invalid_request", f"{len(labels)} labels, 1 to {LABELS_MAX} are taken")
    least, most = backend.ROWS_LOG2_MIN, backend.ROWS_LOG2_MAX
    if not least <= rows_log2 <= most:
        raise RequestError("invalid_request", f"rows_log2 is {rows_log2}, not {least} to {most}")


def _get_sizes(settings: dict[str, object], labels: Sequence[str]) -> tuple[int, int]:
    shapes = settings["model_instance_shapes"]
    assert isinstance(shapes, list)  # ezkl wrote it just now
    sizes = [shape[0] * shape[1] if len(shape) == 2 else 0 for shape in shapes]
    if len(sizes) != 2 or not 1 <= sizes[0] <= INPUTS_MAX or sizes[1] != len(labels):
        raise RequestError(
            "invalid_request",
            f"the model's public tensors are {shapes}; needed is one row of inputs, at most "
            f"{INPUTS_MAX}, and one of {len(labels)} outputs, as many as labels",
        )
    return sizes[0], sizes[1]


def _hash(path: Path) -> str:
    try:
        return "0x" + hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _not_a_circuit(path, str(error)) from None


def _not_a_circuit(path: Path, reason: str) -> RequestError:
    return RequestError(
        "configuration_invalid",
        f"{path} belongs to no circuit: {reason}; make one with `hanse zk setup`",
    )
