"""Serves contracts' storage to EVMs that begin cold, from a process of its own.

    server = StateServer()
    server.update({escrow: (nonce, code, {slot: value})})
    evm = pyrevm.EVM(env=env, fork_url=server.url, fork_block="0x1", spec_id=SPEC)

pyrevm keeps storage warm from call to call and reads what it lacks from a node while it holds the
GIL, hence the process. It is forked before a simulation fills the memory, and lives until it ends:
tests/contracts/cold_gas.py forks one a transaction, which is fine for a test's few users.
"""

import asyncio
import contextlib
import json
import multiprocessing
import socket
import urllib.request
from typing import Any

from tests.contracts.cold_gas import State

SLOTS_PER_UPDATE = 5_000


class StateServer:
    """The process and its address on loopback."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_serve, args=(listener,), daemon=True)
        self._process.start()
        listener.close()

    def update(self, state: State) -> None:
        """Change what is served."""
        for address, (nonce, code, slots) in state.items():
            items = list(slots.items())
            for start in range(0, max(1, len(items)), SLOTS_PER_UPDATE):
                page = items[start : start + SLOTS_PER_UPDATE]
                self._post([address, nonce, code, [[hex(k), hex(v)] for k, v in page]])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def _post(self, params: list[Any]) -> None:
        body = json.dumps({"id": 0, "method": "update", "params": params}).encode()
        with urllib.request.urlopen(self.url, data=body, timeout=60) as answer:
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
        if method == "update":
            slots.update((int(slot, 16), int(value, 16)) for slot, value in params[3])
            self._state[params[0]] = (params[1], params[2], slots)
        elif method == "eth_getStorageAt":
            result = f"0x{slots.get(int(params[1], 16), 0):064x}"
        else:
            result = {
                "eth_getBalance": "0x0",
                "eth_getTransactionCount": hex(nonce),
                "eth_getCode": "0x" + code,
            }[method]
        return json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).encode()


def _serve(listener: socket.socket) -> None:
    state: State = {}

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(state), sock=listener
        )
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
