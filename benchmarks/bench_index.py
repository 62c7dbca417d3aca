"""How an event index catches up: memory, events a second, and that nothing is missing.

    make -s bench-index EVENTS=1000000

The node is a FAKE: it lives in this process, behind the same seam as HTTP (`RpcTransport`), and
makes up blocks with `Funded` events as they are asked for, so the figures hold neither a network
nor a node's own time. It refuses more than 10,000 logs an answer, as public nodes do. Everything
else is real: client, checks of headers, decoding, folding, and a SQLite file with every window
committed. At the end the documents are added up and held against what was made.

One JSON line to standard output, a table to standard error; exits 1 if a unit is missing.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path

import msgspec

from hanse.chain import Rpc
from hanse.chain.escrow import Escrow
from hanse.chain.index import EventIndex
from hanse.contracts.artifacts import load_artifact
from hanse.protocol.signatures import keccak
from hanse.settlement.chain_state.index_storage import open_index_storage
from hanse.settlement.chain_state.sub_account_fold import create_provider_fold, decode_funds
from hanse.store import open_database

ESCROW = "0x" + "e5" * 20
PROVIDER = "0x" + "b2" * 20
EVENTS_PER_BLOCK = 50
USERS = 20_000
LOGS_PER_ANSWER_MAX = 10_000
CONFIRMATIONS = 2
AMOUNT = 7


class FakeNode:
    """An `RpcTransport` that makes up a chain; see the module's docstring."""

    def __init__(self, events: int) -> None:
        self.blocks = -(-events // EVENTS_PER_BLOCK)
        self.events = self.blocks * EVENTS_PER_BLOCK
        self.refused = self.exchanges = 0
        topic = load_artifact("Escrow").events["Funded"].topic.hex()
        self._begin = f'{{"address":"{ESCROW}","topics":["0x{topic}","0x'
        self._provider = f'","0x{"0" * 24}{PROVIDER[2:]}","0x'
        self._data = f'"],"data":"0x{AMOUNT:064x}{0:0128x}",'

    async def exchange(self, body: bytes) -> bytes:
        """See `RpcTransport`."""
        self.exchanges += 1
        asked = msgspec.json.decode(body)
        if isinstance(asked, list):
            return b"[" + b",".join(self._answer(one) for one in asked) + b"]"
        return self._answer(asked)

    async def close(self) -> None:
        """See `RpcTransport`."""

    def _answer(self, asked: dict) -> bytes:
        head = b'{"jsonrpc":"2.0","id":%d,' % asked["id"]
        method, params = asked["method"], asked["params"]
        if method == "eth_getBlockByNumber":
            number = self.blocks + CONFIRMATIONS if params[0] == "latest" else int(params[0], 16)
            return head + b'"result":' + self._make_header(number) + b"}"
        assert method == "eth_getLogs", method
        first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
        if (last - first + 1) * EVENTS_PER_BLOCK > LOGS_PER_ANSWER_MAX:
            self.refused += 1
            error = b'{"code":-32005,"message":"query returned more than 10000 results"}'
            return head + b'"error":' + error + b"}"
        return head + b'"result":[' + ",".join(self._make_logs(first, last)).encode() + b"]}"

    def _make_header(self, number: int) -> bytes:
        if number > self.blocks + CONFIRMATIONS:
            return b"null"
        made = {
            "number": hex(number),
            "hash": get_hash(number),
            "parentHash": get_hash(number - 1),
            "timestamp": hex(1_800_000_000 + number),
            "transactions": [get_hash(number)] * EVENTS_PER_BLOCK,
        }
        return msgspec.json.encode(made)

    def _make_logs(self, first: int, last: int) -> list[str]:
        logs = []
        for block in range(max(first, 1), min(last, self.blocks) + 1):
            place = f'"blockNumber":"{block:#x}","blockHash":"{get_hash(block)}",'
            place += f'"transactionHash":"{get_hash(block)}","logIndex":"'
            for index in range(EVENTS_PER_BLOCK):
                user = f"{1 + (block * EVENTS_PER_BLOCK + index) % USERS:064x}"
                logs.append(
                    f'{self._begin}{user}{self._provider}{user}{self._data}{place}{index:#x}"}}'
                )
        return logs


@lru_cache(4_096)
def get_hash(number: int) -> str:
    return "0x" + keccak(number.to_bytes(8, "big", signed=True)).hex()


async def measure(events: int, store: str) -> dict[str, object]:
    node = FakeNode(events)
    rpc = Rpc(node)
    database = await open_database(store)
    storage = await open_index_storage(database, "broker", create_provider_fold(PROVIDER))
    index = EventIndex(
        rpc,
        [Escrow(rpc, ESCROW).contract],
        storage,
        start_block=1,
        confirmations=CONFIRMATIONS,
    )
    rss_before, windows, largest = get_rss_mib(), 0, 0
    started, used = time.perf_counter(), time.process_time()
    while (batch := await index.advance()) is not None:
        windows += 1
        largest = max(largest, len(batch.events))
    took, cpu = time.perf_counter() - started, time.process_time() - used
    rss_after = get_rss_mib()
    documents = await storage.read_documents()
    held = sum(
        decode_funds(document).balance
        for key, document in documents.items()
        if key.startswith("sub_account:")
    )
    await database.close()
    return {
        "node": "fake",
        "events": node.events,
        "missing_units": node.events * AMOUNT - held,
        "events_per_s": round(node.events / took),
        "cpu_us_per_event": round(cpu / node.events * 1e6, 1),
        "seconds": round(took, 1),
        "rss_mib_before": rss_before,
        "rss_mib_peak": rss_after,
        "windows": windows,
        "largest_window": largest,
        "refused_ranges": node.refused,
        "exchanges": node.exchanges,
        "sub_accounts": USERS,
    }


def get_rss_mib() -> int:
    """The most that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--store", default="", help="URL or path; a new SQLite file by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or str(Path(folder) / "index.sqlite3")
        found = asyncio.run(measure(arguments.events, store))
    for name, value in found.items():
        print(f"{name:20} {value:>12}", file=sys.stderr)
    print(json.dumps(found))
    sys.exit(1 if found["missing_units"] else 0)


if __name__ == "__main__":
    main()
