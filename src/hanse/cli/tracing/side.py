"""One side's traces, opened for a command: the user's, or a provider's of this home."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from hanse.chain.keys import get_password
from hanse.cli.buying.wallet import get_database_path
from hanse.cli.network import load_network
from hanse.cli.selling.settlements import get_books
from hanse.cli.session import Session
from hanse.cli.tracing.encryption import get_encryption_path
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import Address, Hash32, parse_hash32, recover_signer
from hanse.settlement.books.voucher_book import VoucherBook, open_voucher_book
from hanse.settlement.traces.bundle import FILE_BYTES_MAX, decode_bundle, open_trace
from hanse.settlement.traces.document import Trace
from hanse.settlement.traces.encryption_key import unlock_encryption_key
from hanse.settlement.traces.notes import (
    SealedKey,
    TraceNote,
    TraceNotes,
    TraceState,
    open_trace_notes,
)
from hanse.settlement.traces.object_store import open_object_store
from hanse.store import files, open_database


@dataclass(frozen=True)
class TraceSide:
    """Whose traces, and what is needed to judge them.

    Attributes:
        name: of the encryption key.
        notes: of this side.
        domain: of all signatures.
        vouchers: the user's book; None for a provider.
        receipt_key: the provider's own; empty for a user.
    """

    session: Session
    name: str
    notes: TraceNotes
    domain: Domain
    vouchers: VoucherBook | None
    receipt_key: Address

    async def get_note(self, name: str) -> TraceNote:
        """The note of a request id or trace hash; see `TraceNotes.get`."""
        return await self.notes.get(parse_hash32(name, "ID"))

    async def fetch(self, name: str, file: Path | None) -> tuple[bytes, Hash32, list[SealedKey]]:
        """Object, hash and sealed keys, from a store or an exported file; the hash is checked."""
        if file is not None:
            return decode_bundle(read_file(file))
        note = await self.get_note(name)
        if note.state in (TraceState.FORGOTTEN, TraceState.LOST):
            raise RequestError(
                "not_found",
                f"trace {note.trace_hash} is {note.state.value}: {note.reason or 'no word why'}; "
                "only a file that was exported before can still show it",
            )
        content = await open_object_store(note.location).fetch(note.trace_hash)
        return content, note.trace_hash, await self.notes.list_keys(note.trace_hash)

    async def decrypt(
        self, name: str, file: Path | None, *, use_keyring: bool
    ) -> tuple[Trace, Hash32]:
        """A trace in clear, and its hash."""
        content, trace_hash, keys = await self.fetch(name, file)
        path = get_encryption_path(self.session, self.name)
        password = get_password(path.stem, use_keyring=use_keyring)
        return open_trace(
            content, trace_hash, keys, unlock_encryption_key(path, password)
        ), trace_hash

    async def find_receipt(self, trace: Trace) -> tuple[Address | None, SignedReceipt | None]:
        """The receipt key and the receipt by our own books, as far as they have them."""
        if self.vouchers is None:
            return self.receipt_key, None
        request_id = trace.request.request_id
        voucher = await self.vouchers.find_voucher(request_id)
        receipt = await self.vouchers.find_receipt(request_id)
        receipt_key = voucher.receipt_key if voucher else None
        return receipt_key, receipt.signed if receipt else None

    def recover_receipt_key(self, signed: SignedReceipt) -> Address:
        """Who signed a receipt that is not in our books."""
        return recover_signer(self.domain.digest(signed.receipt.struct_hash()), signed.signature)


@asynccontextmanager
async def open_trace_side(
    session: Session, key: str, provider: str | None
) -> AsyncIterator[TraceSide]:
    """The traces of a user's key, or of a provider of this home.

    Raises:
        RequestError: `not_found` if there are no such books.
    """
    deployment = load_network(session.home).deployment
    domain = Domain(deployment.chain_id, deployment.escrow)
    path = get_books(session, provider) if provider else get_database_path(session, key)
    database = await open_database(path)
    try:
        notes = await open_trace_notes(database)
        if provider:
            receipt_key = session.get_key_address(f"{provider}-receipt")
            yield TraceSide(session, provider, notes, domain, None, receipt_key)
        else:
            vouchers = await open_voucher_book(database, domain)
            yield TraceSide(session, key, notes, domain, vouchers, "")
    finally:
        await database.close()


def read_file(path: Path) -> bytes:
    """An exported trace, within its limit.

    Raises:
        RequestError: `not_found`.
    """
    return files.read_file(path, FILE_BYTES_MAX)


async def delete_object(side: TraceSide, note: TraceNote) -> str:
    """Delete the object of a forgotten trace; returns why it is still there, "" if it is not."""
    try:
        await open_object_store(note.location).delete(note.trace_hash)
    except HanseError as error:
        return error.message
    await side.notes.mark_deleted(note.trace_hash)
    return ""
