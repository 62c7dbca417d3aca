"""Bills without their commitment, out of the book into the folder of evidence.

    await write_broken(parts, looked)     how many files are new

Nothing is drawn and nothing is run: the book has all that was signed, and shows each by itself
(`hanse.protocol.commitments.promises`).
"""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hanse.auditor.purchases import show_breach
from hanse.auditor.watching.evidence_files import get_evidence_path, write_whole
from hanse.protocol.signatures import Hash32
from hanse.sdk.receipt_file import export_receipt
from hanse.settlement.books.voucher_records import StoredReceipt, Verification
from hanse.verification.evidence.files import get_evidence_hash

if TYPE_CHECKING:
    from hanse.auditor.watching.watcher import WatcherParts

_FAR_S = 2**40

PAGE = 100
"""Receipts that are read at once, newest first."""

PAGES_MAX = 50
"""Of one round: 5,000 receipts, as many as may have come while an answer was audited or the watcher
was down. A provider is left after three such bills."""

OVERLAP_S = 60
"""So much before what was looked at last: a receipt may be booked a little late."""


@dataclass
class Looked:
    """What was looked at: receipts up to a time, by the book's clock, and bills that are done."""

    until_s: int = 0
    done: set[Hash32] = field(default_factory=set)


async def write_broken(parts: "WatcherParts", looked: Looked) -> int:
    """Write a file for each bill without its commitment that has none yet; returns how many.

    Raises:
        TransientError: the folder cannot be written.
    """
    written, newest_s = 0, looked.until_s
    for page in range(PAGES_MAX):
        receipts = await parts.book.list_receipts(before=_FAR_S, limit=PAGE, offset=page * PAGE)
        for receipt in receipts:
            newest_s = max(newest_s, receipt.received_at)
            name = receipt.request_id
            is_broken = receipt.verification is Verification.UNCOMMITTED
            if is_broken and name is not None and name not in looked.done:
                written += await _write(parts, name, receipt)
                looked.done.add(name)
        if len(receipts) < PAGE or receipts[-1].received_at < looked.until_s - OVERLAP_S:
            break
    looked.until_s = newest_s
    return written


async def _write(parts: "WatcherParts", name: Hash32, receipt: StoredReceipt) -> bool:
    path, voucher = get_evidence_path(parts.evidence, name), await parts.book.find_voucher(name)
    if path.exists() or voucher is None:
        return False
    data = show_breach(export_receipt(parts.domain, voucher, receipt), parts.signer)
    if data is None:
        return False
    await asyncio.to_thread(write_whole, path, data)
    provider = voucher.sub_account.provider
    parts.tell(
        {
            "event": "uncommitted",
            "request_id": name,
            "provider": provider,
            "evidence": str(path),
            "evidence_hash": get_evidence_hash(data),
        },
        f"uncommitted: {provider} billed request {name} without its commitment; {path}",
    )
    return True
