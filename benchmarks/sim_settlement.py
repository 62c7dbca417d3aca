"""A day of n users on an in-process EVM, settled and recorded: `make sim-settlement USERS=n`.

    python -m benchmarks.sim_settlement --users 1000 --requests 20 --gas-price-gwei 0.001

Real: the bytecode of Escrow, Registry, Records and the test asset; every user's own `open`; every
voucher's signature (EIP-712, secp256k1) and its recovery on the EVM; packing of claims
(`contracts/claims.py`); planning and scheduling (`settlement/netting`); roots and heads of records
(`protocol/records`); gas, each transaction on cold storage under the Prague rules, calldata floor
included.

Simulated: the clock (ticks of ten minutes); requests, which are counts and fees drawn from a seed
and kept in memory, so that a record's leaf stands for one user's receipts of one tick; the node. No
book, outbox or network is between the scheduler and the EVM: those are other tests' matter.

A user's requests of the day are lognormal with sigma 1.5 around the given mean, at least one and at
most 20,000: the median user has a third of the mean, one in a hundred has eleven times the mean. A
fee is a user's own price of 4,000 to 6,250 base units. One user in a thousand asks for all that is
unspent back and stops; what it owes is settled before its refund unlocks.

Progress and a table go to standard error; standard output ends with one JSON object.
"""

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.settlement_market import START_S, SimulatedChain, SimulatedSettler
from hanse.settlement.netting.gas import GasMarket, SettlementRules
from hanse.settlement.netting.round_storage import MemoryRoundStorage
from hanse.settlement.netting.scheduler import Scheduler

TICK_S = 600
TICKS = 86_400 // TICK_S
SIGMA = 1.5
REQUESTS_MAX = 20_000
DRAWS_MAX = 2 * TICKS
"""Moments of the day at which one user's requests come, at most; a busy user has several at one."""

FEE_MIN, FEE_MAX = 4_000, 6_250
REFUNDS_PER_MILLE = 1
NATIVE_PRICE = 2_500 * 10**6
"""Base units of an asset of six decimals for one native coin."""

BLOCK_GAS = 30_000_000


def main() -> int:
    options = parse_options()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>24}"), BarColumn(), MofNCompleteColumn())
    started = time.monotonic()
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        result = asyncio.run(simulate(options, progress))
    result["seconds"] = round(time.monotonic() - started, 1)
    table = Table(title=f"A day of {options.users:,} users, settled on an EVM")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in result.items():
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name.replace("_", " "), shown)
    console.print(table)
    print(json.dumps(result))
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Simulate a day of settlement on an EVM.")
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--requests", type=float, default=20.0, help="a user and day, mean")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gas-price-gwei", type=float, default=0.001)
    parser.add_argument("--gas-percent", type=float, default=1.0)
    options = parser.parse_args()
    if not 1 <= options.users <= 1_000_000 or not 0 < options.requests <= REQUESTS_MAX:
        parser.error(f"1 .. 1,000,000 users with up to {REQUESTS_MAX} requests")
    return options


async def simulate(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    rng = random.Random(options.seed)
    fees, ticks, leaving = draw_day(rng, options.users, options.requests)
    chain = SimulatedChain()
    settler = SimulatedSettler(chain, options.users)
    task = progress.add_task("opening sub-accounts", total=options.users)
    spent = [0] * options.users
    for tick in ticks:
        for user, count in tick.items():
            spent[user] += count * fees[user]
    settler.open_all(spent, lambda done: progress.update(task, completed=done))
    market = GasMarket(round(options.gas_price_gwei * 10**9), BLOCK_GAS, 0)

    async def fetch_market() -> GasMarket:
        return GasMarket(market.gas_price_wei, BLOCK_GAS, chain.now_s)

    rules = SettlementRules(
        native_price=NATIVE_PRICE, gas_share_ppm=round(options.gas_percent * 10_000)
    )
    scheduler = Scheduler(settler, rules, fetch_market, MemoryRoundStorage())  # type: ignore[arg-type]
    task = progress.add_task("ticks of ten minutes", total=TICKS + 2)
    requests = 0
    for number in range(TICKS + 2):
        chain.now_s = START_S + (number + 1) * TICK_S
        if number < TICKS:
            requests += settler.receive(ticks[number], fees, number)
            settler.leave(leaving.get(number, ()))
        await scheduler.look()
        progress.update(task, completed=number + 1)
    waiting = await settler.read_payable()
    settler.verify()
    chain.server.close()
    return describe(options, settler, requests, waiting, rules)


def draw_day(
    rng: random.Random, users: int, mean: float
) -> tuple[list[int], list[Counter[int]], dict[int, list[int]]]:
    """Each user's price of a request, each tick's requests by user, and who leaves at which."""
    fees = [rng.randint(FEE_MIN, FEE_MAX) for _ in range(users)]
    ticks: list[Counter[int]] = [Counter() for _ in range(TICKS)]
    leaving: dict[int, list[int]] = {}
    for user in range(users):
        drawn = rng.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA)
        count = max(1, min(REQUESTS_MAX, round(drawn)))
        end = TICKS
        if rng.random() * 1_000 < REFUNDS_PER_MILLE:
            end = rng.randrange(TICKS // 12, TICKS // 2)
            leaving.setdefault(end, []).append(user)
        draws = min(count, DRAWS_MAX)
        for draw in range(draws):
            ticks[rng.randrange(end)][user] += count // draws + (draw < count % draws)
    return fees, ticks, leaving


def describe(
    options: argparse.Namespace,
    settler: SimulatedSettler,
    requests: int,
    waiting: list[Any],
    rules: SettlementRules,
) -> dict[str, Any]:
    gas = settler.gas
    total = gas["settle"] + gas["commit"] + gas["refund"]
    value = sum(claim.payable for claim in waiting)
    sent = settler.transactions
    return {
        "users": options.users,
        "requests": requests,
        "gas_per_user": round(total / options.users, 1),
        "gas_per_request": round(total / requests, 2),
        "transactions": sum(sent.values()),
        "settlements": sent["settle"],
        "claims": settler.claims,
        "gas_per_claim": round(gas["settle"] / max(1, settler.claims), 1),
        "commits": sent["commit"],
        "gas_per_commit": round(gas["commit"] / max(1, sent["commit"])),
        "refunds_completed": sent["refund"],
        "gas_of_refunds": gas["refund"],
        "value_settled": settler.paid,
        "users_waiting": len(waiting),
        "value_waiting": value,
        "gas_price_gwei": options.gas_price_gwei,
        "gas_percent_of_value": round(
            100
            * gas["settle"]
            * round(options.gas_price_gwei * 10**9)
            * rules.native_price
            / 10**18
            / max(1, settler.paid),
            4,
        ),
        "requests_mean": options.requests,
        "seed": options.seed,
    }


if __name__ == "__main__":
    sys.exit(main())
