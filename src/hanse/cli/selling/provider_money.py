"""`hanse provider money`: where its units are, asked of the broker or read from the books."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from hanse.chain import Deployment, Rpc
from hanse.chain.escrow import Escrow
from hanse.cli.buying.places import show_places
from hanse.cli.control import ask_control, is_held
from hanse.cli.network import Network, load_network
from hanse.cli.selling.settlements import SUB_ACCOUNTS_READ_MAX, get_books
from hanse.cli.session import Session
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import InvariantError
from hanse.protocol.signatures import Address, Signature
from hanse.settlement import DueClaim, SubAccountFunds, open_receipt_book
from hanse.settlement.chain_state.index_storage import open_index_storage
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.settlement.chain_state.sub_account_fold import (
    create_provider_fold,
    decode_funds,
    find_names,
)
from hanse.settlement.money.places import Place
from hanse.settlement.money.provider_money import provider_money_to_json
from hanse.settlement.money.provider_reader import ProviderMoneyReader
from hanse.settlement.netting.gas import SettlementRules
from hanse.store import Database, open_database


class ReadView:
    """Sub-accounts as the chain showed them a moment ago."""

    def __init__(self, block: int) -> None:
        self.block = block
        self._funds: dict[tuple[Address, Address], SubAccountFunds] = {}

    async def read(self, escrow: Escrow, user: Address, provider: Address, signer: Address) -> None:
        """Ask the chain for one of them."""
        of = await escrow.read_sub_account(user, provider, signer, block=self.block)
        self._funds[user, signer] = SubAccountFunds(
            of.balance, of.claimed, of.sequence, of.refund, of.unlock_time_s
        )

    def find_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """One sub-account, or None."""
        return self._funds.get((user, signer))

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """All, as (user, signer, funds)."""
        return [(user, signer, funds) for (user, signer), funds in self._funds.items()]


async def show_money(session: Session, name: str) -> None:
    """`hanse provider money`."""
    network = load_network(session.home)
    with session.output.wait("reading chain and books ..."):
        document = await read_document(session, network, name)
    places = [_to_place(entry) for entry in document["places"]]
    units, output = network.units, session.output
    show_places(
        output,
        units,
        places,
        document=lambda: document,
        title=f"{document['provider']} at block {document['block']}",
        names={},
        now_s=document["chain_time"],
    )
    output.note(
        f"earned {units.format(int(document['earned']))} in all; of it "
        f"{units.format(int(document['settled']))} were settled, to {document['paid_to']}; "
        f"requests at work may bring {units.format(int(document['at_work']))} more"
    )
    for alarm in document["alarms"]:
        todo = f": {alarm['command']}" if alarm["command"] else ""
        output.note(f"ALARM {alarm['code']}: {alarm['message']}{todo}")


async def read_document(session: Session, network: Network, name: str) -> dict[str, Any]:
    """Ask the running broker, or read books and chain without one.

    Raises:
        HanseError: the provider never ran here, or the chain's node does not answer.
    """
    books, folder = get_books(session, name), session.get_provider_folder(name)
    if is_held(folder):
        return await ask_control(folder, {"do": "money"})
    provider, deployment = session.get_key_address(name), network.deployment
    async with AsyncExitStack() as stack:
        database = await open_database(books)
        stack.push_async_callback(database.close)
        rpc = await stack.enter_async_context(Rpc.connect(network.rpc_url))
        domain = Domain(deployment.chain_id, deployment.escrow)
        book = await open_receipt_book(database, provider, domain, _AddressOnly(provider))
        claims = await book.read_due_claims()
        reader = ProviderMoneyReader(
            name,
            provider,
            session.get_key_address(f"{name}-receipt"),
            rpc,
            deployment,
            database,
            book,
            await open_outbox_storage(database),
            await _read_view(rpc, deployment, database, provider, claims),
            SettlementRules(),
        )
        return provider_money_to_json(await reader.read())


async def _read_view(
    rpc: Rpc,
    deployment: Deployment,
    database: Database,
    provider: Address,
    claims: list[DueClaim],
) -> ReadView:
    """What owes something, and what the last broker here saw asked back, as the chain has it."""
    head = await rpc.fetch_head()
    view = ReadView(max(0, head.number - deployment.confirmations))
    storage = await open_index_storage(database, "broker", create_provider_fold(provider))
    names = {
        found
        for key, document in (await storage.read_documents()).items()
        if (found := find_names(key)) and decode_funds(document).pending_refund
    }
    claims = sorted(claims, key=lambda claim: -claim.due)
    names |= {(claim.user, claim.signer) for claim in claims[:SUB_ACCOUNTS_READ_MAX]}
    escrow = Escrow(rpc, deployment.escrow)
    for user, signer in sorted(names):
        await view.read(escrow, user, provider, signer)
    return view


@dataclass(frozen=True)
class _AddressOnly:
    """Stands where a receipt key would, for what signs nothing."""

    address: Address

    def sign_digest(self, digest: bytes) -> Signature:
        raise InvariantError("internal_error", "books that are only looked at must sign nothing")


def _to_place(entry: dict[str, Any]) -> Place:
    return msgspec.convert(entry, Place, strict=False)
