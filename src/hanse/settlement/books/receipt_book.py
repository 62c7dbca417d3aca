"""The provider's durable book: what was admitted, what was served, what is owed.

The rules are `hanse.protocol.books`; this shell gives them rows. Two writes a request:

    begun = await book.begin_admission(signed_voucher, funds, acknowledged=..., now_s=...)
    ...the engine runs; await begun.commit() before its first token leaves...
    finished = await book.finish(begun.result, outcome)

The voucher is durable before a token leaves; an answer that is complete by then shares its commit.
`finish` numbers the
request, signs its receipt and stores both in one transaction, so the order of receipts is the order
of sequences, and a receipt that was not stored has never left the process. After a crash `recover`
signs a receipt of fee 0 for whatever was at work.

The database belongs to one provider on one Escrow, and is refused to another. It must never be
replaced by an older copy: sequences would be signed twice, which is what `prove_equivocation`
punishes.

Source: `docs/protocol.md`; `docs/decisions/0008-receipt-book.md`.
"""

from collections.abc import Awaitable

import msgspec

from hanse.protocol.books import ProviderBook, apply_admission, apply_finish
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import InvariantError, RequestError
from hanse.protocol.limits import (
    ANSWER_RETAINED_S,
    IN_FLIGHT_PER_SUB_ACCOUNT_MAX,
    RECEIPTS_PER_PAGE_MAX,
)
from hanse.protocol.messages import Receipt, SignedReceipt, SignedVoucher
from hanse.protocol.signatures import Address, DigestSigner, Hash32
from hanse.protocol.wire import encode_receipt_json, receipt_from_json
from hanse.settlement.books import receipt_tables as sql
from hanse.settlement.books.book_guard import (
    SignedSequences,
    verify_acknowledged,
    verify_covers_claim,
)
from hanse.settlement.books.receipt_closing import IsAtWork, close_requests
from hanse.settlement.books.receipt_records import (
    Admission,
    DueClaim,
    FinishedRequest,
    Outcome,
    ReceiptPage,
    SubAccountFunds,
    SubAccountState,
)
from hanse.store.database import Begun, Database, Row, Transaction, get_or_insert
from hanse.store.leases import Membership

ANSWERS_PER_SUB_ACCOUNT_MAX = IN_FLIGHT_PER_SUB_ACCOUNT_MAX
"""Sealed answers kept of one sub-account: as many as can have been at work when its caller died."""

DUE_SUB_ACCOUNTS_MAX = 100_000
"""Sub-accounts looked at for one settlement batch; the rest waits for the next."""


class _Row(msgspec.Struct, frozen=True):
    number: int
    book: ProviderBook
    settled_fee: int


class ReceiptBook:
    """The book of one provider over a `Database`. Open it with `open_receipt_book`."""

    def __init__(
        self,
        database: Database,
        provider: Address,
        domain: Domain,
        receipt_key: DigestSigner,
        membership: Membership | None = None,
    ) -> None:
        self._database = database
        self._provider = provider
        self._domain = domain
        self._receipt_key = receipt_key
        self.membership = membership
        self._signed = SignedSequences()

    @property
    def receipt_key(self) -> DigestSigner:
        """Signs receipts, and the broker's heartbeats."""
        return self._receipt_key

    def begin_admission(
        self, signed: SignedVoucher, funds: SubAccountFunds, *, acknowledged: int, now_s: int
    ) -> Awaitable[Begun[Admission]]:
        """Reserve one request's maximum fee and store its voucher, before that is durable.

        An engine may begin, nobody may be told: `finish` makes it durable together with the
        receipt, `Begun.commit` without one.

        Args:
            signed: the voucher, already verified.
            funds: of the sub-account at the confirmed block.
            acknowledged: highest sequence whose receipts the caller holds; sealed answers up to it
                are let go.
            now_s: unix seconds.

        Raises:
            RequestError: `request_replayed`, with the receipt if there is one; else as
                `apply_admission`. Nothing has changed then.
            TransientError: `store_unavailable`; `book_outdated` if the caller, the chain or this
                process knows of more than the book holds.
        """
        return self._database.begin(
            lambda tx: _admit(tx, signed, funds, acknowledged, now_s, self._hold(tx), self._signed)
        )

    async def finish(self, admission: Admission, outcome: Outcome) -> FinishedRequest:
        """Number, sign and store the receipt of an admitted request; durable on return.

        A request that is finished already keeps its receipt, which is returned.

        Raises:
            InvariantError: `invariant_broken` if the fee is above its maximum.
            TransientError: `store_unavailable`; the request is still at work then.
        """

        def finish(tx: Transaction) -> FinishedRequest:
            self._hold(tx)
            return self._finish(tx, admission, outcome)

        finished = await self._database.write(finish)
        sequence = finished.signed.receipt.sequence
        self._signed.note(admission.user, admission.signer, sequence)
        return finished

    async def recover(self, now_s: int) -> list[SignedReceipt]:
        """Finish everything that was at work when its process died, with fee 0; call it first.

        Raises:
            InvariantError: `invariant_broken` if a sub-account's row and its requests disagree.
        """
        return await self._database.write(lambda tx: self.recover_within(tx, now_s))

    def recover_within(self, tx: Transaction, now_s: int) -> list[SignedReceipt]:
        """`recover` inside another write, such as the one that ends a dead process's lease."""
        living = self.membership.list_names(tx) if self.membership else set()
        return close_requests(tx, self._finish, now_s, lambda opened: opened.instance not in living)

    async def close_lost(self, is_at_work: IsAtWork, now_s: int) -> list[SignedReceipt]:
        """Finish, with fee 0, what this process admitted and does not work at.

        There is such a request if a commit succeeded that the store reported as failed.

        Args:
            is_at_work: of (request id, signer); must be true before its admission begins.
            now_s: unix seconds.
        """

        def close(tx: Transaction) -> list[SignedReceipt]:
            instance = self._hold(tx)
            return close_requests(
                tx,
                self._finish,
                now_s,
                lambda opened: (
                    opened.instance == instance
                    and not is_at_work(opened.admission.request_id, opened.admission.signer)
                ),
            )

        return await self._database.write(close)

    async def find_state(self, user: Address, signer: Address) -> SubAccountState | None:
        """The sub-account as the book has it, or None if nothing was ever admitted for it."""
        row = await self._database.read(lambda tx: _find_row(tx, user, signer))
        return SubAccountState(user, signer, row.book, row.settled_fee) if row else None

    async def find_receipts(
        self, user: Address, signer: Address, after: int, limit: int = RECEIPTS_PER_PAGE_MAX
    ) -> ReceiptPage | None:
        """Receipts with a sequence above `after`, at most `limit`; None for an unknown one."""
        limit = min(limit, RECEIPTS_PER_PAGE_MAX)
        return await self._database.read(lambda tx: _find_receipts(tx, user, signer, after, limit))

    async def find_answer(
        self, user: Address, signer: Address, request_id: Hash32, now_s: int
    ) -> bytes | None:
        """The sealed answer of one unacknowledged request, or None."""

        def find(tx: Transaction) -> bytes | None:
            row = _find_row(tx, user, signer)
            if row is None:
                return None
            found = tx.find_one(sql.FIND_ANSWER, (request_id, signer, row.number, now_s))
            return bytes(found[0]) if found else None

        return await self._database.read(find)

    async def read_due_claims(self, limit: int = DUE_SUB_ACCOUNTS_MAX) -> list[DueClaim]:
        """All that is owed and not seen on the chain, largest first."""
        rows = await self._database.read(lambda tx: tx.find_all(sql.LIST_DUE, (limit,)))
        claims = [
            DueClaim(r[0], r[1], int(r[2]), r[3], int(r[4]), int(r[5]), int(r[6]), r[7], r[8])
            for r in rows
        ]
        return sorted(claims, key=lambda claim: (-claim.due, claim.user, claim.signer))

    async def apply_settled(self, user: Address, signer: Address, claimed: int) -> int:
        """Note what the chain shows as claimed at a confirmed block; it never falls.

        Returns:
            Base units by which what is owed and unsettled has fallen.
        """

        def apply(tx: Transaction) -> int:
            row = _find_row(tx, user, signer)
            if row is None or claimed <= row.settled_fee:
                return 0
            due = int(row.book.cumulative_fee > claimed)
            tx.execute(sql.UPDATE_SETTLED, (str(claimed), due, row.number))
            before = max(0, row.book.cumulative_fee - row.settled_fee)
            return before - max(0, row.book.cumulative_fee - claimed)

        return await self._database.write(apply)

    async def sweep_answers(self, now_s: int) -> int:
        """Let go of sealed answers that are too old or too many; returns how many."""
        return await self._database.write(
            lambda tx: tx.execute(sql.DELETE_OLD, (now_s, ANSWERS_PER_SUB_ACCOUNT_MAX))
        )

    def _hold(self, tx: Transaction) -> str:
        """This process's name, once it is sure that its lease holds; "" where it has none."""
        if self.membership is None:
            return ""
        self.membership.verify_held(tx)
        return self.membership.name

    def _finish(self, tx: Transaction, admission: Admission, outcome: Outcome) -> FinishedRequest:
        row, finished = _find_at_work(tx, admission)
        if finished is not None:
            return finished
        fee = outcome.fee
        after = apply_finish(row.book, maximum_fee=admission.maximum_fee, fee=fee)
        receipt = Receipt(
            admission.user,
            self._provider,
            admission.signer,
            after.sequence,
            admission.request_hash,
            outcome.response_hash,
            outcome.usage,
            fee,
            after.cumulative_fee,
            outcome.finish_reason,
            outcome.finished_at,
            outcome.commitment_root,
        )
        digest = self._domain.digest(receipt.struct_hash())
        signed = SignedReceipt(receipt, self._receipt_key.sign_digest(digest))
        encoded = encode_receipt_json(signed)
        tx.execute(
            sql.UPDATE_FINISHED,
            (
                after.sequence,
                str(after.cumulative_fee),
                str(after.reserved),
                after.in_flight,
                row.number,
            ),
        )
        if row.book.cumulative_fee <= row.settled_fee < after.cumulative_fee:
            tx.execute(sql.UPDATE_DUE, (row.number,))
        tx.execute(
            sql.UPDATE_REQUEST_FINISHED,
            (after.sequence, encoded.decode(), admission.request_id, admission.signer),
        )
        if outcome.sealed_answer is not None:
            place = sql.get_place(row.number, after.sequence)
            expires_at = outcome.finished_at + ANSWER_RETAINED_S
            tx.execute(sql.INSERT_ANSWER, (place, expires_at, outcome.sealed_answer))
        return FinishedRequest(signed, encoded)


async def open_receipt_book(
    database: Database,
    provider: Address,
    domain: Domain,
    receipt_key: DigestSigner,
    membership: Membership | None = None,
) -> ReceiptBook:
    """Bring the tables up to date and check whose book it is.

    With a `membership` several processes may hold the book: each admits and finishes only while its
    lease holds, and `recover` leaves alone what living ones have at work.

    Raises:
        RequestError: `configuration_invalid` if the database is another provider's or Escrow's.
    """
    await database.migrate(sql.COMPONENT, sql.STEPS)
    owner = (provider, str(domain.chain_id), domain.escrow)

    found = await database.write(
        lambda tx: get_or_insert(tx, sql.FIND_OWNER, sql.INSERT_OWNER, owner)
    )
    if found != owner:
        raise RequestError(
            "configuration_invalid",
            f"this database is the book of provider {found[0]} on chain {found[1]}, Escrow "
            f"{found[2]}, not of {provider} on chain {domain.chain_id}, Escrow {domain.escrow}: "
            "give each its own",
        )
    return ReceiptBook(database, provider, domain, receipt_key, membership)


def decode_stored_receipt(json: bytes) -> SignedReceipt:
    """A receipt from its stored JSON."""
    return receipt_from_json(msgspec.json.decode(json))


def _admit(
    tx: Transaction,
    signed: SignedVoucher,
    funds: SubAccountFunds,
    acknowledged: int,
    now_s: int,
    instance: str,
    signed_here: SignedSequences,
) -> Admission:
    voucher, request, signer = signed.voucher, signed.request, signed.signer
    row = _find_row(tx, voucher.user, signer) or _open_row(tx, voucher.user, signer)
    verify_acknowledged(row.book.sequence, acknowledged)
    signed_here.verify(voucher.user, signer, row.book.sequence)
    verify_covers_claim(row.book.sequence, row.book.cumulative_fee, funds)
    inserted = tx.execute(
        sql.INSERT_REQUEST,
        (
            request.request_id,
            signer,
            row.number,
            voucher.request_hash,
            request.offer_hash,
            request.body_hash,
            str(request.maximum_fee),
            request.deadline,
            str(voucher.cumulative_max),
            str(voucher.sequence_max),
            signed.signature,
            now_s,
            instance,
        ),
    )
    if inserted == 0:
        raise _replayed(tx, request.request_id, signer)
    book = apply_admission(
        row.book,
        cumulative_max=voucher.cumulative_max,
        sequence_max=voucher.sequence_max,
        maximum_fee=request.maximum_fee,
        funded=funds.funded,
    )
    reserved, in_flight = str(book.reserved), book.in_flight
    before = (row.book.cumulative_max, row.book.sequence_max)
    if (book.cumulative_max, book.sequence_max) == before:
        tx.execute(sql.UPDATE_RESERVED, (reserved, in_flight, row.number))
    else:
        tx.execute(
            sql.UPDATE_BEST,
            (
                reserved,
                in_flight,
                str(book.cumulative_max),
                str(book.sequence_max),
                request.request_id,
                row.number,
            ),
        )
    if acknowledged > 0:
        first = sql.get_place(row.number, 0)
        tx.execute(sql.DELETE_ACKNOWLEDGED, (first, first + acknowledged))
    return Admission(
        row.number,
        voucher.user,
        signer,
        request.request_id,
        voucher.request_hash,
        request.maximum_fee,
    )


def _find_row(tx: Transaction, user: Address, signer: Address) -> _Row | None:
    found = tx.find_one(sql.FIND_BOOK, (user, signer))
    return _to_row(found) if found else None


def _find_at_work(tx: Transaction, admission: Admission) -> tuple[_Row, FinishedRequest | None]:
    """The sub-account, and how the request ended if it has."""
    names = (admission.request_id, admission.signer, admission.sub_account)
    found = tx.find_one(sql.FIND_AT_WORK, names)
    if found is None:
        raise InvariantError(
            "invariant_broken", f"sub-account {admission.sub_account} is not in the book"
        )
    row, request_id, receipt = _to_row(found[:-2]), found[-2], found[-1]
    if receipt is not None:
        encoded = receipt.encode()
        return row, FinishedRequest(decode_stored_receipt(encoded), encoded)
    if request_id is None or row.book.in_flight == 0:
        raise InvariantError(
            "invariant_broken", f"request {admission.request_id} was never admitted"
        )
    return row, None


def _to_row(found: Row) -> _Row:
    number, sequence, fee, reserved, in_flight, cumulative_max, sequence_max, settled = found
    book = ProviderBook(
        sequence, int(fee), int(reserved), in_flight, int(cumulative_max), int(sequence_max)
    )
    return _Row(number, book, int(settled))


def _open_row(tx: Transaction, user: Address, signer: Address) -> _Row:
    tx.execute(sql.INSERT_BOOK, (user, signer))
    row = _find_row(tx, user, signer)
    if row is None:
        raise InvariantError("invariant_broken", f"sub-account {user} / {signer} was not stored")
    return row


def _replayed(tx: Transaction, request_id: Hash32, signer: Address) -> RequestError:
    found = tx.find_one(sql.FIND_RECEIPT, (request_id, signer))
    receipt = found[0] if found else None
    return RequestError(
        "request_replayed",
        f"request {request_id} was already admitted and is "
        f"{'finished' if receipt else 'at work'}: sign a new request with a new id",
        details={
            "request_id": request_id,
            "receipt": msgspec.json.decode(receipt) if receipt else None,
        },
    )


def _find_receipts(
    tx: Transaction, user: Address, signer: Address, after: int, limit: int
) -> ReceiptPage | None:
    row = _find_row(tx, user, signer)
    if row is None:
        return None
    bounded = min(after, row.book.sequence)
    rows = tx.find_all(sql.LIST_RECEIPTS, (row.number, bounded, limit + 1))
    in_flight = tx.find_all(sql.LIST_IN_FLIGHT, (row.number, IN_FLIGHT_PER_SUB_ACCOUNT_MAX))
    return ReceiptPage(
        SubAccountState(user, signer, row.book, row.settled_fee),
        tuple((r[0], r[1].encode()) for r in rows[:limit]),
        tuple(r[0] for r in in_flight),
        len(rows) > limit,
    )
