"""Receipts that a provider signed and that are refused here: kept, since they may be evidence.

A broker that signs two receipts for one sequence shows them one after the other: in an answer, in a
402, in the resume handshake. Whichever comes second is refused. Both are needed to take its stake,
so every refused receipt that was really signed for one of this wallet's sub-accounts is kept.

Who sends rubbish, or what another key has signed, fills nothing.

Source: `docs/decisions/0016-disputes.md`.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import Address, recover_signer

_log = logging.getLogger(__name__)


class KeepRejected(Protocol):
    """Where refused receipts are kept: `DisputeBook.keep_rejected`."""

    async def __call__(self, signed: SignedReceipt, reason: str, now_s: int) -> bool:
        """Keep one, within bounds; returns whether it is new."""
        ...


class Capture:
    """Keeps what a provider signed against itself.

    Args:
        domain: of all signatures.
        user, signer: whose sub-accounts.
        is_receipt_key: whether a key is or ever was a provider's, as the chain shows it.
        keep: where to; None for nowhere.
        clock: unix seconds.
    """

    def __init__(
        self,
        domain: Domain,
        user: Address,
        signer: Address,
        is_receipt_key: Callable[[Address, Address], bool],
        keep: KeepRejected | None,
        clock: Callable[[], float],
    ) -> None:
        self._domain = domain
        self._names = (user, signer)
        self._is_receipt_key = is_receipt_key
        self._keep = keep
        self._clock = clock

    async def keep(self, signed: SignedReceipt, reason: str) -> None:
        """Keep a refused receipt if its provider signed it; never fails.

        Args:
            signed: the receipt.
            reason: why it was refused.
        """
        receipt = signed.receipt
        if self._keep is None or (receipt.user, receipt.signer) != self._names:
            return
        try:
            key = recover_signer(self._domain.digest(receipt.struct_hash()), signed.signature)
        except RequestError:
            return  # nobody signed it
        if not self._is_receipt_key(receipt.provider, key):
            return
        try:
            is_new = await self._keep(signed, reason, int(self._clock()))
        except HanseError as error:  # a full disk must not hide why the receipt was refused
            _log.error("a refused receipt of %s is not kept: %s", receipt.provider, error.message)
            return
        if is_new:
            _log.warning(
                "a receipt of %s for sequence %s is refused and kept: %s",
                receipt.provider,
                receipt.sequence,
                reason,
            )
