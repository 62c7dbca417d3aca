"""What was seen of providers lately, in memory: up, down, slow or dishonest.

A provider that fails is left alone for 1 s, doubling with every failure in a row up to 60 s,
then asked again by one more request; a success forgets the failures, and so does a quarter of an
hour without one. One whose answer did not verify is left alone for an hour: money is safer
elsewhere.

Nothing here is durable: after a restart everybody gets a fresh chance, except the sub-accounts that
the voucher book holds disputed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hanse.market.scoring import RISK_USUAL
from hanse.protocol.signatures import Address

BACKOFF_S_MIN = 1.0
"""After the first failure: a broker that restarts is back in about that time."""

BACKOFF_S_MAX = 60.0
"""A provider that comes back is noticed within a minute."""

FORGET_S = 900.0
"""Failures older than this say nothing about now."""

DISHONEST_S = 3_600.0
"""How long a provider is not asked after an answer that did not verify."""

LATENCY_WEIGHT = 0.2
"""Weight of the newest sample in the running mean of time to the first byte."""

FAILURE_WEIGHT = 0.1
"""Of the newest request in the running share of failures: about the last twenty count."""

AUDIT_WEIGHT = 0.3
"""Of the newest audit: audits are few, and each says more than an answer that came."""


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """What was seen of one provider. Times are unix seconds.

    Attributes:
        failures: in a row.
        down_since: of the first of them; 0 if it is up.
        retry_at: before this it is not asked.
        reason: of the latest failure, for people.
        latency_s: running mean of the time to the first byte; 0 if never seen.
        failure_share: running share of requests that failed; None if never asked.
        audit_share: running share of audits that failed.
    """

    failures: int = 0
    down_since: float = 0.0
    retry_at: float = 0.0
    reason: str = ""
    latency_s: float = 0.0
    failure_share: float | None = None
    audit_share: float = 0.0

    def is_down(self, now: float) -> bool:
        """Whether it should be left alone now."""
        return now < self.retry_at


class HealthBook:
    """Health of every provider that was asked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._providers: dict[Address, ProviderHealth] = {}
        self._on_change: Callable[[Address], None] = _ignore

    def watch(self, on_change: Callable[[Address], None]) -> None:
        """Call this after each change of a provider."""
        self._on_change = on_change

    def get(self, provider: Address) -> ProviderHealth:
        """What is known; a provider never asked counts as up."""
        return self._providers.get(provider, _UNKNOWN)

    def get_risk(self, provider: Address) -> float:
        """Share of requests and audits that failed lately, 0 to 1; what is usual if unknown."""
        known = self.get(provider)
        share = RISK_USUAL if known.failure_share is None else known.failure_share
        if share > RISK_USUAL and self._clock() - known.retry_at > FORGET_S:
            share = RISK_USUAL
        return min(1.0, share + known.audit_share)

    def report_success(self, provider: Address, latency_s: float) -> None:
        """It answered, `latency_s` after it was asked."""
        known = self.get(provider)
        if known.failures and known.is_down(self._clock()):
            return  # an older request ended well; what came since counts more
        is_news = (
            known.failures > 0 or not known.latency_s
        )  # else the next heartbeat is soon enough
        mean = known.latency_s + LATENCY_WEIGHT * (latency_s - known.latency_s)
        self._put(
            provider,
            ProviderHealth(
                latency_s=mean if known.latency_s else latency_s,
                failure_share=_mix(known.failure_share, 0.0),
                audit_share=known.audit_share,
                retry_at=known.retry_at,
            ),
            is_news=is_news,
        )

    def report_audit(self, provider: Address, *, is_passed: bool) -> None:
        """An audit of one of its answers came to an end."""
        known = self.get(provider)
        share = known.audit_share
        share += AUDIT_WEIGHT * ((0.0 if is_passed else 1.0) - share)
        self._put(provider, replace(known, audit_share=share))

    def report_failure(
        self, provider: Address, reason: str, retry_after_s: float | None = None
    ) -> None:
        """It could not be reached or did not serve; `retry_after_s` is its own wish."""
        now, known = self._clock(), self.get(provider)
        if known.failures and now - known.retry_at > FORGET_S:
            known = replace(known, failures=0)
        failures = known.failures + 1
        wait_s = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures - 1, 16))
        if retry_after_s is not None:
            wait_s = min(BACKOFF_S_MAX, max(0.0, retry_after_s))
        self._fail(provider, known, failures, max(known.retry_at, now + wait_s), reason)

    def report_dishonest(self, provider: Address, reason: str) -> None:
        """What it sent did not verify."""
        now, known = self._clock(), self.get(provider)
        self._fail(provider, known, known.failures + 1, now + DISHONEST_S, reason)

    def _fail(
        self, provider: Address, known: ProviderHealth, failures: int, retry_at: float, reason: str
    ) -> None:
        state = replace(
            known,
            failures=failures,
            down_since=known.down_since if known.failures else self._clock(),
            retry_at=retry_at,
            reason=reason,
            failure_share=_mix(known.failure_share, 1.0),
        )
        self._put(provider, state)

    def _put(self, provider: Address, state: ProviderHealth, *, is_news: bool = True) -> None:
        self._providers[provider] = state
        if is_news:
            self._on_change(provider)


def _mix(share: float | None, sample: float) -> float:
    known = RISK_USUAL if share is None else share
    return known + FAILURE_WEIGHT * (sample - known)


def _ignore(provider: Address) -> None:
    """Nobody watches."""


_UNKNOWN = ProviderHealth()
