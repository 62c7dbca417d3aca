"""Gas of one whole transaction as a chain would charge it.

pyrevm keeps storage warm from call to call, and can put at most one cold slot into an account by
hand. What it reads from a remote node is cold, though. So the state is handed to a fresh EVM by a
tiny JSON-RPC server on loopback (`state_server`), one for each process that measures. pyrevm also
knows no EIP-7623, so the calldata floor is added here.
"""

import re
from functools import cache
from typing import Any

import pyrevm

from tests.contracts.state_server import State, StateServer

SPEC = "PRAGUE"
INTRINSIC_GAS = 21_000
FLOOR_GAS_PER_TOKEN = 10


def measure_gas(
    source: Any, block: Any, chain_id: int, caller: str, to: str, data: bytes
) -> tuple[int, list[Any]]:
    """Gas of a transaction on top of `source`'s state, without changing it, and its logs.

    Counts the intrinsic gas, calldata, execution, refunds (EIP-3529) and the floor (EIP-7623).
    """
    server = _open_server()
    server.replace(read_state(source))
    env = pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=chain_id), block=block)
    evm = pyrevm.EVM(env=env, fork_url=server.url, fork_block="0x1", spec_id=SPEC)
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


@cache
def _open_server() -> StateServer:
    return StateServer()
