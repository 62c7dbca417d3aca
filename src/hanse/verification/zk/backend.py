"""ezkl, called with files of one folder, and its refusals as errors of ours.

ezkl (halo2 with KZG commitments over BN254) takes and leaves files and raises RuntimeError for
everything. Nothing here reads what a stranger wrote: `hanse.verification.zk.proofs` does, and hands
over only what it wrote itself.

Three traits of version 23.0.5, each held by a test: `verify` reads the list of bytes and not the
hexadecimal text beside it; it takes bytes after the end of a proof; and the settings that it makes
differ from run to run in a time and in orders, that of range checks even changing the verification
key, so that they are put in order here.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hanse.protocol.errors import RequestError, VerificationError

SCALE_BITS = 10
"""Numbers are multiples of 1/1024: by then the example's decisions are those of its floats."""

DECOMPOSITION = (128, 4)
"""Base and digits of range checks: values up to 2**28. ezkl's own base of 16,384 needs 2**17 rows
for its table instead of 2**12, which made proofs take 26 s of processor time instead of 1.2."""

ROWS_LOG2_MIN, ROWS_LOG2_MAX = 12, 17
"""From the example's size to what 2 cores prove in 14 s; larger models belong on another rung."""


def make_settings(folder: Path, rows_log2: int) -> dict[str, Any]:
    """Write settings.json for model.onnx: inputs and outputs public, weights in the key."""
    ezkl = load()
    arguments = ezkl.PyRunArgs()
    arguments.input_visibility = arguments.output_visibility = "public"
    arguments.param_visibility = "fixed"
    arguments.input_scale = arguments.param_scale = SCALE_BITS
    arguments.decomp_base, arguments.decomp_legs = DECOMPOSITION
    arguments.logrows = rows_log2
    arguments.check_mode = "safe"
    path = folder / "settings.json"
    with _explained("read the model"):
        ezkl.gen_settings(str(folder / "model.onnx"), str(path), arguments)
    settings: dict[str, Any] = json.loads(path.read_text())
    settings["required_range_checks"].sort()
    settings["timestamp"] = 0
    path.write_text(json.dumps(settings, sort_keys=True, separators=(",", ":")))
    return settings


def make_srs(folder: Path, rows_log2: int) -> None:
    """Write srs.kzg of one's own. Whoever does that could keep its secret and forge proofs."""
    with _explained("make a structured reference string"):
        load().gen_srs(str(folder / "srs.kzg"), rows_log2)


def make_keys(folder: Path) -> None:
    """Compile the circuit, and write proving.key and verification.key."""
    ezkl = load()
    with _explained("make the keys"):
        ezkl.compile_circuit(*_paths(folder, "model.onnx", "circuit.ezkl", "settings.json"))
        circuit, verification, proving, srs = _paths(
            folder, "circuit.ezkl", "verification.key", "proving.key", "srs.kzg"
        )
        ezkl.setup(model=circuit, vk_path=verification, pk_path=proving, srs_path=srs)


def make_proof(folder: Path, draft: Path, inputs: list[float]) -> tuple[list[str], bytes]:
    """Run and prove; returns the public values as ezkl writes them, and the proof."""
    ezkl = load()
    (draft / "input.json").write_text(json.dumps({"input_data": [inputs]}))
    data, witness, proof = _paths(draft, "input.json", "witness.json", "proof.json")
    circuit, proving, srs = _paths(folder, "circuit.ezkl", "proving.key", "srs.kzg")
    with _explained("prove"):
        ezkl.gen_witness(data=data, model=circuit, output=witness)
        ezkl.prove(witness=witness, model=circuit, pk_path=proving, proof_path=proof, srs_path=srs)
    document = json.loads(Path(proof).read_text())
    values = [text for column in document["instances"] for text in column]
    return values, bytes(document["proof"])


def verify(folder: Path, draft: Path, values: list[str], proof: bytes) -> None:
    """Check a proof of these public values under verification.key.

    Raises:
        VerificationError: `zk_proof_invalid`.
    """
    ezkl = load()
    path = draft / "proof.json"
    document = {
        "protocol": None,
        "instances": [values],
        "proof": list(proof),
        "hex_proof": "0x" + proof.hex(),
        "split": None,
        "pretty_public_inputs": None,
        "timestamp": 0,
        "version": ezkl.__version__,
    }
    path.write_text(json.dumps(document))
    settings, key, srs = _paths(folder, "settings.json", "verification.key", "srs.kzg")
    try:
        accepted = ezkl.verify(
            proof_path=str(path), settings_path=settings, vk_path=key, srs_path=srs
        )
    except RuntimeError as error:
        raise VerificationError(
            "zk_proof_invalid", f"the proof does not verify under this circuit's key: {error}"
        ) from None
    if accepted is not True:
        raise VerificationError("zk_proof_invalid", "the proof does not verify, without a reason")


def load() -> Any:
    """The package ezkl.

    Raises:
        RequestError: `configuration_invalid`, if it is not installed.
    """
    try:
        import ezkl
    except ImportError:
        raise RequestError(
            "configuration_invalid", "the zk tier needs ezkl: pip install 'hanse[zk]'"
        ) from None
    return ezkl


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RequestError("invalid_request", f"ezkl could not {doing}: {error}"[:500]) from None


def _paths(folder: Path, *names: str) -> tuple[str, ...]:
    return tuple(str(folder / name) for name in names)
