"""What budgets cost a request: processor time of the gateway's process, one JSON line a case.

    make bench-budgets

Everything that a request passes of budgets is run in a row, with a real database file: admission,
the guard's reservation for one voucher and its end. The market in between does nothing.
"""

import asyncio
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hanse.gateway.budgets.admission import Budgets, open_budgets
from hanse.gateway.budgets.limits import Limits
from hanse.gateway.keys import KeyTerms, open_api_keys
from hanse.store import open_sqlite

REQUESTS = 20_000
ROUNDS = 3

ALL = Limits(*[10**9] * 6)
CASES = {
    "no limits": KeyTerms(),
    "one limit": KeyTerms(limits=Limits(requests_per_minute=10**9)),
    "all six of a key": KeyTerms(limits=ALL),
    "all of a key and an end user": KeyTerms(limits=ALL, user_limits=ALL),
}


async def sell() -> None:
    """A market that answers at once."""


async def find_free(_: Any, __: str) -> None:
    """No free answers."""


async def run_one(budgets: Budgets, sale: Any, request_id: str) -> None:
    """One request that takes one voucher."""
    await budgets.admit(sale)
    if budgets.guard.watches():
        await budgets.guard.reserve(request_id, 600, 1_000)
        budgets.guard.end(request_id, 50, 80)
    await budgets.run(sale, sell, find_free)


async def measure(path: Path) -> None:
    """Print a line a case."""
    database = await open_sqlite(path)
    keys = await open_api_keys(database, time.time)
    market: Any = SimpleNamespace()
    budgets = await open_budgets(database, keys, market, time.time)
    for name, terms in CASES.items():
        key, _ = await keys.create("bench", terms)
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"user":"player-1"}'
        sale = SimpleNamespace(
            key=key,
            fields=SimpleNamespace(model="m"),
            body=body,
            refused=None,
            exchange=SimpleNamespace(status=0),
        )
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time()
            for number in range(REQUESTS):
                await run_one(budgets, sale, str(number))
            best = min(best, time.process_time() - started)
        print(json.dumps({"limits": name, "cpu_us_per_request": round(best / REQUESTS * 1e6, 1)}))
    await budgets.ledger.close()
    await database.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder) / "gateway.db"))
