"""What a look for cheats costs a user's side: processor time, by sub-accounts and receipts.

    make bench-disputes          # one JSON line a case

The database is a real file filled with receipts that an honest provider signed; nothing is found,
as it should be. The look is `hanse.settlement.disputes.reading.read_findings`, which the user's
side makes every 5 s.
"""

import asyncio
import json
import tempfile
import time
from pathlib import Path

import msgspec

from hanse.chain import Key
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import FinishReason, Receipt, SignedReceipt, Usage
from hanse.protocol.signatures import ZERO_HASH, to_hex
from hanse.protocol.wire import receipt_to_json
from hanse.settlement.books.voucher_book import open_voucher_book
from hanse.settlement.disputes.dispute_book import open_dispute_book
from hanse.settlement.disputes.findings import Claimed
from hanse.settlement.disputes.reading import read_findings
from hanse.store.database import Database, Transaction
from hanse.store.sqlite import open_sqlite

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
USER, SIGNER, KEY = "0x" + "a1" * 20, "0x" + "b1" * 20, Key(b"\x02" * 32)
CASES = ((1, 1_000), (1, 100_000), (100, 1_000), (1_000, 100))
"""(sub-accounts, receipts of each)."""

LOOKS = 20


def _sign(provider: str, sequence: int) -> str:
    receipt = Receipt(
        USER,
        provider,
        SIGNER,
        sequence,
        to_hex(sequence.to_bytes(32, "big")),
        ZERO_HASH,
        Usage(10, 0, 10),
        7,
        7 * sequence,
        FinishReason.STOP,
        1_800_000_000,
        ZERO_HASH,
    )
    # signed once for all: a look does not check signatures, which were checked when it came
    signed = SignedReceipt(receipt, _SIGNATURE)
    return msgspec.json.encode(receipt_to_json(signed)).decode()


_SIGNATURE = KEY.sign_digest(bytes(32))


def _fill(tx: Transaction, accounts: int, receipts: int) -> None:
    for number in range(accounts):
        provider = to_hex(number.to_bytes(20, "big"))
        tx.execute(
            "INSERT INTO voucher_sub_accounts VALUES (?, ?, ?, ?, ?, ?, 0, '0', ?, ?, 0, '')",
            (number, USER, provider, SIGNER, receipts, str(7 * receipts), "0", receipts),
        )
        for sequence in range(1, receipts + 1):
            encoded = _sign(provider, sequence)
            tx.execute(
                "INSERT INTO voucher_receipts VALUES (?, ?, NULL, ?, ?, '7', ?, NULL, 'verified', "
                "'', 1, 1)",
                (number, sequence, ZERO_HASH, encoded, str(7 * sequence)),
            )


async def _measure(database: Database, accounts: int, receipts: int) -> float:
    """Milliseconds of processor time of one look, half of the receipts claimed."""
    half = Claimed(7 * (receipts // 2), receipts // 2)
    claimed = {(to_hex(n.to_bytes(20, "big")), SIGNER): half for n in range(accounts)}
    before = time.process_time()
    for _ in range(LOOKS):
        assert await read_findings(database, USER, claimed) == []
    return 1_000 * (time.process_time() - before) / LOOKS


async def run() -> None:
    """All cases, one line each."""
    for accounts, receipts in CASES:
        with tempfile.TemporaryDirectory() as folder:
            database = await open_sqlite(Path(folder) / "user.db")
            await open_voucher_book(database, DOMAIN)
            await open_dispute_book(database, DOMAIN)
            await database.write(lambda tx, a=accounts, r=receipts: _fill(tx, a, r))
            look_ms = await _measure(database, accounts, receipts)
            await database.close()
        case = {"sub_accounts": accounts, "receipts_each": receipts, "look_ms": round(look_ms, 2)}
        print(json.dumps(case), flush=True)


if __name__ == "__main__":
    asyncio.run(run())
