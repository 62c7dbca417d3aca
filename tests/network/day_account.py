"""What a day has come to: both sides' books, the chain, and the files for a stranger.

    account = await read_account(day)      # from databases by plain SQL, and from the chain
    verify_account(account)                # every rule that must hold
    files = await write_files(day)         # record files, and the chain's word on the commits
    document = await run_checker(files)    # by a program that shares no code with the package

The databases are read apart from the code that keeps them, as in `tests/network/books.py`.
"""

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.chain.asset import Asset
from hanse.chain.deployment import open_records
from hanse.chain.records import Committed, parse_committed
from hanse.chain.registry import Registry
from hanse.contracts import decode_results
from hanse.sdk.record_file import export_record
from tests.network.day import FUNDED, PROVIDERS, REFUND, REFUNDED, Day
from tests.provider.chain_parts import STAKE

CHECKER = Path(__file__).parents[2] / "examples" / "verify_receipts.py"
FILES_PER_RUN = 500
"""Paths of one command line."""


@dataclass(frozen=True)
class Settlement:
    """One settlement transaction, and where the recorder's chain stood in its block."""

    provider: str
    transaction_hash: str
    block: int
    paid: int
    claims: int
    gas: int
    records_head: bytes
    head_on_chain: bytes


@dataclass(frozen=True)
class Units:
    """Base units by place, at one block."""

    minted: int
    user_wallets: int
    accounts: int
    sub_accounts: int
    claimed: dict[str, int]
    payees: dict[str, int]
    escrow: int
    registry: int
    others: int


@dataclass(frozen=True)
class DayAccount:
    """All of it. Receipts as JSON of the wire, by (user's name, provider's name) in sequence."""

    at_users: dict[tuple[str, str], list[dict[str, Any]]]
    at_providers: dict[tuple[str, str], list[dict[str, Any]]]
    is_open: bool
    settlements: list[Settlement]
    settled_early: int
    commits: list[Committed]
    commits_after_watch: list[int]
    refunded: int
    units: Units
    wishes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def receipts(self) -> list[dict[str, Any]]:
        """All of the users' side."""
        return [receipt for group in self.at_users.values() for receipt in group]

    def get_fees(self, *, user: str = "", provider: str = "") -> int:
        """Sum of fees, of one user or provider or of all."""
        return sum(
            int(receipt["fee"])
            for (of_user, of_provider), group in self.at_users.items()
            for receipt in group
            if user in ("", of_user) and provider in ("", of_provider)
        )

    def count_reason(self, reason: str) -> int:
        """How many answers ended so."""
        return sum(receipt["finish_reason"] == reason for receipt in self.receipts)


async def read_account(day: Day) -> DayAccount:
    """Read books and chain."""
    at_users, at_providers, is_open = _read_books(day)
    head = (await day.market.rpc.fetch_head()).number
    refunded = await day.market.escrow.read_account(
        day.get_user(REFUNDED).wallet.address, block=head
    )
    return DayAccount(
        at_users,
        at_providers,
        is_open,
        await _read_settlements(day),
        len(day.settled_early),
        await read_commits(day),
        list(day.commits_after_watch),
        refunded,
        await _read_units(day),
        {user.name: list(user.wishes) for user in day.users},
    )


def verify_account(account: DayAccount) -> None:
    """The rules of the day; an AssertionError names the one that does not hold."""
    assert account.at_users == account.at_providers, "both sides hold the same receipts"
    assert not account.is_open, "nothing is at work or unknown on either side"
    for receipts in account.at_users.values():
        total = 0
        for number, receipt in enumerate(receipts, 1):
            total += int(receipt["fee"])
            assert (int(receipt["sequence"]), int(receipt["cumulative_fee"])) == (number, total)
    assert len(account.receipts) == sum(len(wishes) for wishes in account.wishes.values())

    assert account.settled_early == 0, "nothing is settled before the day is over"
    assert sorted(s.provider for s in account.settlements) == sorted(PROVIDERS), "one a provider"
    for settled in account.settlements:
        assert settled.paid == account.get_fees(provider=settled.provider) > 0
        assert settled.records_head == settled.head_on_chain == account.commits[-1].head

    before = 0
    for commits in account.commits_after_watch[:-1]:
        assert commits > before, "each watch in which somebody buys has its root"
        before = commits
    assert len(account.commits) == before, "and the last, in which nobody does, has none"
    assert sum(commit.count for commit in account.commits) == len(account.receipts)
    assert sum(commit.fee_total for commit in account.commits) == account.get_fees()

    _verify_units(account)


def _verify_units(account: DayAccount) -> None:
    """Every unit that was minted is somewhere, and where it has to be."""
    units, fees = account.units, account.get_fees()
    paid_in = FUNDED * len(PROVIDERS) * len(account.wishes)
    assert units.minted == paid_in + STAKE * len(PROVIDERS)
    assert (units.others, units.user_wallets) == (0, 0)
    assert units.registry == STAKE * len(PROVIDERS)
    assert units.escrow == units.accounts + units.sub_accounts == paid_in - fees
    assert units.claimed == units.payees
    assert units.claimed == {name: account.get_fees(provider=name) for name in PROVIDERS}
    assert (account.refunded, units.accounts) == (REFUND, REFUND)


async def read_commits(day: Day) -> list[Committed]:
    """The recorder's commits, by the chain."""
    records = open_records(day.market.rpc, day.market.deployment)
    head = await day.market.rpc.fetch_head()
    logs = await day.market.rpc.fetch_logs([records.address], first=0, last=head.number)
    found = [parse_committed(records.contract.find_event(log, 0)) for log in logs]  # type: ignore[arg-type]
    assert {commit.recorder for commit in found} <= {day.recorder.recorder.address}
    return found


@dataclass(frozen=True)
class Files:
    """For the checker: one record file a receipt, and the node's answer about the commits."""

    records: list[Path]
    commits: Path


async def write_files(day: Day, folder: Path) -> Files:
    """Export every receipt of every user with its proof, as `hanse receipts prove`."""
    records = day.market.deployment.records
    paths = []
    for user in day.users:
        assert user.hanse.records is not None
        for stored in await user.hanse.get_receipts(limit=1_000):
            r = stored.signed.receipt
            assert stored.request_id is not None
            known = await user.hanse.records.book.find_entry(
                (r.user, r.provider, r.signer, r.sequence)
            )
            assert known is not None
            assert known.proof is not None
            document = export_record(
                await user.hanse.export_receipt(stored.request_id), known.proof, records
            )
            paths.append(folder / f"{user.name}-{r.provider[2:8]}-{r.sequence}.json")
            paths[-1].write_text(json.dumps(document))
    commits = folder / "commits.logs"
    answer = {"jsonrpc": "2.0", "id": 1, "result": await day.fetch_commit_logs()}
    commits.write_text(json.dumps(answer))
    return Files(paths, commits)


async def run_checker(files: Files) -> tuple[int, dict[str, Any]]:
    """`examples/verify_receipts.py` on all files; its exit code and its document.

    -I and -S: neither this folder nor any installed package can be imported by it.
    """
    assert len(files.records) <= FILES_PER_RUN
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(CHECKER), "--json", "--commits", str(files.commits)),
        *map(str, files.records),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode in (0, 8), stderr.decode()
    return process.returncode, json.loads(stdout)


def _read_books(day: Day) -> tuple[Any, Any, bool]:
    user_names = {user.wallet.address: user.name for user in day.users}
    names = {seller.owner.address: seller.name for seller in day.sellers}
    at_users: dict[tuple[str, str], list[Any]] = {}
    at_providers: dict[tuple[str, str], list[Any]] = {}
    open_ones = 0
    for user in day.users:
        path = day.folder / f"{user.name}.db"
        for provider, receipt in _read(
            path,
            "SELECT s.provider, r.receipt FROM voucher_receipts r JOIN voucher_sub_accounts s "
            "ON s.number = r.sub_account ORDER BY s.provider, r.sequence",
        ):
            at_users.setdefault((user.name, names[provider]), []).append(json.loads(receipt))
        ((waiting, conflicts),) = _read(
            path,
            "SELECT (SELECT COUNT(*) FROM vouchers WHERE state = 'issued'), "
            "(SELECT COUNT(*) FROM voucher_conflicts)",
        )
        open_ones += waiting + conflicts
    for seller in day.sellers:
        path = day.folder / seller.name / "broker.sqlite3"
        for address, receipt in _read(
            path,
            "SELECT s.user_address, r.receipt FROM receipt_requests r JOIN receipt_sub_accounts s "
            "ON s.number = r.sub_account WHERE r.receipt IS NOT NULL ORDER BY r.sequence",
        ):
            group = at_providers.setdefault((user_names[address], seller.name), [])
            group.append(json.loads(receipt))
        ((at_work,),) = _read(path, "SELECT COUNT(*) FROM receipt_requests WHERE receipt IS NULL")
        open_ones += at_work
    return at_users, at_providers, open_ones > 0


def _read(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(statement).fetchall()


async def _read_settlements(day: Day) -> list[Settlement]:
    rpc = day.market.rpc
    records = open_records(rpc, day.market.deployment)
    names = {seller.owner.address: seller.name for seller in day.sellers}
    found = []
    for event in await day.read_events("Settled"):
        receipt = await rpc.fetch_receipt(event.transaction_hash)
        assert receipt is not None
        head = await records.read_head(day.recorder.recorder.address, block=event.block_number)
        results = decode_results(event.fields["results"])
        assert sum(result.paid for result in results) == event.fields["paid"]
        found.append(
            Settlement(
                names[event.fields["provider"]],
                event.transaction_hash,
                event.block_number,
                int(event.fields["paid"]),
                len(results),
                receipt.gas_used,
                event.fields["records_head"],
                head.head,
            )
        )
    return found


async def _read_units(day: Day) -> Units:
    market = day.market
    rpc, escrow, deployment = market.rpc, market.escrow, market.deployment
    asset, registry = Asset(rpc, deployment.asset), Registry(rpc, deployment.registry)
    block = (await rpc.fetch_head()).number

    async def sum_of(*addresses: str) -> int:
        return sum([await asset.read_balance(address, block=block) for address in addresses])

    accounts = sub_accounts = 0
    claimed = dict.fromkeys(PROVIDERS, 0)
    for user in day.users:
        accounts += await escrow.read_account(user.wallet.address, block=block)
        for seller in day.sellers:
            found = await escrow.read_sub_account(
                user.wallet.address, seller.owner.address, user.signer.address, block=block
            )
            sub_accounts += found.balance
            claimed[seller.name] += found.claimed
    for seller in day.sellers:
        info = await registry.read_provider(seller.owner.address, block=block)
        assert (info.stake, info.payee) == (STAKE, seller.owner.address)
    (minted,) = await asset.contract.read("totalSupply", block=block)
    return Units(
        int(minted),
        await sum_of(*(user.wallet.address for user in day.users)),
        accounts,
        sub_accounts,
        claimed,
        {seller.name: await sum_of(seller.owner.address) for seller in day.sellers},
        await sum_of(deployment.escrow),
        await sum_of(deployment.registry),
        await sum_of(market.receipt.address, day.recorder.recorder.address, deployment.records),
    )
