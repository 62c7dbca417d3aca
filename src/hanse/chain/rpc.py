"""JSON-RPC to a node of any EVM chain: typed answers, typed errors, an injectable transport.

    async with Rpc.connect("http://127.0.0.1:8545") as rpc:
        head = await rpc.fetch_head()
        block = head.number - confirmations
        data = await rpc.call(to, calldata, block=block)

`fetch_head` is the only place that says "latest"; every other question names the block that it is
about, because two answers about "latest" may be about two chains. The transport is passed in
(`rpc_transport`): there tests put lag, loss and lies. Reads are tried again with a growing pause;
`send_raw` never is, since only the outbox knows what a lost answer means.

Source: the Ethereum execution API (ethereum/execution-apis), the error conventions of geth, reth
    and anvil.
"""

import asyncio
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from hanse.chain.chain_types import BlockNumber, Call, ChainError, Header, Log, TransactionReceipt
from hanse.chain.revert import decode_revert
from hanse.chain.rpc_transport import TIMEOUT_S, HttpTransport, RpcTransport, unavailable
from hanse.protocol.errors import TransientError

READ_ATTEMPTS_MAX = 4
"""Tries of one read. Pauses of 0.1, 0.2 and 0.4 s bridge a restart; a dead node is soon known."""

RETRY_PAUSE_S = 0.1
"""Pause before the second try; doubles each time."""

BATCH_MAX = 100
"""Requests in one JSON-RPC batch; common nodes refuse more than 100 to 1,000."""

_RATE_LIMIT_CODES = (-32005, -32097, 429)
_REVERT_CODE = 3


class Rpc:
    """Typed calls to one node. Safe for concurrent use in one event loop."""

    def __init__(self, transport: RpcTransport, *, retry_pause_s: float = RETRY_PAUSE_S) -> None:
        self._transport = transport
        self._retry_pause_s = retry_pause_s
        self._ids = itertools.count(1)

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = TIMEOUT_S) -> Self:
        """A client of the node at `url`; nothing is sent yet."""
        return cls(HttpTransport(url, timeout_s=timeout_s))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the transport."""
        await self._transport.close()

    async def request(
        self, method: str, *params: Any, attempts_max: int = READ_ATTEMPTS_MAX
    ) -> Any:
        """One raw JSON-RPC request, tried up to `attempts_max` times.

        Raises:
            TransientError: `chain_unavailable` when the node does not answer, limits the rate or is
                not ready.
            ChainError: the node refused; `reason` holds its words or the decoded revert reason.
        """
        body = self._encode(method, params)
        for attempt in range(1, attempts_max + 1):
            try:
                return _result_of(_decode(await self._transport.exchange(body)))
            except TransientError:
                if attempt == attempts_max:
                    raise
                await asyncio.sleep(self._retry_pause_s * 2 ** (attempt - 1))
        raise AssertionError("attempts_max is at least 1")

    async def request_batch(self, requests: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Several reads in as few exchanges as possible; results in the order asked.

        Raises:
            TransientError, ChainError: as `request`, for the first request that failed.
        """
        results: list[Any] = []
        for start in range(0, len(requests), BATCH_MAX):
            results += await self._request_page(requests[start : start + BATCH_MAX])
        return results

    async def fetch_chain_id(self) -> int:
        """The chain id (EIP-155) that the node serves."""
        return _int(await self.request("eth_chainId"))

    async def fetch_head(self) -> Header:
        """The newest block that the node knows: to count back from, never to decide on."""
        return _header(await self.request("eth_getBlockByNumber", "latest", False))

    async def fetch_header(self, number: BlockNumber) -> Header | None:
        """The header at a height of the node's present chain; None above its head."""
        found = await self.request("eth_getBlockByNumber", hex(number), False)
        return None if found is None else _header(found)

    async def fetch_headers(self, first: BlockNumber, last: BlockNumber) -> list[Header]:
        """The headers first .. last, both included; raises TransientError if one is missing."""
        return await self.fetch_headers_at(range(first, last + 1))

    async def fetch_headers_at(self, numbers: Sequence[BlockNumber]) -> list[Header]:
        """The headers at these heights, in their order; raises TransientError if one is missing."""
        found = await self.request_batch(
            [("eth_getBlockByNumber", (hex(number), False)) for number in numbers]
        )
        for number, raw in zip(numbers, found, strict=True):
            if raw is None:
                raise unavailable(f"it lacks block {number}")
        return [_header(raw) for raw in found]

    async def fetch_buried(self, number: BlockNumber, depth: int) -> Header:
        """The header at a height with `depth` others on it; TransientError if that is not so."""
        # Counting back from a head proves nothing: one address may serve nodes of two branches.
        headers = await self.fetch_headers(number, number + depth)
        if any(child.parent_hash != parent.hash for parent, child in itertools.pairwise(headers)):
            raise unavailable(f"it shows two branches above block {number}")
        return headers[0]

    async def fetch_balance(self, address: str, *, block: BlockNumber) -> int:
        """Native coin of `address` after `block`, in wei."""
        return _int(await self.request("eth_getBalance", address, hex(block)))

    async def fetch_code(self, address: str, *, block: BlockNumber) -> bytes:
        """Deployed code after `block`; empty if there is none."""
        return _bytes(await self.request("eth_getCode", address, hex(block)))

    async def fetch_transaction_count(self, address: str, *, block: BlockNumber) -> int:
        """Transactions of `address` mined up to `block`, that is its next nonce there."""
        return _int(await self.request("eth_getTransactionCount", address, hex(block)))

    async def fetch_receipt(self, transaction_hash: str) -> TransactionReceipt | None:
        """The receipt if the node holds the transaction mined. Its block may still be dropped."""
        raw = await self.request("eth_getTransactionReceipt", transaction_hash)
        if raw is None or raw.get("blockNumber") is None:
            return None
        return TransactionReceipt(
            transaction_hash=raw["transactionHash"],
            block_number=_int(raw["blockNumber"]),
            block_hash=raw["blockHash"],
            succeeded=_int(raw["status"]) == 1,
            gas_used=_int(raw["gasUsed"]),
            effective_gas_price_wei=_int(raw.get("effectiveGasPrice", "0x0")),
            logs=tuple(_log(item) for item in raw["logs"]),
        )

    async def fetch_logs(
        self,
        addresses: Sequence[str],
        *,
        first: BlockNumber,
        last: BlockNumber,
        topics: Sequence[Any] = (),
    ) -> list[Log]:
        """Logs of these contracts in first .. last, both included, in chain order."""
        query = {
            "address": list(addresses),
            "fromBlock": hex(first),
            "toBlock": hex(last),
            "topics": list(topics),
        }
        logs = [_log(raw) for raw in await self.request("eth_getLogs", query)]
        return sorted(logs, key=lambda log: (log.block_number, log.log_index))

    async def fetch_has_logs(
        self,
        block: BlockNumber,
        addresses: frozenset[str],
        filters: Sequence[tuple[bytes | None, ...]] = ((),),
    ) -> bool:
        """Whether its receipts hold logs that a filter takes; False if the node cannot say."""
        try:
            receipts = await self.request("eth_getBlockReceipts", hex(block))
        except ChainError:
            return False
        return any(
            log["address"].lower() in addresses
            and any(_has_topics(log["topics"], wanted) for wanted in filters)
            for r in receipts or ()
            for log in r["logs"]
        )

    async def call(self, call: Call, *, block: BlockNumber, sender: str | None = None) -> bytes:
        """Run a call on the state after `block` without a transaction; returns what it returned.

        Raises:
            ChainError: it reverted; `reason` is decoded.
        """
        return _bytes(await self.request("eth_call", _call_object(call, sender), hex(block)))

    async def estimate_gas(self, call: Call, *, sender: str, block: BlockNumber) -> int:
        """Gas that the call would take after `block`; ChainError with the reason if it reverts."""
        return _int(await self.request("eth_estimateGas", _call_object(call, sender), hex(block)))

    async def fetch_priority_fee(self) -> int:
        """The tip a gas that the node proposes, in wei."""
        return _int(await self.request("eth_maxPriorityFeePerGas"))

    async def send_raw(self, raw: bytes) -> str:
        """Broadcast signed bytes once; returns the hash.

        A lost answer does not mean a lost transaction.
        """
        found = await self.request("eth_sendRawTransaction", "0x" + raw.hex(), attempts_max=1)
        return str(found)

    def _encode(self, method: str, params: Sequence[Any]) -> bytes:
        return msgspec.json.encode(
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        )

    async def _request_page(self, requests: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        items = [
            {"jsonrpc": "2.0", "id": i, "method": method, "params": list(params)}
            for i, (method, params) in enumerate(requests)
        ]
        body = msgspec.json.encode(items)
        for attempt in range(1, READ_ATTEMPTS_MAX + 1):
            try:
                answers = _decode(await self._transport.exchange(body))
                if not isinstance(answers, list):
                    return [_result_of(answers)]  # one error object for the whole batch: raises
                by_id = {answer.get("id"): answer for answer in answers}
                if len(by_id) != len(items):
                    raise unavailable(f"{len(by_id)} answers to a batch of {len(items)}")
                return [_result_of(by_id[i]) for i in range(len(items))]
            except TransientError:
                if attempt == READ_ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(self._retry_pause_s * 2 ** (attempt - 1))
        raise AssertionError("READ_ATTEMPTS_MAX is at least 1")


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise unavailable("its answer is not JSON") from None


def _result_of(answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise unavailable("its answer is not a JSON-RPC object")
    error = answer.get("error")
    if error is None:
        if "result" not in answer:
            raise unavailable("its answer has neither result nor error")
        return answer["result"]
    code, message, data = error.get("code"), str(error.get("message", "")), error.get("data")
    if code in _RATE_LIMIT_CODES and "revert" not in message and "results" not in message:
        raise unavailable(f"rate limit: {message[:200]}")
    if isinstance(data, dict):
        data = data.get("data")
    reason = None
    if isinstance(data, str) and data.startswith("0x"):
        reason = decode_revert(bytes.fromhex(data[2:]))
    is_revert = code == _REVERT_CODE or "revert" in message.lower()
    reason = reason or message[:300] or f"error {code}"
    raise ChainError(f"the chain refused: {reason}", reason=reason, is_revert=is_revert)


def _call_object(call: Call, sender: str | None) -> dict[str, str]:
    found = {"data": "0x" + call.data.hex(), "value": hex(call.value)}
    if call.to is not None:
        found["to"] = call.to
    if sender is not None:
        found["from"] = sender
    return found


def _has_topics(topics: list[str], wanted: tuple[bytes | None, ...]) -> bool:
    return len(topics) >= len(wanted) and all(
        topic is None or _bytes(found) == topic
        for found, topic in zip(topics, wanted, strict=False)
    )


def _int(raw: Any) -> int:
    number = int(raw, 16)
    if number < 0:
        raise unavailable(f"it says {raw} where no number is below 0")
    return number


def _bytes(raw: Any) -> bytes:
    return bytes.fromhex(raw[2:])


def _header(raw: dict[str, Any]) -> Header:
    return Header(
        number=_int(raw["number"]),
        hash=raw["hash"],
        parent_hash=raw["parentHash"],
        timestamp_s=_int(raw["timestamp"]),
        base_fee_wei=_int(raw.get("baseFeePerGas") or "0x0"),
        transaction_hashes=tuple(
            t if isinstance(t, str) else t["hash"] for t in raw["transactions"]
        ),
        logs_bloom=_bytes(raw.get("logsBloom") or "0x"),
        gas_limit=_int(raw.get("gasLimit") or "0x0"),
    )


def _log(raw: dict[str, Any]) -> Log:
    return Log(
        address=raw["address"].lower(),
        topics=tuple(_bytes(topic) for topic in raw["topics"]),
        data=_bytes(raw["data"]),
        block_number=_int(raw["blockNumber"]),
        block_hash=raw["blockHash"],
        transaction_hash=raw["transactionHash"],
        log_index=_int(raw["logIndex"]),
    )
