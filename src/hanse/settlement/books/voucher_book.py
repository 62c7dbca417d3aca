"""The user's durable book: what was signed away, what came back for it.

The rules are `hanse.protocol.books.UserBook`; this shell gives them rows. Two writes a request:

    issued = await book.issue(sub_account, purchase, funds, signer, now_s)   # durable, then send it
    await book.acknowledge(receipt, Verification.VERIFIED, now_s=now_s)      # durable soon

A voucher is signed inside the transaction that stores it, so its two maxima count every voucher
signed before it, in this process and in others on the same database, and none leaves that a crash
could forget: what the provider may claim is always known here.

Receipts come in any order. One whose predecessors are missing is held: its request stays in flight
until they come. What contradicts earlier receipts is kept as evidence and the sub-account is
disputed: no voucher is signed for it any more, so the loss ends at what was signed.

Source: `docs/protocol.md`; `docs/decisions/0009-user-side.md`.
"""

import msgspec

from hanse.protocol.books import UserBook, apply_issue, get_voucher_maxima
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, TransientError, VerificationError
from hanse.protocol.limits import IN_FLIGHT_PER_SUB_ACCOUNT_MAX
from hanse.protocol.messages import (
    Request,
    SignedOffer,
    SignedReceipt,
    SignedVoucher,
    Voucher,
)
from hanse.protocol.signatures import Address, DigestSigner, Hash32
from hanse.protocol.wire import offer_to_json, receipt_from_json
from hanse.settlement.books import voucher_tables as sql
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_keys import sweep_keys
from hanse.settlement.books.voucher_records import (
    IssuedVoucher,
    StoredReceipt,
    StoredVoucher,
    SubAccountBook,
    SubAccountKey,
    Verification,
)
from hanse.settlement.books.voucher_rows import (
    apply_receipt,
    apply_released,
    find_row,
    open_row,
    to_receipt,
    to_row,
    to_sub_account,
    to_voucher,
    update_row,
)
from hanse.store.database import Database, Transaction, get_or_insert

SUB_ACCOUNTS_LISTED_MAX = 10_000
"""Sub-accounts of one wallet in one listing; a gateway has one a provider."""

OPEN_VOUCHERS_LISTED_MAX = 10_000
"""Vouchers of unknown end in one listing; resume takes the rest in its next round."""


class Purchase(msgspec.Struct, frozen=True):
    """What one voucher is to buy.

    Attributes:
        request: the request as it will be signed.
        path: of the operation.
        offer: whose prices apply.
        receipt_key: that receipts must be signed with.
        answer_key: 32 random bytes.
        body_bytes: length of the body.
        output_tokens_max: most output tokens asked for.
    """

    request: Request
    path: str
    offer: SignedOffer
    receipt_key: Address
    answer_key: bytes
    body_bytes: int
    output_tokens_max: int


class VoucherBook:
    """The book of one user's side over a `Database`. Open it with `open_voucher_book`."""

    def __init__(self, database: Database, domain: Domain) -> None:
        self._database = database
        self._domain = domain
        self._known_offers: set[Hash32] = set()

    async def issue(
        self,
        key: SubAccountKey,
        purchase: Purchase,
        funds: SubAccountFunds,
        signer: DigestSigner,
        now_s: int,
    ) -> IssuedVoucher:
        """Commit to one more request and sign its voucher; durable on return, so it may be sent.

        Raises:
            RequestError: `insufficient_balance`, with what is needed and what is there.
            VerificationError: `receipt_invalid` if the sub-account is disputed.
            TransientError: `overloaded` with as many in flight as a broker admits;
                `store_unavailable`.
        """
        offer_hash = purchase.request.offer_hash
        is_new_offer = offer_hash not in self._known_offers

        def write(tx: Transaction) -> IssuedVoucher:
            if is_new_offer:
                encoded = msgspec.json.encode(offer_to_json(purchase.offer)).decode()
                tx.execute(sql.INSERT_OFFER, (offer_hash, encoded))
            return self._issue(tx, key, purchase, funds, signer, now_s)

        issued = await self._database.write(write)
        self._known_offers.add(offer_hash)
        return issued

    async def acknowledge(
        self,
        signed: SignedReceipt,
        verification: Verification,
        *,
        reason: str = "",
        now_s: int,
    ) -> UserBook:
        """Count a receipt; durable before any later voucher, and some milliseconds later at most.

        A crash before that leaves its request in flight, and resume fetches the receipt again.
        One that is known already changes nothing, except that a better verification replaces
        `unverified`. The caller has checked signature, request and fee (`verify_receipt`);
        sequence and running sum are checked here.

        Args:
            signed: the receipt.
            verification: how far the answer could be compared; `ADOPTED` also takes receipts for
                requests that this book never saw.
            reason: for people, why it is not `VERIFIED`.
            now_s: unix seconds.

        Returns:
            The sub-account's book afterwards.

        Raises:
            VerificationError: `receipt_invalid` if it is for a request never signed here, skips
                ahead of all that was signed, or contradicts another receipt. The last disputes the
                sub-account and keeps both.
        """
        begun = await self._database.begin(
            lambda tx: apply_receipt(tx, signed, verification, reason, now_s)
        )
        book, objection = begun.result
        is_held = verification in (Verification.MISMATCHED, Verification.UNCOMMITTED)
        if objection or is_held:
            await begun.commit()  # what is held against a provider
        if objection:
            raise VerificationError("receipt_invalid", objection)
        return book

    async def release(self, request_id: Hash32, reason: str) -> UserBook | None:
        """Forget a request that was refused or can no longer be admitted.

        Returns:
            The book afterwards; None if it was not in flight (one that has its receipt keeps it).
        """
        return await self._database.write(lambda tx: apply_released(tx, request_id, reason))

    async def sweep_keys(self, now_s: int) -> int:
        """See `hanse.settlement.books.voucher_keys`."""
        return await self._database.write(lambda tx: sweep_keys(tx, now_s))

    async def note_response(
        self, request_id: Hash32, response_hash: Hash32, response_bytes: int, *, is_complete: bool
    ) -> None:
        """Remember what was received, to judge a receipt that comes later."""
        parameters = (response_hash, response_bytes, int(is_complete), request_id)
        await self._database.write(lambda tx: tx.execute(sql.UPDATE_RESPONSE, parameters))

    async def dispute(self, key: SubAccountKey, reason: str) -> None:
        """Sign no more vouchers for a sub-account; "" lifts an earlier dispute."""

        def write(tx: Transaction) -> None:
            row = find_row(tx, key)
            if row is not None:
                update_row(tx, msgspec.structs.replace(row, disputed=reason))

        await self._database.write(write)

    async def find_sub_account(self, key: SubAccountKey) -> SubAccountBook | None:
        """One sub-account as this book has it, or None if nothing was ever signed for it."""
        row = await self._database.read(lambda tx: find_row(tx, key))
        return to_sub_account(row) if row else None

    async def list_sub_accounts(self) -> list[SubAccountBook]:
        """Every sub-account that something was signed for."""
        rows = await self._database.read(
            lambda tx: tx.find_all(sql.LIST_SUB_ACCOUNTS, (SUB_ACCOUNTS_LISTED_MAX,))
        )
        return [to_sub_account(to_row(row)) for row in rows]

    async def list_open_vouchers(self) -> list[StoredVoucher]:
        """Vouchers whose end is unknown, oldest first."""
        rows = await self._database.read(
            lambda tx: tx.find_all(sql.LIST_OPEN, (OPEN_VOUCHERS_LISTED_MAX,))
        )
        return [to_voucher(row) for row in rows]

    async def find_voucher(self, request_id: Hash32) -> StoredVoucher | None:
        """One voucher by its request id."""
        row = await self._database.read(lambda tx: tx.find_one(sql.FIND_VOUCHER, (request_id,)))
        return to_voucher(row) if row else None

    async def find_voucher_by_hash(self, request_hash: Hash32) -> StoredVoucher | None:
        """One voucher by the hash that its receipt names."""
        row = await self._database.read(
            lambda tx: tx.find_one(sql.FIND_VOUCHER_BY_HASH, (request_hash,))
        )
        return to_voucher(row) if row else None

    async def find_receipt(self, request_id: Hash32) -> StoredReceipt | None:
        """The receipt of one request."""
        row = await self._database.read(lambda tx: tx.find_one(sql.FIND_RECEIPT, (request_id,)))
        return to_receipt(row) if row else None

    async def list_receipts(self, *, before: int, limit: int, offset: int) -> list[StoredReceipt]:
        """Receipts received up to `before`, newest first."""
        rows = await self._database.read(
            lambda tx: tx.find_all(sql.LIST_RECEIPTS, (before, limit, offset))
        )
        return [to_receipt(row) for row in rows]

    async def list_conflicts(self, limit: int = 1_000) -> list[tuple[SignedReceipt, str]]:
        """Receipts that contradict ones held, each with what is wrong: evidence."""
        rows = await self._database.read(lambda tx: tx.find_all(sql.LIST_CONFLICTS, (limit,)))
        return [(receipt_from_json(msgspec.json.decode(row[0])), row[1]) for row in rows]

    def _issue(
        self,
        tx: Transaction,
        key: SubAccountKey,
        purchase: Purchase,
        funds: SubAccountFunds,
        signer: DigestSigner,
        now_s: int,
    ) -> IssuedVoucher:
        row = find_row(tx, key) or open_row(tx, key, funds)
        if row.disputed:
            raise VerificationError(
                "receipt_invalid",
                f"the sub-account with {key.provider} is disputed: {row.disputed}",
            )
        if row.book.in_flight >= IN_FLIGHT_PER_SUB_ACCOUNT_MAX:
            raise TransientError(
                "overloaded",
                f"{row.book.in_flight} requests to {key.provider} are in flight, at most "
                f"{IN_FLIGHT_PER_SUB_ACCOUNT_MAX}: wait for one to end",
            )
        request = purchase.request
        book = apply_issue(row.book, maximum_fee=request.maximum_fee, funded=funds.funded)
        cumulative_max, sequence_max = get_voucher_maxima(book)
        request_hash = "0x" + request.struct_hash().hex()
        voucher = Voucher(key.user, key.provider, cumulative_max, sequence_max, request_hash)
        signature = signer.sign_digest(self._domain.digest(voucher.struct_hash()))
        tx.execute(
            sql.INSERT_VOUCHER,
            (
                request.request_id,
                row.number,
                request_hash,
                request.offer_hash,
                purchase.receipt_key,
                request.body_hash,
                purchase.body_bytes,
                purchase.output_tokens_max,
                purchase.path,
                str(request.maximum_fee),
                request.deadline,
                str(cumulative_max),
                sequence_max,
                signature,
                purchase.answer_key,
                now_s,
            ),
        )
        update_row(tx, msgspec.structs.replace(row, book=book))
        signed = SignedVoucher(voucher, request, key.signer, signature)
        return IssuedVoucher(signed, book)


async def open_voucher_book(database: Database, domain: Domain) -> VoucherBook:
    """Bring the tables up to date and check that the book is for this Escrow.

    Raises:
        RequestError: `configuration_invalid` if the database belongs to another.
    """
    await database.migrate(sql.COMPONENT, sql.STEPS)
    owner = (str(domain.chain_id), domain.escrow)

    found = await database.write(
        lambda tx: get_or_insert(tx, sql.FIND_OWNER, sql.INSERT_OWNER, owner)
    )
    if found != owner:
        raise RequestError(
            "configuration_invalid",
            f"this database holds vouchers for chain {found[0]}, Escrow {found[1]}, not for chain "
            f"{domain.chain_id}, Escrow {domain.escrow}: give each its own",
        )
    return VoucherBook(database, domain)
