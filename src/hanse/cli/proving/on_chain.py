"""The verifier contract of a circuit: compiled, deployed on this home's chain, and asked."""

import json
from pathlib import Path
from typing import Any

from hanse.chain import Call, ChainError, Rpc
from hanse.cli.buying.wallet import open_wallet
from hanse.cli.network import load_network
from hanse.cli.proving.solc import get_compiler
from hanse.cli.session import Session
from hanse.contracts.deployment import get_create_address
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.signatures import keccak, parse_address, to_hex
from hanse.verification.zk import (
    Circuit,
    Proof,
    VerifierContract,
    compile_source,
    encode_call,
    write_source,
)

_ACCEPTED = (1).to_bytes(32, "big")

_ASKER = "0x" + "11" * 20
"""Who calls in a simulated call: nobody; the contract looks at no caller."""


def make_contract(session: Session, circuit: Circuit) -> VerifierContract:
    """Write verifier.sol and verifier.json into the circuit's folder."""
    compiler = get_compiler(session.home / "cache", session.output.note)
    source = write_source(circuit)
    made = compile_source(source, compiler)
    folder = Path(circuit.folder)
    (folder / "verifier.sol").write_text(source)
    document = {
        "compiler": made.compiler,
        "creation_code": to_hex(made.creation_code),
        "runtime_code_hash": to_hex(keccak(made.runtime_code)),
    }
    (folder / "verifier.json").write_text(json.dumps(document) + "\n")
    return made


async def deploy_contract(
    session: Session, made: VerifierContract, key: str, *, use_keyring: bool
) -> dict[str, Any]:
    """Deploy it by one transaction of this key; where it is, and what it cost.

    Raises:
        HanseError: no such key, no node, or the transaction failed.
    """
    network = load_network(session.home)
    call = Call(to=None, data=made.creation_code, label="deploy a zk verifier")
    code_hash = keccak(made.runtime_code)
    async with open_wallet(session, network, key, can_send=True, use_keyring=use_keyring) as wallet:
        outbox = wallet.account.outbox
        assert outbox is not None  # opened to send
        nonce = await outbox.read_next_nonce()
        entry = await outbox.submit(f"zk-verifier-{code_hash.hex()[:16]}-{nonce}", call)
        assert entry.nonce is not None  # it is confirmed
        assert entry.transaction_hash is not None
        receipt = await wallet.rpc.fetch_receipt(entry.transaction_hash)
    return {
        "contract": get_create_address(wallet.user, entry.nonce),
        "transaction_hash": entry.transaction_hash,
        "gas": None if receipt is None else receipt.gas_used,
    }


async def ask_contract(
    session: Session, circuit: Circuit, address: str, proof: Proof
) -> dict[str, Any]:
    """Have the contract judge the proof by a simulated call, which costs nothing.

    Its code is held against the code that `hanse zk contract` compiled for this circuit.

    Raises:
        RequestError: `not_found` if that was never done; `invalid_request` for another contract.
        VerificationError: `zk_proof_invalid`, if the contract refuses.
    """
    try:
        told = json.loads((Path(circuit.folder) / "verifier.json").read_text())
        expected = str(told["runtime_code_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RequestError(
            "not_found", f"{circuit.folder} has no verifier.json: run hanse zk contract first"
        ) from None
    target = parse_address(address, "contract")
    call = Call(to=target, data=encode_call(proof))
    async with Rpc.connect(load_network(session.home).rpc_url) as rpc:
        block = (await rpc.fetch_head()).number
        found = to_hex(keccak(await rpc.fetch_code(target, block=block)))
        if found != expected:
            raise RequestError(
                "invalid_request",
                f"the code at {target} has the hash {found}, this circuit's verifier {expected}: "
                "it is another contract, or none",
            )
        try:
            accepted = await rpc.call(call, block=block, sender=_ASKER)
        except ChainError:
            raise VerificationError(
                "zk_proof_invalid", f"the contract at {target} refuses the proof"
            ) from None
        if accepted != _ACCEPTED:
            raise VerificationError(
                "zk_proof_invalid", f"the contract at {target} answers {accepted.hex()[:80]}"
            )
        gas = await rpc.estimate_gas(call, sender=_ASKER, block=block)
    return {"contract": target, "is_accepted_on_chain": True, "gas": gas}
