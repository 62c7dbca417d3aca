"""Bills without their commitment, out of the book into the folder of evidence.

    await write_broken(parts, seen)     how many files are new

Nothing is drawn and nothing is run: the book has all that was signed, and shows each by itself
(`hanse.protocol.commitments.promises`).
"""

import asyncio
from typing import TYPE_CHECKING

from hanse.auditor.purchases import show_breach
from hanse.auditor.watching.evidence_files import get_evidence_path, write_whole
from hanse.protocol.signatures import Hash32
from hanse.sdk.receipt_file import export_receipt
from hanse.settlement.books.voucher_records import Verification
from hanse.verification.evidence.files import get_evidence_hash

if TYPE_CHECKING:
    from hanse.auditor.watching.watcher import WatcherParts

_FAR_S = 2**40

LOOKED_MAX = 100
"""Newest receipts that a round looks through; a provider is left after three such bills."""


async def write_broken(parts: "WatcherParts", seen: set[Hash32]) -> int:
    """Write a file for each bill without its commitment that has none yet; returns how many.

    Raises:
        TransientError: the folder cannot be written.
    """
    written = 0
    for receipt in await parts.book.list_receipts(before=_FAR_S, limit=LOOKED_MAX, offset=0):
        name = receipt.request_id
        if receipt.verification is not Verification.UNCOMMITTED or name is None or name in seen:
            continue
        seen.add(name)
        path, voucher = get_evidence_path(parts.evidence, name), await parts.book.find_voucher(name)
        if path.exists() or voucher is None:
            continue
        data = show_breach(export_receipt(parts.domain, voucher, receipt), parts.signer)
        if data is None:
            continue
        await asyncio.to_thread(write_whole, path, data)
        written += 1
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
    return written
