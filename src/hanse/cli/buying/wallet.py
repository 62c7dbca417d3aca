"""Opens the user's side for a command, with no more keys than the command needs.

| what for | opened with | password of |
| --- | --- | --- |
| look (`money`, `account show`, `receipts`) | `open_wallet(..., can_send=False)` | nobody |
| move (`account deposit`, `fund`, ...) | `open_wallet(..., can_send=True)` | the user's key |
| buy (`chat`, `gateway start`) | `get_settings` and `Hanse.open` | the signer's key |

The books are HOME/NAME.db, NAME being the user's key. They are shared with a gateway that runs on
the same home folder; only one command at a time sends transactions, since a key's are numbered.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast

from hanse.chain import ChainError, Key, Outbox, Rpc, verify_deployment
from hanse.cli.buying.attestation_policy import find_attestation_policy
from hanse.cli.control import hold_folder
from hanse.cli.network import Network
from hanse.cli.session import Session
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import InvariantError
from hanse.protocol.signatures import Address, Signature, parse_address
from hanse.sdk.account import Account, open_account
from hanse.sdk.chain_view import IndexedChain, open_chain
from hanse.sdk.choosing import Choosing
from hanse.sdk.disputes import find_dispute_alarms
from hanse.sdk.money import Money, read_money
from hanse.sdk.settings import Settings
from hanse.settlement.books.voucher_book import VoucherBook, open_voucher_book
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.settlement.disputes.dispute_book import DisputeBook, open_dispute_book
from hanse.settlement.records.submitter import RecordsSettings
from hanse.store import Database, open_database


@dataclass(frozen=True)
class Wallet:
    """One user's money and books, without the market."""

    user: Address
    signer: Address
    rpc: Rpc
    chain: IndexedChain
    account: Account
    book: VoucherBook
    disputes: DisputeBook
    domain: Domain

    async def read_money(self) -> Money:
        """Every unit of this wallet, by place."""
        money = await read_money(self.account, self.chain, self.book, self.user)
        alarms = find_dispute_alarms(await self.disputes.list_all())
        return replace(money, alarms=money.alarms + alarms)


def get_database_path(session: Session, key: str) -> str:
    """The books of a user of this home: a file's path, or a URL."""
    return session.get_database_path(session.get_key_path(key).stem)


def get_signer_address(session: Session, key: str, signer: str | None) -> Address:
    """Who signs the vouchers: a key of this home, or an address; by default the user itself."""
    if signer is not None and signer.startswith("0x"):
        return parse_address(signer, "signer")
    return session.get_key_address(signer or key)


@asynccontextmanager
async def open_wallet(
    session: Session,
    network: Network,
    key: str,
    *,
    signer: str | None = None,
    can_send: bool = False,
    use_keyring: bool = False,
) -> AsyncIterator[Wallet]:
    """Open one user's money and books.

    Raises:
        HanseError: no such key, a wrong password, no node, or contracts that are not ours.
    """
    user, deployment = session.get_key_address(key), network.deployment
    signer_address = get_signer_address(session, key, signer)
    wallet = session.unlock_key(key, use_keyring=use_keyring) if can_send else None
    settings = Settings(
        network.rpc_url,
        deployment,
        get_database_path(session, key),
        # the account only asks for its address, and signs no voucher
        cast(Key, _AddressOnly(signer_address)),
        user=user,
        wallet=wallet,
        private_endpoints=network.private_endpoints,
    )
    async with AsyncExitStack() as stack:
        if can_send:
            stack.enter_context(hold_folder(session.home / "sending" / key))
        database = await open_database(settings.database)
        stack.push_async_callback(database.close)
        rpc = await stack.enter_async_context(Rpc.connect(network.rpc_url))
        if can_send:
            await verify_deployment(rpc, deployment)
        domain = Domain(deployment.chain_id, deployment.escrow)
        chain = await open_chain(rpc, deployment, database, user, signer_address)
        account = await open_account(rpc, deployment, database, chain, settings)
        book = await open_voucher_book(database, domain)
        disputes = await open_dispute_book(database, domain)
        if wallet is not None:
            await _finish_earlier(session, network, rpc, wallet, database)
        yield Wallet(user, signer_address, rpc, chain, account, book, disputes, domain)


def get_settings(
    session: Session,
    network: Network,
    key: str,
    *,
    signer: str | None = None,
    use_keyring: bool = False,
) -> Settings:
    """Settings to buy with: the signer's key unlocked, the wallet's left alone.

    Raises:
        RequestError: no such key, a wrong password, or an attestation policy that cannot be read.
    """
    return Settings(
        network.rpc_url,
        network.deployment,
        get_database_path(session, key),
        session.unlock_key(signer or key, use_keyring=use_keyring),
        user=session.get_key_address(key),
        private_endpoints=network.private_endpoints,
        records=RecordsSettings(network.recorders),
        choosing=Choosing(attestation=find_attestation_policy(session.home)),
    )


async def _finish_earlier(
    session: Session, network: Network, rpc: Rpc, wallet: Key, database: Database
) -> None:
    """Wait for what an interrupted command has left in the outbox, and say how it ended."""
    storage, deployment = await open_outbox_storage(database), network.deployment
    outbox = Outbox(
        rpc,
        wallet,
        storage,
        chain_id=deployment.chain_id,
        confirmations=deployment.confirmations,
    )
    for entry in await storage.read_entries(outbox.scope, open_only=True):
        session.output.note(f"finishing an earlier transaction first: {entry.call.label}")
        try:
            final = await outbox.wait_final(entry.key)
        except ChainError as error:
            session.output.note(f"it failed, and moved nothing: {error.message}")
        else:
            session.output.note(f"it is confirmed: {final.transaction_hash}")


@dataclass(frozen=True)
class _AddressOnly:
    """Stands where a signer would, for what signs nothing."""

    address: Address

    def sign_digest(self, digest: bytes) -> Signature:
        raise InvariantError("internal_error", "a wallet that is only looked at must sign nothing")
