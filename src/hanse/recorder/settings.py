"""Settings of a recorder, with the limits that concern this process alone and their reasons."""

from dataclasses import dataclass, field
from pathlib import Path

from hanse.chain import Deployment


@dataclass(frozen=True)
class RecorderLimits:
    """Bounds of what strangers may cause.

    Attributes:
        requests_max: HTTP requests at work at once; more get 503 `overloaded`.
        body_time_s: for a body to arrive.
        entries_per_s: of one party in the long run; a busy provider has some hundred a second.
        entries_burst: of one party at once, after a quiet time: what an hour offline piles up.
        lookups_per_s: keys and sub-accounts asked of the chain's node, of each of four kinds, so
            that one flood leaves the others room; known ones cost none.
        lookups_burst: of those at once.
        open_leaves_max: matched and not committed, over all: above it nothing new is taken, since
            its promised block could not be kept.
        open_leaves_of_provider_max: of those from one provider: a quarter, so that a provider in
            league with a user holds up itself and no other.
        leaves_per_day_of_provider: matched a day (UTC) of one provider. They are kept for ever,
            about 620 bytes each, so a registered provider fills at most 3.1 GB of the disk a day.
        leaves_per_day_of_sub_account: of one sub-account: a fifth of that, 11 requests a second.
        proofs_per_s: asked for by one caller in the long run. They need no signature, so a caller
            is a network address (of IPv6 the first half); a proof is 0.1 ms of a processor.
        proofs_burst: of those at once: what a side that was away for a while lacks.
        chain_silence_s: without news of the chain nothing is promised any more: a promise counts
            from the head last seen, and with blocks of a second 20 are left for all delays.
    """

    requests_max: int = 256
    body_time_s: float = 30.0
    entries_per_s: float = 500.0
    entries_burst: float = 50_000.0
    lookups_per_s: float = 50.0
    lookups_burst: float = 500.0
    open_leaves_max: int = 4 * 65_536
    open_leaves_of_provider_max: int = 65_536
    leaves_per_day_of_provider: int = 5_000_000
    leaves_per_day_of_sub_account: int = 1_000_000
    proofs_per_s: float = 1_000.0
    proofs_burst: float = 20_000.0
    chain_silence_s: float = 10.0


@dataclass(frozen=True)
class RecorderSettings:
    """What an operator decides.

    Attributes:
        data_dir: folder of the database; created with mode 0700.
        rpc_url: the chain's node.
        deployment: which contracts.
        host, port: where to listen; port 0 takes a free one.
        database: URL or path of the store; empty for a file in `data_dir`.
        interval_blocks: blocks between commits; nothing is committed when nothing is matched.
        promise_blocks: within how many blocks a matched entry's root is promised; 0 for twice the
            interval, twice the confirmations and 20 for a transaction that has to be raised.
        poll_interval_s: between looks at the chain's head.
        limits: of what strangers may cause.
    """

    data_dir: Path
    rpc_url: str
    deployment: Deployment
    host: str = "127.0.0.1"
    port: int = 0
    database: str = ""
    interval_blocks: int = 10
    promise_blocks: int = 0
    poll_interval_s: float = 1.0
    limits: RecorderLimits = field(default_factory=RecorderLimits)

    def get_promise_blocks(self) -> int:
        """See `promise_blocks`."""
        least = 2 * self.interval_blocks + 2 * self.deployment.confirmations + 20
        return self.promise_blocks or least
