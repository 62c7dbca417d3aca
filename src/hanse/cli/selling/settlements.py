"""Settling from the command line: by the running broker if there is one, else by this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.chain import Rpc
from hanse.chain.escrow import Escrow
from hanse.cli.control import ask_control, hold_folder, is_held
from hanse.cli.network import Network
from hanse.cli.session import Session
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import InvariantError, RequestError
from hanse.protocol.signatures import Address, Signature
from hanse.settlement import DueClaim, open_receipt_book
from hanse.settlement.netting.settled import SettlementBatch
from hanse.settlement.records.submitter import RecordsSettings
from hanse.store import open_database

if TYPE_CHECKING:
    from hanse.cli.selling.settlement_plans import GasOptions
    from hanse.provider import BrokerProcess

SUB_ACCOUNTS_READ_MAX = 1_000
"""Sub-accounts that a dry run asks the chain about, largest first; a batch takes 200."""


@dataclass(frozen=True)
class PayableClaim:
    """A claim, and what it would bring now: what is due, at most what the sub-account holds."""

    claim: DueClaim
    balance: int
    claimed: int

    @property
    def payable(self) -> int:
        """Base units."""
        return max(0, min(self.claim.cumulative_fee - self.claimed, self.balance))


async def settle(
    session: Session, network: Network, name: str, gas: "GasOptions", *, use_keyring: bool
) -> dict[str, Any]:
    """Claim all that is payable and worth its gas, and return what became of it.

    Raises:
        HanseError: the chain, the node or the broker refused.
    """
    books, folder = get_books(session, name), session.get_provider_folder(name)
    if is_held(folder):
        return await ask_control(folder, {"do": "settle", "gas_share_ppm": gas.gas_share_ppm})
    from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings

    receipt = session.unlock_key(f"{name}-receipt", use_keyring=use_keyring)
    settings = BrokerSettings(
        provider=session.get_key_address(name),
        data_dir=folder,
        rpc_url=network.rpc_url,
        deployment=network.deployment,
        settle_interval_s=0,
        native_price=gas.choose_native_price(network),
        records=RecordsSettings(network.recorders),
        database=books,
    )
    with hold_folder(folder):
        # a broker without services: it recovers the books and indexes the chain as always
        process = await BrokerProcess.start(settings, BrokerKeys(receipt=receipt), [])
        try:
            return await settle_by(process, gas.gas_share_ppm)
        finally:
            await process.stop()


async def settle_by(process: "BrokerProcess", gas_share_ppm: int | None) -> dict[str, Any]:
    """Let a broker of this process settle; the document also says what it left, and why."""
    document = to_document(await process.settle_now(gas_share_ppm))
    plan = await process.scheduler.make_plan(asked=True, gas_share_ppm=gas_share_ppm)
    if plan.value and not plan.batches:  # else it came in meanwhile, and has its own time
        document["left"] = {"value": str(plan.value), "reason": plan.reason, "words": plan.words}
    return document


async def read_payable(session: Session, network: Network, name: str) -> list[PayableClaim]:
    """What `settle` would claim, largest first; needs no password and changes nothing."""
    provider = session.get_key_address(name)
    claims = await read_due(session, network, name, provider)
    async with Rpc.connect(network.rpc_url) as rpc:
        head = await rpc.fetch_head()
        block = max(0, head.number - network.deployment.confirmations)
        escrow = Escrow(rpc, network.deployment.escrow)
        found = []
        for claim in claims[:SUB_ACCOUNTS_READ_MAX]:
            held = await escrow.read_sub_account(claim.user, provider, claim.signer, block=block)
            found.append(PayableClaim(claim, held.balance, held.claimed))
    return sorted(found, key=lambda claim: -claim.payable)


async def read_due(
    session: Session, network: Network, name: str, provider: Address
) -> list[DueClaim]:
    """What the books say is owed and not seen on the chain."""
    deployment = network.deployment
    database = await open_database(get_books(session, name))
    try:
        domain = Domain(deployment.chain_id, deployment.escrow)
        book = await open_receipt_book(database, provider, domain, _Reader(provider))
        return await book.read_due_claims()
    finally:
        await database.close()


def get_books(session: Session, name: str) -> str:
    """The store of a provider of this home: a file's path, or a URL.

    Raises:
        RequestError: `not_found` if its books are a file, and that provider never ran here.
    """
    if store := session.get_store(name):
        return store
    from hanse.provider.lifecycle import DATABASE_NAME

    path = session.get_provider_folder(name) / DATABASE_NAME
    if not path.is_file():
        known = sorted(found.parent.name for found in session.home.glob(f"*/{DATABASE_NAME}"))
        others = f"; these did: {', '.join(known)} (--name {known[0]})" if known else ""
        raise RequestError(
            "not_found",
            f"provider {name!r} has no books in {session.home}; it never ran here: "
            f"hanse provider start --name {name}{others}",
        )
    return str(path)


def to_document(batches: Sequence[SettlementBatch]) -> dict[str, Any]:
    """Settlement batches as a JSON document."""
    return {
        "batches": [
            {
                "transaction_hash": batch.transaction_hash,
                "block_number": batch.block_number,
                "gas_used": batch.gas_used,
                "paid": str(batch.paid),
                "claims": [
                    {
                        "user": claim.user,
                        "signer": claim.signer,
                        "status": claim.status_name,
                        "paid": str(claim.paid),
                    }
                    for claim in batch.claims
                ],
            }
            for batch in batches
        ],
        "paid": str(sum(batch.paid for batch in batches)),
    }


@dataclass(frozen=True)
class _Reader:
    """Stands where a receipt key would, for reading only."""

    address: Address

    def sign_digest(self, digest: bytes) -> Signature:
        raise InvariantError("internal_error", "reading the books must sign nothing")
