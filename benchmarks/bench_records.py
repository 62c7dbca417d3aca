"""How fast one recorder takes, commits and proves: `make bench-records`.

Entries of both sides go into a fresh book in submissions of 500, then one commit over all of them
is prepared and 500 proofs are asked for twice. No network and no chain: those are a request for
each 500 entries, and one transaction. Prints one JSON line.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from hanse.protocol.eip712 import Domain
from hanse.protocol.records import RecordEntry, Side
from hanse.recorder.book import open_recorder_book
from hanse.store import open_sqlite

RECEIPTS = 65_536
"""As many as one root has at most."""

PER_SUBMISSION = 500
PER_SUB_ACCOUNT = 1_000


def make_entry(number: int) -> RecordEntry:
    provider = "0x" + f"{number // PER_SUB_ACCOUNT:040x}"
    digest = "0x" + f"{number:064x}"
    return RecordEntry("0x" + "a1" * 20, provider, "0x" + "c3" * 20, number + 1, digest, 3)


async def measure(path: Path, receipts: int) -> dict[str, float]:
    database = await open_sqlite(path)
    domain = Domain(31_337, "0x" + "e5" * 20)
    book = await open_recorder_book(database, "0x" + "cc" * 20, domain, "0x" + "dd" * 20)
    entries = [make_entry(number) for number in range(receipts)]
    cpu, wall = time.process_time(), time.perf_counter()
    for first in range(0, receipts, PER_SUBMISSION):
        batch = entries[first : first + PER_SUBMISSION]
        for side in Side:
            await book.take(side, batch, commit_by=50, now_s=1)
    took, took_cpu = time.perf_counter() - wall, time.process_time() - cpu
    cpu, wall = time.process_time(), time.perf_counter()
    commit = await book.prepare_commit()
    assert commit is not None
    assert commit.count == receipts, "not everything matched"
    prepared, prepared_cpu = time.perf_counter() - wall, time.process_time() - cpu
    await book.confirm_commit(commit.number, "0x" + "77" * 32, 5)
    proofs = []
    for _ in range(2):
        wall = time.perf_counter()
        found = await book.find_proofs(entries[:PER_SUBMISSION])
        assert None not in found, "a committed receipt has no proof"
        proofs.append(time.perf_counter() - wall)
    await database.close()
    return {
        "receipts": receipts,
        "entries_per_s": round(2 * receipts / took),
        "entries_per_cpu_s": round(2 * receipts / took_cpu),
        "prepare_s": round(prepared, 2),
        "prepare_cpu_s": round(prepared_cpu, 2),
        "first_500_proofs_s": round(proofs[0], 3),
        "next_500_proofs_s": round(proofs[1], 3),
        "load_average": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else RECEIPTS
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "recorder.db"
        measured = asyncio.run(measure(database, count))
        print(json.dumps({**measured, "bytes_per_receipt": round(database.stat().st_size / count)}))
