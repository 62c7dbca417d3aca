"""Gas of one whole transaction as a chain would charge it.

pyrevm keeps storage warm from call to call, and can put at most one cold slot into an account by
hand. What it reads from a remote node is cold, though. So the state is handed to a fresh EVM by a
tiny JSON-RPC server on loopback, in a process of its own because pyrevm waits with the GIL held.
pyrevm also knows no EIP-7623, so the calldata floor is added here.
"""

import json
import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pyrevm

from hanse.protocol.signatures import keccak

SPEC = "PRAGUE"
INTRINSIC_GAS = 21_000
FLOOR_GAS_PER_TOKEN = 10

State = dict[str, tuple[int, str, dict[int, int]]]
"""Address -> (nonce, code as hex, slot -> value)."""


def measure_gas(
    source: Any, block: Any, chain_id: int, caller: str, to: str, data: bytes
) -> tuple[int, list[Any]]:
    """Gas of a transaction on top of `source`'s state, without changing it, and its logs.

    Counts the intrinsic gas, calldata, execution, refunds (EIP-3529) and the floor (EIP-7623).
    """
    with _serve_state(read_state(source)) as url:
        env = pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=chain_id), block=block)
        evm = pyrevm.EVM(env=env, fork_url=url, fork_block="0x1", spec_id=SPEC)
        evm.set_block_env(block)
        evm.message_call(caller, to, calldata=data)
        result = evm.result
    tokens = sum(1 if byte == 0 else 4 for byte in data)
    return max(result.gas_used, INTRINSIC_GAS + FLOOR_GAS_PER_TOKEN * tokens), result.logs


def read_state(evm: Any) -> State:
    """Every account and slot that an EVM of this process has touched."""
    state: State = {}
    for address, info in {**evm.db_accounts, **evm.journal_state}.items():
        # revm pads code, and shows an account without any as one STOP.
        code = bytes(info.code or b"")
        state[address.lower()] = (info.nonce, code.hex() if code.strip(b"\0") else "", {})
    pattern = re.compile(
        r"(0x[0-9a-fA-F]{40}): Account \{|(\d+): StorageSlot \{[^}]*present_value: (\d+)"
    )
    slots: dict[int, int] = {}
    for match in pattern.finditer(evm.journal_str):
        if match[1]:
            slots = state[match[1].lower()][2]
        else:
            slots[int(match[2])] = int(match[3])
    return state


def _make_block(number: int) -> dict[str, Any]:
    """What a contract that asks for a block's hash needs: the one that pyrevm has too."""
    zero, digest = "0x" + "00" * 32, "0x" + keccak(str(number).encode()).hex()
    named = ("parentHash", "sha3Uncles", "stateRoot", "transactionsRoot", "receiptsRoot", "mixHash")
    numbers = ("gasLimit", "gasUsed", "timestamp", "difficulty", "baseFeePerGas", "totalDifficulty")
    return {
        "number": hex(number),
        "hash": digest,
        **dict.fromkeys(named, zero),
        **dict.fromkeys(numbers, "0x0"),
        "nonce": "0x" + "00" * 8,
        "miner": "0x" + "00" * 20,
        "logsBloom": "0x" + "00" * 256,
        "extraData": "0x",
        "size": "0x0",
        "transactions": [],
        "uncles": [],
    }


@contextmanager
def _serve_state(state: State) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            call = json.loads(self.rfile.read(int(self.headers["content-length"])))
            nonce, code, slots = state.get(str(call["params"][0]).lower(), (0, "", {}))
            result = {
                "eth_getBalance": lambda: hex(0),
                "eth_getTransactionCount": lambda: hex(nonce),
                "eth_getCode": lambda: "0x" + code,
                "eth_getBlockByNumber": lambda: _make_block(int(call["params"][0], 16)),
                "eth_getStorageAt": lambda: f"0x{slots.get(int(call['params'][1], 16), 0):064x}",
            }[call["method"]]()
            body = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        process.kill()  # with an inherited handler of SIGTERM it would stay, and we with it
        process.join()
        server.server_close()
