"""The look at every claim, and what follows from it.

A look compares what the chain shows as claimed with the receipts that are held, and those with one
another (`hanse.settlement.disputes`). It looks at states, not at single events, so nothing that
happened while no process ran is missed. What is found is stored first, ends the vouchers for that
sub-account, and is then proven by one transaction of the wallet's, or of the session key where the
wallet is elsewhere. Without native coin it waits and says so; anyone may send the proof.

Source: `docs/decisions/0016-disputes.md`.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from hanse.chain import (
    ChainError,
    Checkpoint,
    Escrow,
    Outbox,
    Registry,
    TransactionState,
)
from hanse.protocol.signatures import Address
from hanse.sdk.disputes.proving import (
    ATTEMPTS_MAX,
    FAILED_PROOFS_MAX,
    build_proof,
    describe,
)
from hanse.sdk.disputes.rounds import Round, get_names, get_provider
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_book import VoucherBook
from hanse.settlement.books.voucher_records import SubAccountKey
from hanse.settlement.disputes.dispute_book import (
    DisputeBook,
    DisputeState,
    StoredDispute,
)
from hanse.settlement.disputes.evidence import get_dispute_id
from hanse.settlement.disputes.findings import Claimed, Finding
from hanse.settlement.disputes.proven_fold import Proven
from hanse.settlement.disputes.reading import read_findings

RETRY_S = 600
"""Between tries of a proof that Escrow refuses: it may have refused for a passing reason."""

EMPTY_WALLET_RETRY_S = 30
"""Between looks at a wallet without native coin."""

ORPHAN_S = 10
"""A proof that a process took on and did not hand to the outbox in this time is taken on again."""

_log = logging.getLogger(__name__)
_State = DisputeState


class ClaimsView(Protocol):
    """What the chain shows at the confirmed block. `IndexedChain` fulfils it."""

    checkpoint: Checkpoint | None

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """(provider, signer, funds) of every sub-account of the user."""
        ...

    def list_proven(self) -> list[Proven]:
        """Proofs that Escrow accepted."""
        ...


class Disputes:
    """Finds and raises one user's disputes. Made by `open_disputes`.

    Args:
        book: of the disputes.
        vouchers: the user's book.
        chain: at its confirmed block.
        user: whose sub-accounts.
        outbox: of who sends proofs; None to send none.
        escrow, registry: who judges them.
        auto: whether what is found is raised at once.
        clock: unix seconds.
    """

    def __init__(
        self,
        book: DisputeBook,
        vouchers: VoucherBook,
        chain: ClaimsView,
        user: Address,
        outbox: Outbox | None,
        escrow: Escrow,
        registry: Registry,
        *,
        auto: bool,
        clock: Callable[[], float],
    ) -> None:
        self.book = book
        self._vouchers = vouchers
        self._chain = chain
        self._user = user
        self._outbox = outbox
        self._escrow = escrow
        self._registry = registry
        self._auto = auto
        self._clock = clock

    async def list_all(self) -> list[StoredDispute]:
        """Every dispute, newest first."""
        return await self.book.list_all()

    async def look(self) -> list[StoredDispute]:
        """One round: find, store, raise, follow up.

        Returns:
            What was found for the first time.

        Raises:
            TransientError: the store or the chain's node does not answer; the next round goes on.
        """
        claimed = {
            (provider, signer): Claimed(funds.claimed, funds.sequence)
            for provider, signer, funds in self._chain.list_funds()
        }
        findings = await read_findings(self.book.database, self._user, claimed)
        new = [finding for finding in findings if await self._store(finding)]
        present = {get_dispute_id(self.book.domain, finding) for finding in findings}
        disputes = await self.book.list_all()
        round_ = Round.begin(disputes)
        for dispute in sorted(disputes, key=lambda one: -one.evidence.finding.loss):
            is_present = dispute.dispute_id in present
            await self._advance(dispute, round_, is_present=is_present)
        return [one for one in disputes if one.evidence.finding in new]

    async def _store(self, finding: Finding) -> bool:
        receipt = finding.receipts[0].receipt
        if not await self.book.add(finding, int(self._clock())):
            return False
        text = describe(finding)
        _log.error("provider %s cheated: %s", receipt.provider, text)
        key = SubAccountKey(receipt.user, receipt.provider, receipt.signer)
        await self._vouchers.dispute(key, text)
        return True

    async def _advance(self, dispute: StoredDispute, round_: Round, *, is_present: bool) -> None:
        if await self._confirm(dispute) or dispute.state is _State.CONFIRMED:
            return
        if dispute.state is _State.SENT:
            await self._follow(dispute)
        elif not is_present:
            reason = "the chain shows another claim now; a newer dispute is about that, if any"
            await self._wait(dispute, _State.FUTILE, reason, 0)
        elif dispute.next_try_at <= self._clock():
            await self._raise(dispute, round_)

    async def _confirm(self, dispute: StoredDispute) -> bool:
        """Take over what the chain shows; True if it shows the dispute as proven."""
        finding = dispute.evidence.finding
        proven = [proof for proof in self._chain.list_proven() if proof.covers(finding)]
        if proven and dispute.state is not _State.CONFIRMED:
            paid = sum(int(proof.compensation) for proof in proven)
            await self.book.move(
                dispute,
                state=_State.CONFIRMED,
                reason="",
                compensation=paid,
                transaction_hash=proven[0].transaction_hash,
            )
            _log.warning(
                "the dispute with %s is won: %s base units of %s are paid back",
                finding.provider,
                paid,
                finding.loss,
            )
        if not proven and dispute.state is _State.CONFIRMED:
            await self._take_back(dispute)
        return bool(proven)

    async def _take_back(self, dispute: StoredDispute) -> None:
        await self.book.move(
            dispute,
            state=_State.FOUND,
            reason="the block of its proof left the chain",
            attempt=dispute.attempt + 1,
            next_try_at=int(self._clock()),
            compensation=0,
            transaction_hash="",
        )

    async def _follow(self, dispute: StoredDispute) -> None:
        """What became of the transaction."""
        outbox, now_s = self._outbox, int(self._clock())
        if outbox is None:
            return
        entry = await outbox.find(dispute.outbox_key)
        if entry is None:
            if dispute.next_try_at <= now_s:
                await outbox.enqueue(
                    dispute.outbox_key, build_proof(self._escrow, dispute.evidence)
                )
        elif entry.state is TransactionState.FAILED:
            _log.error("the proof against %s failed: %s", get_provider(dispute), entry.reason)
            await self.book.move(
                dispute,
                state=_State.REFUSED,
                reason=entry.reason,
                attempt=dispute.attempt + 1,
                next_try_at=now_s + RETRY_S,
                transaction_hash=entry.transaction_hash,
            )
        elif entry.state is TransactionState.CONFIRMED:
            at = self._chain.checkpoint
            is_read = at is not None and at.number >= (entry.block_number or 0)
            if is_read and not await self._confirm(dispute):
                await self._take_back(dispute)

    async def _raise(self, dispute: StoredDispute, round_: Round) -> None:
        if futility := await self._find_futility(dispute):
            await self._wait(dispute, _State.FUTILE, futility, RETRY_S)
            return
        if get_names(dispute) in round_.under_way:
            # It takes all that is lost when it is mined: a second one would find nothing due.
            await self._wait(dispute, dispute.state, "another proof is under way", 0)
            return
        if obstacle := self._find_obstacle(dispute, round_.failed[get_provider(dispute)]):
            await self._wait(dispute, dispute.state, obstacle, RETRY_S)
            return
        assert self._outbox is not None  # else there is an obstacle
        call = build_proof(self._escrow, dispute.evidence)
        try:
            await self._outbox.verify_sendable(call)
        except ChainError as error:
            if error.is_revert:
                await self._wait(dispute, _State.REFUSED, error.reason, RETRY_S)
            else:
                reason = f"{error.reason}; or let anyone send it: hanse disputes prove"
                await self._wait(dispute, dispute.state, reason, EMPTY_WALLET_RETRY_S)
            return
        round_.under_way.add(get_names(dispute))
        until_s = int(self._clock()) + ORPHAN_S
        taken = await self.book.move(dispute, state=_State.SENT, reason="", next_try_at=until_s)
        if taken is not None:
            await self._outbox.enqueue(taken.outbox_key, call)

    def _find_obstacle(self, dispute: StoredDispute, failed: int) -> str:
        if not self._auto:
            return "disputes are not raised by themselves here (auto_dispute): hanse disputes prove"
        if self._outbox is None:
            return "there is no key here to send it with: hanse disputes prove"
        if dispute.attempt >= ATTEMPTS_MAX:
            return f"{dispute.attempt} proofs came to nothing: look at it with hanse disputes show"
        if failed >= FAILED_PROOFS_MAX:
            return (
                f"{failed} proofs against this provider came to nothing: does the node lie? "
                "Look at it with hanse disputes show"
            )
        return ""

    async def _find_futility(self, dispute: StoredDispute) -> str:
        """Why a proof would do nothing but cost gas; "" if it does something."""
        finding = dispute.evidence.finding
        at = self._chain.checkpoint
        if at is None:
            return ""
        provider = await self._registry.read_provider(finding.provider, block=at.number)
        if not provider.is_condemned:
            return ""
        receipt = finding.receipts[0].receipt
        names = (receipt.user, receipt.provider, receipt.signer)
        paid = await self._escrow.read_compensation(*names, block=at.number)
        if finding.loss <= paid:
            return (
                f"the provider is condemned, and {paid} of a loss of {finding.loss} are paid back"
            )
        if provider.pool == 0:
            return "the provider is condemned, and nothing is left of its stake"
        return ""

    async def _wait(
        self, dispute: StoredDispute, state: DisputeState, reason: str, wait_s: int
    ) -> None:
        if (dispute.state, dispute.reason) == (state, reason) and not wait_s:
            return
        if (dispute.state, dispute.reason) != (state, reason):
            _log.warning("the dispute with %s waits: %s", get_provider(dispute), reason)
        until_s = int(self._clock()) + wait_s
        await self.book.move(dispute, state=state, reason=reason, next_try_at=until_s)
