"""Serves contracts' storage to EVMs that begin cold, from a program of its own.

    server = StateServer()
    server.replace({escrow: (nonce, code, {slot: value})})
    evm = pyrevm.EVM(env=env, fork_url=server.url, fork_block="0x1", spec_id=SPEC)

pyrevm keeps storage warm from call to call, and reads what it lacks from a node while it holds the
GIL, without a time limit: nothing of the process that waits can run meanwhile, not even what would
end it. So this is no thread and no fork, whose locks may be held by threads that it has not, but a
fresh interpreter; and only it has the listening socket, so that its end is an error and no silence.
It ends with whoever started it.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from typing import Any

from hanse.protocol.signatures import keccak

State = dict[str, tuple[int, str, dict[int, int]]]
"""Address -> (nonce, code as hex, slot -> value)."""

SLOTS_PER_UPDATE = 5_000
ANSWER_S = 60


class StateServer:
    """The program and its address on loopback."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline()
        if not port:
            raise RuntimeError(f"the state's server ended with {self._process.wait()}")
        self.url = f"http://127.0.0.1:{int(port)}"

    def replace(self, state: State) -> None:
        """Serve this and nothing else."""
        self._post("clear", [""])
        self.update(state)

    def update(self, state: State) -> None:
        """Change what is served."""
        for address, (nonce, code, slots) in state.items():
            items = list(slots.items())
            for start in range(0, max(1, len(items)), SLOTS_PER_UPDATE):
                page = items[start : start + SLOTS_PER_UPDATE]
                page_of = [address, nonce, code, [[hex(k), hex(v)] for k, v in page]]
                self._post("update", page_of)

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.communicate()

    def _post(self, method: str, params: list[Any]) -> None:
        body = json.dumps({"id": 0, "method": method, "params": params}).encode()
        with urllib.request.urlopen(self.url, data=body, timeout=ANSWER_S) as answer:
            answer.read()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with kept-alive connections, one JSON-RPC request after another."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(self._held) < end + 4 + length:
                return
            body = self._held[end + 4 : end + 4 + length]
            self._held = self._held[end + 4 + length :]
            answer = self._answer(json.loads(body))
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (len(answer), answer)
            )

    def _answer(self, call: dict[str, Any]) -> bytes:
        method, params = call["method"], call["params"]
        nonce, code, slots = self._state.get(params[0].lower(), (0, "", {}))
        result: Any = True
        if method == "clear":
            self._state.clear()
        elif method == "update":
            slots.update((int(slot, 16), int(value, 16)) for slot, value in params[3])
            self._state[params[0].lower()] = (params[1], params[2], slots)
        elif method == "eth_getStorageAt":
            result = f"0x{slots.get(int(params[1], 16), 0):064x}"
        elif method == "eth_getBlockByNumber":
            result = _make_block(int(params[0], 16))
        else:
            result = {
                "eth_getBalance": "0x0",
                "eth_getTransactionCount": hex(nonce),
                "eth_getCode": "0x" + code,
            }[method]
        return json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).encode()


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


def _serve() -> None:
    """Print the port, and serve until standard input ends: until who started this has ended."""

    async def serve() -> None:
        state: State = {}
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)
        server.close()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    _serve()
