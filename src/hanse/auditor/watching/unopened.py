"""Openings that a broker owes and does not give: noted, or no cheat would ever give one.

    opening = await fetch_owed(parts, voucher, receipt)     UnopenedError: it gives none that fits
    await note_unopened(parts, name, error)                 what became of the answer

Nobody else can check that a broker gave none, so it is an observation of a failed request: a
twentieth of a word, and a quarter with all others. Our own draws count it like a failed audit, also
where nobody answered; of that nothing is signed, since it may be our own line that was down.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from hanse.auditor.openings import ask_opening
from hanse.auditor.watching.draws import Record
from hanse.auditor.watching.evidence_files import write_whole
from hanse.market.reputation import Word
from hanse.market.reputation.observation import Observation, sign_observation
from hanse.protocol.commitments.tree import decode_opening
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import ZERO_HASH, Hash32
from hanse.settlement.books.voucher_records import StoredVoucher

if TYPE_CHECKING:
    from hanse.auditor.watching.watcher import WatcherParts


UNREACHABLE = "provider_unreachable"

OF_THE_BROKER = frozenset({UNREACHABLE, "overloaded"})
"""What fails on its side, by the codes that `fetch_owed` raises: there are so many tries of it."""


class UnopenedError(RequestError):
    """A broker answered, and gave no opening of what it committed to."""


async def fetch_owed(
    parts: "WatcherParts", voucher: StoredVoucher, receipt: SignedReceipt
) -> bytes:
    """The opening of an answer, held to its receipt.

    Raises:
        UnopenedError: whatever the broker gave instead, an error of its choice or another opening.
        TransientError: `provider_unreachable`, nobody answers; `overloaded`, it has no time now,
            whatever code it gives.
        RequestError: nothing is owed: `unprocessable`, the receipt has no commitment; `usage`, the
            key is not the voucher's signer.
    """
    root = receipt.receipt.commitment_root
    if root == ZERO_HASH:
        raise RequestError("unprocessable", "its receipt has no commitment")
    if parts.signer.address != voucher.signed.signer:
        raise RequestError("usage", f"the request was signed by {voucher.signed.signer}")
    try:
        opening = await ask_opening(
            parts.domain, voucher, parts.signer, reaches_private=parts.reaches_private
        )
        decode_opening(opening, root)
    except TransientError as error:
        code = error.code if error.code == UNREACHABLE else "overloaded"
        raise TransientError(code, error.message) from None
    except HanseError as error:
        raise UnopenedError("not_found", f"it was not opened: {error.message}") from None
    return opening


async def note_unopened(parts: "WatcherParts", name: Hash32, error: HanseError) -> str:
    """Write an observation beside the evidence, and count it; returns what became of the answer.

    Raises:
        TransientError: `store_unavailable`.
    """
    voucher = await parts.book.find_voucher(name)
    assert voucher is not None  # it was asked for
    provider = voucher.sub_account.provider
    seen = Observation(
        provider, parts.signer.address, Word.REQUEST_FAILED, 0, name, int(time.time())
    )
    path = None
    if error.code != UNREACHABLE:
        path = parts.evidence / f"{name}-unopened.json"
        data = sign_observation(seen, parts.domain, parts.signer)
        await asyncio.to_thread(write_whole, path, data)
    parts.records[provider] = parts.records.get(provider, Record()).add(is_failed=True)
    parts.tell(
        {
            "event": "unopened",
            "request_id": name,
            "provider": provider,
            "evidence": str(path) if path else None,
            **error.to_openai()["error"],
        },
        f"unopened: {provider} gives no opening of request {name}: {error.message}",
    )
    return "unopened"
