"""Registry with types: providers, their keys, stakes and services.

    registry = Registry(rpc, deployment.registry)
    info = await registry.read_provider(provider, block=confirmed)

Reads are views at `block`; writes return a `Call`. Promises and revert reasons stand in
`Registry.vy`.
"""

from dataclasses import dataclass

from hanse.chain.chain_types import BlockNumber, Call
from hanse.chain.contract import Contract
from hanse.chain.rpc import Rpc
from hanse.contracts.artifacts import load_artifact
from hanse.protocol.signatures import ZERO_ADDRESS, to_bytes, to_hex


@dataclass(frozen=True)
class ProviderInfo:
    """A provider on chain; times in unix seconds. What is not there is 0 or the zero address.

    Attributes:
        stake: base units.
        unbonding_until_s: when the stake may be taken out.
        receipt_key: who signs offers and receipts, and may settle.
        payee: where settlements are paid.
        next_receipt_key, next_receipt_key_from_s, next_payee, next_payee_from_s: announced changes.
        pool: base units of a condemned provider's stake that are left for its victims.
        condemned_until_s: until when those are paid; 0 if it is not condemned.
    """

    stake: int
    unbonding_until_s: int
    receipt_key: str
    payee: str
    next_receipt_key: str
    next_receipt_key_from_s: int
    next_payee: str
    next_payee_from_s: int
    pool: int
    condemned_until_s: int

    @property
    def is_registered(self) -> bool:
        """Whether it ever registered and has not left."""
        return self.receipt_key != ZERO_ADDRESS

    @property
    def is_condemned(self) -> bool:
        """Whether a proof against it was accepted: it is never active again."""
        return self.condemned_until_s != 0


@dataclass(frozen=True)
class ServiceInfo:
    """A service on chain: hash of its offer, revision, and whether it is on the market."""

    offer_hash: str
    revision: int
    active: bool


@dataclass(frozen=True)
class PublishedService:
    """What `publish_service` announces. Prices are base units per million tokens."""

    service_id: int
    revision: int
    offer_hash: str
    service_type: str
    uri: str
    input_price_per_mtok: int
    cached_price_per_mtok: int
    output_price_per_mtok: int


class Registry:
    """Registry at an address, through one node."""

    def __init__(self, rpc: Rpc, address: str) -> None:
        self.contract = Contract(rpc, load_artifact("Registry"), address)
        self.address = self.contract.address

    # reads

    async def read_provider(self, provider: str, *, block: BlockNumber) -> ProviderInfo:
        """All that is known of a provider; zeros if it never registered."""
        (found,) = await self.contract.read("get_provider", provider, block=block)
        return ProviderInfo(*found)

    async def read_is_active(self, provider: str, *, block: BlockNumber) -> bool:
        """Whether its stake stands: at least the minimum, not unbonding, not condemned."""
        (active,) = await self.contract.read("is_active", provider, block=block)
        return bool(active)

    async def read_service(
        self, provider: str, service_id: int, *, block: BlockNumber
    ) -> ServiceInfo:
        """One service; revision 0 if it was never published."""
        (found,) = await self.contract.read("get_service", provider, service_id, block=block)
        offer_hash, revision, active = found
        return ServiceInfo(to_hex(offer_hash), revision, active)

    async def find_provider_of_key(self, receipt_key: str, *, block: BlockNumber) -> str | None:
        """Whose receipt key this is."""
        (found,) = await self.contract.read("provider_of_receipt_key", receipt_key, block=block)
        return None if found == ZERO_ADDRESS else str(found)

    async def read_minimum_stake(self, *, block: BlockNumber) -> int:
        """Base units below which a provider is not active."""
        (found,) = await self.contract.read("minimum_stake", block=block)
        return int(found)

    async def read_asset(self, *, block: BlockNumber) -> str:
        """The ERC-20 that stakes are in."""
        (found,) = await self.contract.read("asset", block=block)
        return str(found)

    async def read_escrow(self, *, block: BlockNumber) -> str:
        """The Escrow that belongs to it."""
        (found,) = await self.contract.read("escrow", block=block)
        return str(found)

    async def read_disputes(self, *, block: BlockNumber) -> str:
        """The Disputes that belongs to it."""
        (found,) = await self.contract.read("disputes", block=block)
        return str(found)

    # the owner's calls

    def register(self, stake: int, receipt_key: str, payee: str) -> Call:
        """Become a provider; the asset's allowance for Registry must cover the stake."""
        return self.contract.build(
            "register", stake, receipt_key, payee, label=f"register with stake {stake}"
        )

    def add_stake(self, amount: int) -> Call:
        """Raise the stake."""
        return self.contract.build("add_stake", amount, label=f"add stake {amount}")

    def begin_unbonding(self) -> Call:
        """Leave the market; the stake comes free after the unbonding time."""
        return self.contract.build("begin_unbonding", label="begin unbonding")

    def cancel_unbonding(self) -> Call:
        """Stay after all."""
        return self.contract.build("cancel_unbonding", label="cancel unbonding")

    def finish_unbonding(self, provider: str) -> Call:
        """Pay a stake out whose time has passed; anyone may."""
        return self.contract.build("finish_unbonding", provider, label="finish unbonding")

    def burn_rest(self, provider: str) -> Call:
        """Burn what victims left of a condemned stake when the window is over; anyone may."""
        return self.contract.build("burn_rest", provider, label=f"burn rest of {provider}")

    def announce_receipt_key(self, receipt_key: str) -> Call:
        """Begin to change the receipt key; it counts after the key delay."""
        return self.contract.build(
            "announce_receipt_key", receipt_key, label="announce receipt key"
        )

    def complete_receipt_key(self, provider: str) -> Call:
        """Finish the change; anyone may."""
        return self.contract.build("complete_receipt_key", provider, label="complete receipt key")

    def announce_payee(self, payee: str) -> Call:
        """Begin to change where settlements are paid."""
        return self.contract.build("announce_payee", payee, label="announce payee")

    def complete_payee(self, provider: str) -> Call:
        """Finish the change; anyone may."""
        return self.contract.build("complete_payee", provider, label="complete payee")

    # the owner's or the receipt key's calls

    def publish_service(self, provider: str, published: PublishedService) -> Call:
        """Put an offer on the market or replace it by a higher revision."""
        return self.contract.build(
            "publish_service",
            provider,
            published.service_id,
            published.revision,
            to_bytes(published.offer_hash),
            published.service_type,
            published.uri,
            published.input_price_per_mtok,
            published.cached_price_per_mtok,
            published.output_price_per_mtok,
            label=f"publish service {published.service_id} revision {published.revision}",
        )

    def retire_service(self, provider: str, service_id: int) -> Call:
        """Take a service off the market."""
        return self.contract.build(
            "retire_service", provider, service_id, label=f"retire service {service_id}"
        )
