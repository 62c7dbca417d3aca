"""What the zk tier costs: set-up, proof, check, contract. Prints JSON lines, a table on stderr.

    make -s bench-zk            PROOFS=5

The example ("which of five actions") is set up with a reference string of its own, proven for
`PROOFS` situations, checked off chain, and by the contract on an in-process EVM (pyrevm, Prague).
Seconds are this process's processor time (rayon's threads included); gas is a transaction's, with
its 21,000 and its calldata. `inference_us` is the same answer by numpy without a proof.

Source: `docs/decisions/0035-zk.md`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hanse.cli.proving.solc import get_compiler
from hanse.verification.zk import (
    compile_source,
    encode_call,
    encode_proof,
    prove,
    set_up,
    verify_key,
    verify_proof,
    write_source,
)
from hanse.verification.zk.npc import LABELS, draw_situations, train_npc
from hanse.verification.zk.onnx_file import Layers, encode_onnx

CALLER = "0x" + "11" * 20


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds of processor time that it took."""
    begun = time.process_time()
    return work(), time.process_time() - begun


def measure_inference_us(layers: Layers, inputs: list[float]) -> float:
    """One answer by numpy, the best of many."""
    import numpy as np

    w1, b1, w2, b2 = (np.array(w) for w in (layers.w1, layers.b1, layers.w2, layers.b2))
    row = np.array(inputs)
    times = []
    for _ in range(2_000):
        begun = time.perf_counter_ns()
        int((np.maximum(row @ w1 + b1, 0) @ w2 + b2).argmax())
        times.append(time.perf_counter_ns() - begun)
    return min(times) / 1_000


def ask_evm(creation_code: bytes, calldata: bytes) -> tuple[int, int]:
    """Gas of the deployment and of one checked proof, as transactions of their own."""
    import pyrevm

    evm = pyrevm.EVM(spec_id="PRAGUE")
    address = evm.deploy(CALLER, creation_code)
    deployment = evm.result.gas_used
    accepted = evm.message_call(CALLER, address, calldata=calldata)
    assert accepted == (1).to_bytes(32, "big")
    return deployment, evm.result.gas_used


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proofs", type=int, default=5)
    options = parser.parse_args()
    layers = train_npc()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "npc"
        circuit, set_up_s = timed(lambda: set_up(folder, encode_onnx(layers), LABELS))
        _, key_s = timed(lambda: verify_key(circuit))
        prove_s, check_s, right = [], [], 0
        for inputs, label in draw_situations(5, options.proofs):
            proof, seconds = timed(lambda inputs=inputs: prove(circuit, inputs))
            prove_s.append(seconds)
            found, seconds = timed(lambda i=inputs, p=proof: verify_proof(p, i, circuit))
            check_s.append(seconds)
            right += found.label == label
        compiler = get_compiler(Path(".hanse") / "cache", lambda _: None)
        contract = compile_source(write_source(circuit), compiler)
        deployment_gas, check_gas = ask_evm(contract.creation_code, encode_call(proof))
        inference_us = measure_inference_us(layers, inputs)
        document = {
            "rung": "zk",
            "proofs": options.proofs,
            "labels_right": right,
            "set_up_s": round(set_up_s, 2),
            "key_s": round(key_s, 2),
            "prove_s": round(sorted(prove_s)[len(prove_s) // 2], 2),
            "check_ms": round(1_000 * sorted(check_s)[len(check_s) // 2], 1),
            "inference_us": round(inference_us, 1),
            "prove_over_inference": round(min(prove_s) * 1e6 / inference_us),
            "proof_bytes": circuit.proof_bytes,
            "file_bytes": len(encode_proof(proof)),
            "calldata_bytes": len(encode_call(proof)),
            "proving_key_bytes": (folder / "proving.key").stat().st_size,
            "contract_bytes": len(contract.runtime_code),
            "deployment_gas": deployment_gas,
            "check_gas": check_gas,
        }
    print(json.dumps(document))
    for name, value in document.items():
        print(f"{name:22} {value}", file=sys.stderr)


if __name__ == "__main__":
    main()
