"""What whoever runs the user's side decides."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from hanse.chain import Deployment, Key, Rpc, verify_deployment
from hanse.protocol.limits import HEARTBEAT_INTERVAL_S
from hanse.protocol.signatures import Address
from hanse.sdk.choosing import Choosing
from hanse.sdk.transport import Transport, TransportLimits
from hanse.sdk.upkeep.rules import UpkeepSettings
from hanse.settlement.records.submitter import RecordsSettings
from hanse.settlement.traces.capture import TraceSettings

DEVELOPMENT_CHAIN_ID = 31_337
"""The chain id of development nodes, on which a whole market runs on one machine."""


@dataclass(frozen=True)
class Settings:
    """Settings of `Hanse.open`.

    Attributes:
        rpc_url: the chain's node.
        deployment: which contracts.
        database: file or URL of the books, see `hanse.store.open_database`; one for each user on
            each Escrow.
        signer: signs vouchers: the wallet itself, or a session key whose sub-accounts are funded.
        user: the wallet's address; empty means the signer's.
        wallet: sends transactions; None where only bought is (a session key needs none).
        limits: of the requests to brokers.
        transport: to the brokers; None for HTTP.
        private_endpoints: whether brokers at loopback and private addresses are called. Anybody
            with a stake may publish any endpoint. None: on a development chain only.
        traces: where bodies and answers are kept, encrypted; None for nowhere.
        kept_answers: folder for answers that an auditor may draw; None to keep none.
        choosing: how providers are chosen.
        records: to which recorders receipts are submitted, and how often; none by default.
        discover_interval_s: between looks at the market; 0 for none.
        resume_interval_s: between rounds over requests of unknown end; 0 for none.
        dispute_interval_s: between looks at what providers claimed and signed; 0 for none.
        heartbeat_interval_s: between two looks at how busy brokers are, at least 2 s: they make a
            new heartbeat once a second; 0 for none.
        upkeep: how sub-accounts are opened, filled up and emptied by themselves; None for not. It
            needs the wallet's key.
        auto_dispute: whether a proven cheat is brought to the chain at once, with the wallet's key
            or else the signer's; it takes native coin.
        is_served: whether the loop is a server's, see `hanse.store.open_sqlite`.
    """

    rpc_url: str
    deployment: Deployment
    database: str | Path = field(repr=False)
    signer: Key
    user: Address = ""
    wallet: Key | None = None
    limits: TransportLimits = field(default_factory=TransportLimits)
    transport: Transport | None = None
    private_endpoints: bool | None = None
    traces: TraceSettings | None = None
    kept_answers: Path | None = None
    choosing: Choosing = field(default_factory=Choosing)
    records: RecordsSettings = field(default_factory=RecordsSettings)
    discover_interval_s: float = 15.0
    resume_interval_s: float = 30.0
    dispute_interval_s: float = 5.0
    heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S
    upkeep: UpkeepSettings | None = None
    auto_dispute: bool = True
    is_served: bool = False

    def get_user(self) -> Address:
        """Whose money it is."""
        if self.user:
            return self.user.lower()
        return self.wallet.address if self.wallet else self.signer.address

    @property
    def reaches_private(self) -> bool:
        """Whether brokers at private addresses are called."""
        return reaches_private(self.private_endpoints, self.deployment)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Rpc]:
        """The chain's node, after a check that the deployment is there.

        Raises:
            HanseError: `chain_unavailable`, or a deployment that is not what the file says.
        """
        async with Rpc.connect(self.rpc_url) as rpc:
            await verify_deployment(rpc, self.deployment)
            yield rpc


def reaches_private(asked: bool | None, deployment: Deployment) -> bool:
    """Whether brokers at private addresses are called: as asked, else on a development chain."""
    return deployment.chain_id == DEVELOPMENT_CHAIN_ID if asked is None else asked
