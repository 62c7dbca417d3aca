"""The same proof, checked by a contract on any EVM chain.

    source = write_source(circuit)                     ezkl writes Solidity for this key
    contract = compile_source(source, run_compiler)    by solc, which the caller brings
    calldata = encode_call(proof)                      what to call the contract with

The contract has one function, `verifyProof(bytes, uint256[])`; it returns true or reverts. It reads
its arguments at fixed places: only calls in the usual encoding, as `encode_call` makes them, are
judged, and others revert.

Source: ezkl 23.0.5's Solidity (halo2-solidity-verifier); solc's standard JSON.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import keccak
from hanse.verification.zk import backend
from hanse.verification.zk.circuit import Circuit
from hanse.verification.zk.proofs import FIELD, Proof, get_proof_bytes

CONTRACT_BYTES_MAX = 24_576
"""EIP-170: the largest code that a chain takes."""

WRITE_TIMEOUT_S = 120.0

SELECTOR = keccak(b"verifyProof(bytes,uint256[])")[:4]

Compiler = Callable[[bytes], bytes]
"""Standard JSON in, standard JSON out."""


@dataclass(frozen=True, slots=True)
class VerifierContract:
    """Compiled: what deploys it, and what stands on the chain then."""

    creation_code: bytes
    runtime_code: bytes
    compiler: str


def write_source(circuit: Circuit) -> str:
    """The contract in Solidity.

    ezkl writes the source and then looks for a compiler, which it would download. It does that in a
    process of its own whose way out is closed; the source is all that is wanted of it.

    Raises:
        RequestError: `configuration_invalid`.
    """
    backend.load()  # says how to install it, if it is not there
    folder = Path(circuit.folder).resolve()  # it runs elsewhere
    with tempfile.TemporaryDirectory(prefix="zk-contract-") as draft:
        target = Path(draft) / "verifier.sol"
        done = subprocess.run(  # noqa: S603 (our own argument list)
            [
                *(sys.executable, "-I", "-c", _WRITE),
                *(str(folder / name) for name in ("verification.key", "settings.json", "srs.kzg")),
                *(str(target), str(Path(draft) / "verifier.abi")),
            ],
            capture_output=True,
            text=True,
            timeout=WRITE_TIMEOUT_S,
            check=False,
            cwd=draft,
            env={"HTTPS_PROXY": _CLOSED, "HTTP_PROXY": _CLOSED, "HOME": draft, "PATH": ""},
        )
        if not target.is_file():
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise RequestError(
                "configuration_invalid", f"ezkl wrote no contract: {reason[0]}"[:400]
            )
        return target.read_text()


def compile_source(source: str, run_compiler: Compiler) -> VerifierContract:
    """Compile with solc.

    Raises:
        RequestError: `configuration_invalid`, with the compiler's first error.
    """
    wanted = {
        "language": "Solidity",
        "sources": {"verifier.sol": {"content": source}},
        "settings": {
            "optimizer": {"enabled": True, "runs": 200},
            "evmVersion": "paris",  # what every EVM chain runs
            "metadata": {"bytecodeHash": "none", "appendCBOR": False},
            "outputSelection": {
                "*": {"*": ["evm.bytecode.object", "evm.deployedBytecode.object", "metadata"]}
            },
        },
    }
    answer = json.loads(run_compiler(json.dumps(wanted).encode()))
    errors = [one for one in answer.get("errors", ()) if one.get("severity") == "error"]
    if errors:
        raise RequestError(
            "configuration_invalid", f"solc refused the contract: {errors[0].get('message')}"[:400]
        )
    (found,) = answer["contracts"]["verifier.sol"].values()
    contract = VerifierContract(
        bytes.fromhex(found["evm"]["bytecode"]["object"]),
        bytes.fromhex(found["evm"]["deployedBytecode"]["object"]),
        json.loads(found["metadata"])["compiler"]["version"],
    )
    if len(contract.runtime_code) > CONTRACT_BYTES_MAX:
        raise RequestError(
            "configuration_invalid",
            f"the contract has {len(contract.runtime_code)} bytes, a chain takes at most "
            f"{CONTRACT_BYTES_MAX}: make the circuit smaller",
        )
    return contract


def encode_call(proof: Proof) -> bytes:
    """Calldata of `verifyProof` for this proof, inputs first, then outputs."""
    from eth_abi.abi import encode  # 0.1 s to import

    values = [value % FIELD for value in (*proof.inputs, *proof.outputs)]
    return SELECTOR + encode(["bytes", "uint256[]"], [get_proof_bytes(proof), values])


_CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens

_WRITE = """
import asyncio, sys, ezkl

async def write(key, settings, srs, target, abi):
    await ezkl.create_evm_verifier(
        vk_path=key, settings_path=settings, srs_path=srs, sol_code_path=target, abi_path=abi
    )

asyncio.run(write(*sys.argv[1:]))
"""
