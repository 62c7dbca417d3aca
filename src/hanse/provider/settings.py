"""Settings of a broker, with the limits that concern this process alone and their reasons."""

from dataclasses import dataclass, field
from pathlib import Path

from hanse.chain import Deployment, Key
from hanse.protocol.limits import OFFER_VALID_S_MAX
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32
from hanse.provider.attesting.sources import AttestingSettings
from hanse.settlement.netting.gas import SettlementRules
from hanse.settlement.records.submitter import RecordsSettings
from hanse.settlement.traces.capture import TraceSettings
from hanse.store.leases import LeaseTerms


@dataclass(frozen=True)
class ServingLimits:
    """Bounds of the request path.

    Attributes:
        requests_max: HTTP requests at work at once, paid or not; more get 503 `overloaded`.
        body_bytes_in_flight_max: bodies held in memory at once, over all callers.
        queue_max: admitted requests that may wait for an engine beyond those it runs at once.
        sub_account_in_flight_max: of one sub-account, so that one caller cannot take every slot.
        body_time_s: for a body to arrive; a slower caller gets 408.
        request_time_s: for an answer; a hung engine is cut off and the reservation freed.
        keep_alive_s: a stream that is silent this long gets a comment frame, so that proxies
            between do not hang up.
        send_stall_s: a caller that reads nothing of its stream this long counts as gone, so that it
            cannot hold an engine's slot for the price of a prefix.
        retry_after_s: what a refused caller is told to wait.
        choices_max: `n` of one request.
    """

    requests_max: int = 1_024
    body_bytes_in_flight_max: int = 256 * 1024 * 1024
    queue_max: int = 64
    sub_account_in_flight_max: int = 64
    body_time_s: float = 30.0
    request_time_s: float = 600.0
    keep_alive_s: float = 10.0
    send_stall_s: float = 30.0
    retry_after_s: float = 1.0
    choices_max: int = 16


@dataclass(frozen=True)
class BrokerSettings:
    """What an operator decides.

    Attributes:
        provider: the owner's address, under which the stake stands.
        data_dir: folder of this process; created with mode 0700. The database too is in it, unless
            `database` names another.
        rpc_url: the chain's node.
        deployment: which contracts.
        host, port: where to listen; port 0 takes a free one.
        endpoints: public base URLs for the offer; empty means `http://host:port`.
        region: where the models run, for the offers, such as `eu`; empty says nothing.
        stake: base units to register with; used only if the provider is not registered yet.
        payee: where settlements are paid; empty means the provider itself.
        settle_interval_s: how long a claim may wait for its settlement; 0: the clock never settles.
        settle_margin_s: settle a sub-account at the latest this long before its refund unlocks.
        settle_on_stop: one last settlement after draining, under the gas rule.
        settle_minimum: base units below which neither the clock nor the exposure settles.
        settle_exposure_max: base units that may wait; more are settled at once. 0 for no limit.
        gas_share_ppm: most of what a settlement brings that its gas may take; 10,000 is 1 %.
        native_price: base units for 10**18 wei of the chain's native coin, which gas is paid in. 0
            says that gas costs nothing here: the gas rule then never makes a settlement wait.
        maintenance_interval_s: between looks at refunds, offers and kept answers.
        drain_time_s: for requests at work to finish once the process is asked to stop.
        offer_valid_s: how long a published offer binds; renewed at half of it.
        encryption_key: X25519 public key for what is sealed to the provider; zero if none.
        traces: where bodies and answers are kept, encrypted; None for nowhere.
        attesting: how the machine attests itself; None where it cannot.
        limits: of the request path.
        database: URL or path of the store, see `hanse.store.open_database`; empty for a SQLite file
            in `data_dir`. With PostgreSQL several brokers may share it, each with a `data_dir` of
            its own; it may hold a password, so it is not shown.
        records: to which recorders receipts are submitted, and how often; none by default.
        lease: how soon brokers that share a database notice that one of them has died.
        cheats: what it does on purpose against its users; on a development chain only.
    """

    provider: Address
    data_dir: Path
    rpc_url: str
    deployment: Deployment
    host: str = "127.0.0.1"
    port: int = 0
    endpoints: tuple[str, ...] = ()
    region: str = ""
    stake: int = 0
    payee: Address = ""
    settle_interval_s: float = 86_400.0
    settle_margin_s: float = 3_600.0
    settle_on_stop: bool = False
    settle_minimum: int = 1
    settle_exposure_max: int = 0
    gas_share_ppm: int = 10_000
    native_price: int = 0
    maintenance_interval_s: float = 30.0
    drain_time_s: float = 30.0
    offer_valid_s: int = OFFER_VALID_S_MAX // 3
    encryption_key: Hash32 = ZERO_HASH
    traces: TraceSettings | None = None
    attesting: AttestingSettings | None = None
    limits: ServingLimits = field(default_factory=ServingLimits)
    database: str = field(default="", repr=False)
    records: RecordsSettings = field(default_factory=RecordsSettings)
    lease: LeaseTerms = field(default_factory=LeaseTerms)
    cheats: tuple[str, ...] = ()

    @property
    def settlement_rules(self) -> SettlementRules:
        """What of this the settlement scheduler goes by."""
        return SettlementRules(
            interval_s=self.settle_interval_s,
            refund_margin_s=self.settle_margin_s,
            exposure_max=self.settle_exposure_max,
            value_min=self.settle_minimum,
            gas_share_ppm=self.gas_share_ppm,
            native_price=self.native_price,
        )


@dataclass(frozen=True)
class BrokerKeys:
    """Keys that are already unlocked.

    Attributes:
        receipt: signs receipts and offers, publishes and settles; stays online.
        owner: registers the provider; only needed if it is not registered yet.
    """

    receipt: Key
    owner: Key | None = None
