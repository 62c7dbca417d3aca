"""The JSON-RPC face of the chain that one component sees, and how far it can be believed.

    rpc = Rpc(ChaosNode(chain, lot, counts))
    node.mood = Mood.LIES

| mood | what the component is told |
| --- | --- |
| HONEST | the truth, after a moment |
| DEAD | nothing: connections are refused, or hang |
| LAGS | the truth of some blocks ago, perhaps of a branch that was dropped since |
| FLAKY | rate limits, 5xx, truncated JSON, half a batch; a broadcast that arrives unanswered |
| LIES | each answer from another head; receipts of dropped blocks or none; logs left out |

A node that invents confirmed blocks or state is not among them: against that only a second node
helps, and Hanse says so (SECURITY.md).
"""

import asyncio
from collections import Counter
from enum import Enum
from random import Random
from typing import Any

import msgspec

from chaos.chain.blocks import Chain
from chaos.chain.state import GAS_USED, Block, Emitted
from hanse.protocol.errors import TransientError
from hanse.protocol.signatures import keccak, to_bytes, to_hex

CHAIN_ID = 31_337
BALANCE_WEI = 10**24
"""Native coin of everybody: gas is not what runs out here."""

NO_BLOOM = "0x" + "00" * 256

WAITS_S = (0.001, 0.002, 0.01, 0.05)

HANG_S = 15.0
"""As long as the real transport waits for a node."""


class Mood(Enum):
    """See the module."""

    HONEST = "honest"
    DEAD = "rpc_dead"
    LAGS = "rpc_lags"
    FLAKY = "rpc_flaky"
    LIES = "rpc_lies"


class _RpcError(Exception):
    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message, **({"data": data} if data else {})}


class ChaosNode:
    """`hanse.chain.rpc.RpcTransport` to the chain in this process."""

    def __init__(self, chain: Chain, lot: Random, counts: "Counter[str]") -> None:
        self.mood = Mood.HONEST
        self.lag = 1
        self._chain = chain
        self._lot = lot
        self._counts = counts

    async def exchange(self, body: bytes) -> bytes:
        """See `RpcTransport`."""
        lot = self._lot
        await asyncio.sleep(lot.choice(WAITS_S))
        if self.mood is Mood.DEAD:
            self._count()
            await asyncio.sleep(HANG_S if lot.random() < 0.1 else 0.01)
            raise TransientError("chain_unavailable", "the chaos node is dead")
        flaky = self.mood is Mood.FLAKY and lot.random() < 0.3
        way = lot.choice(("before", "after", "limit", "cut", "half")) if flaky else ""
        if way:
            self._count()
        if way == "before":
            raise TransientError("chain_unavailable", "the chaos node broke off before it read")
        asked = msgspec.json.decode(body)
        if way == "limit":
            error = {"code": -32005, "message": "too many requests"}
            return msgspec.json.encode({"jsonrpc": "2.0", "id": 0, "error": error})
        if isinstance(asked, list):
            told: Any = [self._answer(one) for one in asked]
            if way == "half":
                told = told[: len(told) // 2]
        else:
            told = self._answer(asked)
        if lot.random() < 0.2:
            await asyncio.sleep(lot.choice(WAITS_S))  # the chain may move before the answer comes
        if way == "after":
            raise TransientError("chain_unavailable", "the chaos node broke off after it acted")
        encoded = msgspec.json.encode(told)
        return encoded[: len(encoded) // 2] if way == "cut" else encoded

    async def close(self) -> None:
        """See `RpcTransport`."""

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            method = getattr(self, "_" + asked["method"])
            answer["result"] = method(self._choose_tip(), *asked["params"])
        except _RpcError as error:
            answer["error"] = error.body
        return answer

    def _choose_tip(self) -> Block:
        tips = self._chain.tips
        if self.mood is Mood.LAGS:
            self._count()
            return tips[max(0, len(tips) - 1 - self.lag)]
        if self.mood is Mood.LIES and self._lot.random() < 0.5:
            self._count()
            return self._lot.choice(tips[-6:])
        return self._chain.head

    def _lies(self) -> bool:
        lies = self.mood is Mood.LIES and self._lot.random() < 0.3
        if lies:
            self._count()
        return lies

    def _count(self) -> None:
        self._counts[self.mood.value] += 1

    # ------------------------------------------------------------------ methods

    def _eth_chainId(self, tip: Block) -> str:  # noqa: N802 (the method's name)
        return hex(CHAIN_ID)

    def _eth_getBlockByNumber(self, tip: Block, number: str, full: bool) -> Any:  # noqa: N802
        block = tip if number == "latest" else self._chain.find_block(int(number, 16), tip)
        return None if block is None else _show_block(block)

    def _eth_getBalance(self, tip: Block, address: str, number: str) -> str:  # noqa: N802
        self._get_block(tip, number)
        return hex(BALANCE_WEI)

    def _eth_getCode(self, tip: Block, address: str, number: str) -> str:  # noqa: N802
        self._get_block(tip, number)
        return to_hex(self._chain.state.get_code(address))

    def _eth_getTransactionCount(self, tip: Block, address: str, number: str) -> str:  # noqa: N802
        return hex(self._get_block(tip, number).nonces.get(address.lower(), 0))

    def _eth_getTransactionReceipt(self, tip: Block, transaction_hash: str) -> Any:  # noqa: N802
        found = self._chain.find_mined(transaction_hash, tip)
        if self._lies():
            found = None if found else self._chain.find_anywhere(transaction_hash)
        return None if found is None else _show_receipt(*found)

    def _eth_getBlockReceipts(self, tip: Block, number: str) -> Any:  # noqa: N802
        block = self._chain.find_block(int(number, 16), tip)
        if block is None:
            return None
        return [_show_receipt(block, index) for index in range(len(block.sent))]

    def _eth_getLogs(self, tip: Block, query: dict[str, Any]) -> Any:  # noqa: N802
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        if last > tip.number:
            raise _RpcError(-32000, f"block range extends beyond the head {tip.number}")
        lies = self._lies()
        found = []
        for number in range(first, last + 1):
            block = self._chain.find_block(number, tip)
            if block is None or (lies and self._lot.random() < 0.5):
                continue
            for log, shown in _list_logs(block):
                if log.address in query["address"] and _fits(log, query.get("topics", [])):
                    found.append(shown)
        return found

    def _eth_call(self, tip: Block, call: dict[str, str], number: str) -> str:
        return to_hex(self._call(tip, call, number))

    def _eth_estimateGas(self, tip: Block, call: dict[str, str], number: str) -> str:  # noqa: N802
        self._call(tip, call, number)
        return hex(2 * GAS_USED)

    def _eth_maxPriorityFeePerGas(self, tip: Block) -> str:  # noqa: N802
        return hex(10**9)

    def _eth_gasPrice(self, tip: Block) -> str:  # noqa: N802
        return hex(tip.base_fee_wei + 10**9)

    def _eth_sendRawTransaction(self, tip: Block, raw: str) -> str:  # noqa: N802
        if self._lies():
            return to_hex(keccak(to_bytes(raw)))  # says yes, and throws it away
        try:
            return self._chain.receive(to_bytes(raw))
        except ValueError as error:
            raise _RpcError(-32000, str(error)) from None

    # ------------------------------------------------------------------ parts

    def _get_block(self, tip: Block, number: str) -> Block:
        block = self._chain.find_block(int(number, 16), tip)
        if block is None:
            raise _RpcError(-32000, f"header not found: {int(number, 16)}, head {tip.number}")
        return block

    def _call(self, tip: Block, call: dict[str, str], number: str) -> bytes:
        block = self._get_block(tip, number)
        sender = call.get("from", "0x" + "00" * 19 + "01")
        try:
            ran = self._chain.state.call(block, sender, call["to"], to_bytes(call["data"]))
        except AssertionError:
            raise _RpcError(-32000, f"missing trie node: state of {number} is pruned") from None
        if not ran.succeeded:
            raise _RpcError(3, "execution reverted", to_hex(ran.output))
        return ran.output


def _show_block(block: Block) -> dict[str, Any]:
    return {
        "number": hex(block.number),
        "hash": block.hash,
        "parentHash": block.parent_hash,
        "timestamp": hex(block.timestamp_s),
        "baseFeePerGas": hex(block.base_fee_wei),
        "gasLimit": hex(30_000_000),
        "transactions": [sent.hash for sent in block.sent],
        "logsBloom": to_hex(_get_bloom(block)) if block.sent else NO_BLOOM,
    }


def _show_receipt(block: Block, index: int) -> dict[str, Any]:
    sent, ran = block.sent[index], block.ran[index]
    return {
        "transactionHash": sent.hash,
        "blockNumber": hex(block.number),
        "blockHash": block.hash,
        "status": hex(int(ran.succeeded)),
        "gasUsed": hex(GAS_USED),
        "effectiveGasPrice": hex(min(sent.max_fee_wei, block.base_fee_wei + sent.tip_wei)),
        "logs": [shown for _, shown in _list_logs(block) if shown["transactionHash"] == sent.hash],
    }


def _list_logs(block: Block) -> list[tuple[Emitted, dict[str, Any]]]:
    found: list[tuple[Emitted, dict[str, Any]]] = []
    for sent, ran in zip(block.sent, block.ran, strict=True):
        for log in ran.logs:
            shown = {
                "address": log.address,
                "topics": [to_hex(topic) for topic in log.topics],
                "data": to_hex(log.data),
                "blockNumber": hex(block.number),
                "blockHash": block.hash,
                "transactionHash": sent.hash,
                "logIndex": hex(len(found)),
            }
            found.append((log, shown))
    return found


def _fits(log: Emitted, topics: list[Any]) -> bool:
    for place, wanted in enumerate(topics):
        if wanted is None:
            continue
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if place >= len(log.topics) or to_hex(log.topics[place]) not in allowed:
            return False
    return True


def _get_bloom(block: Block) -> bytes:
    """Yellow Paper, 4.4.1."""
    bits = 0
    for ran in block.ran:
        for log in ran.logs:
            for item in (to_bytes(log.address), *log.topics):
                digest = keccak(item)
                for at in (0, 2, 4):
                    bits |= 1 << (int.from_bytes(digest[at : at + 2], "big") & 0x7FF)
    return bits.to_bytes(256, "big")
