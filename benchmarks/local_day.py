"""A day of a local market in a minute, with an account of it: who bought, who earned, what holds.

    make day                 # the account on standard error, one JSON line on standard output

It is the day of `tests/network/day.py`: two providers, ten users, one recorder, a real chain whose
clock is moved, an engine that is a fake. At its end every rule is checked, and every receipt by
`examples/verify_receipts.py`; the exit code is 1 if anything does not hold.
"""

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.network.day import PROVIDERS, open_day
from tests.network.day_account import (
    DayAccount,
    read_account,
    run_checker,
    verify_account,
    write_files,
)

ROOT = Path(__file__).parents[1]


async def main() -> int:
    """Play the day, show it, check it."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)

    logging.getLogger("hanse").setLevel(logging.ERROR)  # "tried again" belongs to a broker's log
    cache = Path(os.environ.get("HANSE_HOME") or ROOT / ".hanse")
    say("starting a chain, contracts, a recorder and two brokers with a fake engine (echo) ...")
    with tempfile.TemporaryDirectory() as folder:
        async with open_day(Path(folder), cache, say) as day:
            await day.play()
            account = await read_account(day)
            files = await write_files(day, Path(folder))
        say("everything is stopped; a program without the package checks the files ...")
        code, said = await run_checker(files)
    show(account, said)
    failures = list(said["failures"])
    try:
        verify_account(account)
    except AssertionError as error:
        failures.append(str(error) or "a rule of the day does not hold; see the traceback")
        logging.exception("a rule of the day does not hold")
    say("every rule holds" if not failures else "; ".join(failures))
    print(json.dumps(summarise(account, said, failures, time.monotonic() - started)))
    return 1 if failures or code else 0


def summarise(
    account: DayAccount, said: dict[str, Any], failures: Sequence[str], seconds: float
) -> dict[str, Any]:
    """The JSON line. Amounts are base units, as digits."""
    reasons = sorted({receipt["finish_reason"] for receipt in account.receipts})
    return {
        "users": len(account.wishes),
        "providers": len(PROVIDERS),
        "answers": len(account.receipts),
        "finish_reasons": {reason: account.count_reason(reason) for reason in reasons},
        "fees": str(account.get_fees()),
        "roots": len(account.commits),
        "settlements": len(account.settlements),
        "claims": sum(settled.claims for settled in account.settlements),
        "settlement_gas": sum(settled.gas for settled in account.settlements),
        "paid": str(sum(settled.paid for settled in account.settlements)),
        "refunded": str(account.refunded),
        "verified": said["verified"],
        "recorded": said["recorded"],
        "failures": list(failures),
        "seconds": round(seconds, 1),
    }


def show(account: DayAccount, said: dict[str, Any]) -> None:
    """The tables. Amounts are in whole units of the test asset, which has six decimals."""
    rows = []
    for name, wishes in account.wishes.items():
        kinds = ("whole", "stream", "cut", "failed")
        counts = [sum(wish.startswith(kind) for wish in wishes) for kind in kinds]
        fees = [_format(account.get_fees(user=name, provider=provider)) for provider in PROVIDERS]
        rows.append([name, *counts, *fees, _format(account.get_fees(user=name))])
    paid = [f"to {provider}" for provider in PROVIDERS]
    _show_table("Users", ["user", "whole", "streamed", "cut", "failed", *paid, "in all"], rows)

    rows = [
        [commit.number, commit.count, _format(commit.fee_total), commit.root.hex()[:16]]
        for commit in account.commits
    ]
    _show_table("Roots of the recorder", ["commit", "receipts", "fees", "root"], rows)

    rows = []
    for settled in account.settlements:
        receipts = sum(len(group) for key, group in account.at_users.items()
                       if key[1] == settled.provider)  # fmt: skip
        row = [settled.provider, receipts, settled.claims, _format(settled.paid), settled.gas]
        rows.append([*row, settled.records_head.hex()[:16]])
    heads = ["provider", "receipts", "claims", "paid", "gas", "records head"]
    _show_table("Settlements, one a provider, decided by its own scheduler", heads, rows)

    units = account.units
    rows = [
        ["users' sub-accounts", _format(units.sub_accounts)],
        ["users' accounts (the refund)", _format(units.accounts)],
        *([f"wallet of {name}", _format(amount)] for name, amount in units.payees.items()),
        ["stakes in Registry", _format(units.registry)],
        ["minted", _format(units.minted)],
    ]
    _show_table("Where every unit is", ["place", "amount"], rows)
    print(
        f"\n  examples/verify_receipts.py: {said['verified']} receipts verified, "
        f"{said['recorded']} held against {len(account.commits)} commits of the chain, "
        f"{len(said['failures'])} failures\n",
        file=sys.stderr,
    )


def _format(amount: int) -> str:
    return f"{amount // 10**6}.{amount % 10**6:06d}"


def _show_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    lines = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    print(f"\n  {title}", file=sys.stderr)
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("    " + "  ".join(cells), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
