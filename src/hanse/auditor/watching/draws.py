"""Which kept answers are audited: drawn after the receipt, so that no provider can foresee it.

Two draws, the same arithmetic (`hanse.protocol.commitments.lottery`):

- **by the chain**, where both sides' receipt is in a recorder's root: a later block's hash decides.
  Everybody draws alike, so a draw that was passed over can be shown to others.
- **by the buyer's own secret**, where no record has come, or the chain's draw has passed over it: a
  keyed hash of the receipt. The provider cannot foresee it, the proposer of no block can bend it,
  and a restart draws the same again. But nobody else can check it, and evidence does not need
  that: it stands by itself.

Either is enough. A recorder in league with a provider may put one receipt under several roots and
show the one whose block passes it over, so the chain's draw can only add audits, never keep one
from happening. It costs up to twice the audits where receipts are recorded.
"""

import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from hanse.auditor.drawing import DETECTION_PPM, find_block
from hanse.chain import Deployment, Registry, Rpc
from hanse.chain.keys import write_new_file
from hanse.chain.records import Records
from hanse.protocol.commitments.lottery import (
    PPM,
    Exposure,
    find_audit_rate_ppm,
    get_deciding_block,
    is_drawn,
)
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import Address, Hash32
from hanse.sdk.receipt_file import export_receipt
from hanse.sdk.record_file import verify_record_document
from hanse.settlement.books.voucher_records import StoredReceipt, StoredVoucher
from hanse.settlement.records.chain_check import ChainRecords
from hanse.settlement.records.sources import get_receipt_digest
from hanse.verification.audits.schedule import Draw

OWN = "own secret"
"""What decided, where no record was there in time or its block passed over the answer."""

SECRET_BYTES = 32

Prove = Callable[[SignedReceipt, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Makes the record file of a receipt (its file beside it); RequestError `not_found` if there is no
record yet."""


@dataclass(frozen=True)
class Record:
    """How a provider's audits by this home went.

    Attributes:
        clean: audits that found nothing since the last that did.
        failed: audits that found a cheat.
    """

    clean: int = 0
    failed: int = 0

    def add(self, *, is_failed: bool) -> "Record":
        """With one more."""
        if is_failed:
            return Record(0, self.failed + 1)
        return replace(self, clean=self.clean + 1)


@dataclass(frozen=True)
class Decision:
    """What became of one answer.

    Attributes:
        draw: due, passed over, or waiting for a block.
        rate_ppm: at which it was drawn.
        by: what decided: `block 123`, or `own secret`.
    """

    draw: Draw
    rate_ppm: int
    by: str = ""


@dataclass(frozen=True)
class DrawRules:
    """What the buyer decides about draws.

    Attributes:
        least_ppm: of its answers, at least so many are audited whatever the stake.
        window_requests: that a provider finishes before a first finding takes effect.
        record_wait_s: for a receipt's record; then the buyer's own secret decides.
    """

    least_ppm: int = 0
    window_requests: int = 100
    record_wait_s: float = 120.0


class Draws:
    """Decides about answers of one user; see the module."""

    def __init__(
        self,
        rpc: Rpc,
        deployment: Deployment,
        rules: DrawRules,
        secret: Hash32,
        prove: Prove | None,
    ) -> None:
        """Draw by the chain behind `rpc`; `prove` is None where this market has no recorder."""
        self._rpc, self._rules, self._secret, self._prove = rpc, rules, secret, prove
        self._domain = Domain(deployment.chain_id, deployment.escrow)
        self._registry = Registry(rpc, deployment.registry)
        self._records = ChainRecords(
            rpc, Records(rpc, deployment.records), deployment.confirmations
        )

    async def decide(
        self, voucher: StoredVoucher, receipt: StoredReceipt, record: Record, waited_s: float
    ) -> Decision:
        """Whether this answer is audited.

        Args:
            voucher: of it.
            receipt: of it.
            record: of its provider.
            waited_s: since it was seen first.

        Raises:
            TransientError: the chain's node does not answer.
        """
        signed = receipt.signed.receipt
        rate_ppm = await self._get_rate_ppm(signed.provider, signed.fee, signed.sequence, record)
        digest = get_receipt_digest(receipt.signed, self._domain)
        committed = await self._find_commit(voucher, receipt)
        if committed is None:
            if self._prove is not None and waited_s < self._rules.record_wait_s:
                return Decision(Draw.WAITING, rate_ppm)
            return _draw(self._secret, digest, rate_ppm, OWN)
        number = get_deciding_block(committed)
        if number > await self._records.fetch_block():
            return Decision(Draw.WAITING, rate_ppm)
        (header,) = await self._rpc.fetch_headers_at([number])
        by_chain = _draw(header.hash, digest, rate_ppm, f"block {number}")
        own = _draw(self._secret, digest, rate_ppm, OWN)
        return own if by_chain.draw is Draw.PASSED and own.draw is Draw.DUE else by_chain

    async def _find_commit(self, voucher: StoredVoucher, receipt: StoredReceipt) -> int | None:
        """The block that holds the commit of this receipt's record, from the chain.

        A recorder's proof that does not hold is none: a recorder in league with the provider must
        not keep its answers from being drawn.
        """
        if self._prove is None:
            return None
        document = export_receipt(self._domain, voucher, receipt)
        try:
            made = await self._prove(receipt.signed, document)
            record = verify_record_document(msgspec.json.encode(made))
            return await find_block(self._records, record)
        except VerificationError:
            return None
        except RequestError as error:
            if error.code != "not_found":
                raise
            return None

    async def _get_rate_ppm(
        self, provider: Address, fee: int, receipts: int, record: Record
    ) -> int:
        """The rate from which cheating does not pay; all of a provider that none deters."""
        block = await self._records.fetch_block()
        stake = (await self._registry.read_provider(provider, block=block)).stake
        window = self._rules.window_requests
        found = find_audit_rate_ppm(
            Exposure(stake, fee, DETECTION_PPM, window, receipts, record.clean, record.failed)
        )
        return PPM if found is None else max(found, self._rules.least_ppm)


def _draw(seed: Hash32, digest: Hash32, rate_ppm: int, by: str) -> Decision:
    return Decision(Draw.DUE if is_drawn(seed, digest, rate_ppm) else Draw.PASSED, rate_ppm, by)


def open_secret(path: Path) -> Hash32:
    """The secret of the buyer's own draw, made on first use (mode 0600).

    Raises:
        RequestError: `configuration_invalid` if the file holds something else.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        write_new_file(path, lambda: secrets.token_hex(SECRET_BYTES).encode())
    text = path.read_text().strip()
    if len(text) != 2 * SECRET_BYTES:
        raise RequestError(
            "configuration_invalid",
            f"{path} does not hold {2 * SECRET_BYTES} hex digits: remove it",
        )
    return "0x" + text
