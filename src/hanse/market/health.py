"""What was seen of providers lately, in memory: up, down, slow or dishonest.

A provider that fails is left alone for 1 s, doubling with every failure in a row up to 60 s; what
fails meanwhile was under way before, and is the same failure. Then it is asked again by one
request: until its head is there, or `PROBE_S` are over, nobody else asks. A success forgets the
failures in a row, and so does a quarter of an hour without one. One that takes requests and breaks
them off succeeds and fails by turns: it is left alone by its running share of failures, which fades
by half in a minute. One whose answer did not verify is left alone for an hour: money is safer
elsewhere. One that an audit of our own caught is barred for `BARRED_S`: nothing that it answers
meanwhile lifts that.

All but the last two is for the sake of others that can be asked. Where nobody else can, one that
failed is asked as soon as `BACKOFF_S_MIN` is over since (`ProviderHealth.is_worth_a_probe`).

Nothing here is durable: after a restart everybody gets a fresh chance, except the sub-accounts that
the voucher book holds disputed.
"""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from hanse.market.reputation import get_risk_step
from hanse.market.scoring import RISK_USUAL
from hanse.protocol.signatures import Address

BACKOFF_S_MIN = 1.0
"""After the first failure: a broker that restarts is back in about that time."""

BACKOFF_S_MAX = 60.0
"""A provider that comes back is noticed within a minute."""

FAILURES_OUT = 3
"""In a row: as many as missed heartbeats say that a provider is out."""

FORGET_S = 900.0
"""Failures older than this say nothing about now."""

DISHONEST_S = 3_600.0
"""How long a provider is not asked after an answer that did not verify."""

LATENCY_WEIGHT = 0.2
"""Weight of the newest sample in the running mean of time to the first byte."""

FAILURE_WEIGHT = 0.1
"""Of the newest request in the running share of failures: about the last twenty count."""

FAILURE_HALF_LIFE_S = 60.0
"""In which what is known of failures beyond the usual loses half its weight."""

OPEN_SHARE = 0.35
"""One that fails more often than this is left alone for `OPEN_S` at a failure after a success."""

OPEN_S = 10.0
"""Long enough that a broken engine costs a request now and then, not each."""

BUSY_S = 0.1
"""How long one whose places were all taken is passed over: others are asked meanwhile."""

PROBE_S = 10.0
"""How long the one request may take that finds out whether a provider is back."""

BARRED_S = 14 * 86_400.0
"""How long a provider is not asked after an audit of our own caught it: as long as others take to
halve what it says of it (`hanse.market.reputation`). A card that was replaced is forgiven."""

DECLINED_MAX = 5
"""Times in a row, a second apart, that it may leave requests to others; then it is failing."""

BREACHES_OUT = 3
"""Bills without the commitment that their offer promised, after which a provider is barred: its own
signatures show each, and no noise can make one; a broker in the midst of a change may make one or
two."""

AUDIT_WEIGHT = 0.3
"""Of the newest audit: audits are few, and each says more than an answer that came."""


class ProviderHealth(Struct, frozen=True):
    """What was seen of one provider. Times are unix seconds.

    Attributes:
        failures: in a row.
        down_since: of the first of them; 0 if it is up.
        retry_at: before this it is not asked.
        reason: of the latest failure, for people.
        latency_s: running mean of the time to the first byte; 0 if never seen.
        failure_share: running share of requests that failed; None if never asked.
        audit_share: running share of audits that failed.
        failed_at: when `failure_share` was last told.
        is_probed: whether a request is finding out if it is back.
        is_dishonest: whether one of the failures in a row was an answer that did not verify.
        barred_until: before this it is not asked whatever it does; an audit of ours caught it.
        barred_reason: what it was caught in, for people.
    """

    failures: int = 0
    down_since: float = 0.0
    retry_at: float = 0.0
    reason: str = ""
    latency_s: float = 0.0
    failure_share: float | None = None
    audit_share: float = 0.0
    failed_at: float = 0.0
    is_probed: bool = False
    is_dishonest: bool = False
    barred_until: float = 0.0
    barred_reason: str = ""

    def is_down(self, now: float) -> bool:
        """Whether it should be left alone now."""
        return now < self.retry_at or now < self.barred_until

    def is_out(self, now: float) -> bool:
        """Whether it failed again and again, or was dishonest: no moment's trouble."""
        is_lasting = self.failures >= FAILURES_OUT or self.is_dishonest or now < self.barred_until
        return self.is_down(now) and is_lasting

    def is_worth_a_probe(self, now: float) -> bool:
        """Whether it may be asked where nobody else can be; no liar, none just fallen or probed."""
        return (
            self.failures > 0
            and not (self.is_probed or self.is_dishonest)
            and now >= self.barred_until
            and now - self.failed_at >= BACKOFF_S_MIN
        )


class HealthBook:
    """Health of every provider that was asked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._providers: dict[Address, ProviderHealth] = {}
        self._breaches: dict[Address, int] = {}
        self._declined: dict[Address, tuple[int, float]] = {}  # since its last answer
        self._doubts: dict[Address, float] = {}  # what others say, beyond the usual risk
        self._barred: set[Address] = set()
        self._on_change: Callable[[Address], None] = lambda provider: None

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
        if share > RISK_USUAL and self._clock() - known.failed_at > FORGET_S:
            share = RISK_USUAL
        doubt = self._doubts.get(provider, 0.0)
        if known.failure_share is not None:
            doubt = max(0.0, doubt)  # what was seen here counts more than others' praise
        return min(1.0, share + doubt + known.audit_share)

    def take_reputation(self, provider: Address, risk_ppm: int) -> None:
        """What everybody can compute of it from public evidence (`hanse.market.reputation`)."""
        doubt = get_risk_step(risk_ppm) / 1_000_000 - RISK_USUAL
        if doubt != self._doubts.get(provider):
            self._doubts[provider] = doubt
            self._on_change(provider)

    def begin(self, provider: Address) -> None:
        """A request is on its way; after failures it is the only one until its head is there."""
        known = self._providers.get(provider)
        if known is not None and known.failures:
            retry_at = self._clock() + PROBE_S  # also of one whose back-off would be longer
            self._put(provider, replace(known, retry_at=retry_at, is_probed=True))

    def report_success(self, provider: Address, latency_s: float) -> None:
        """It answered, `latency_s` after it was asked."""
        now, known = self._clock(), self._providers.get(provider, _UNKNOWN)
        self._declined.pop(provider, None)
        if known.failures and known.is_down(now) and not known.is_probed:
            return  # an older request ended well; what came since counts more
        # else the next heartbeat is soon enough
        is_news = known.failures > 0 or not known.latency_s
        mean = known.latency_s + LATENCY_WEIGHT * (latency_s - known.latency_s)
        self._providers[provider] = ProviderHealth(
            latency_s=mean if known.latency_s else latency_s,
            failure_share=self._mix(known, 0.0),
            audit_share=known.audit_share,
            failed_at=now,
            retry_at=0.0 if known.is_probed else known.retry_at,
            barred_until=known.barred_until,
            barred_reason=known.barred_reason,
        )
        if is_news:
            self._on_change(provider)

    def report_audit(self, provider: Address, *, is_passed: bool) -> None:
        """An audit of one of its answers came to an end."""
        known = self.get(provider)
        share = known.audit_share
        share += AUDIT_WEIGHT * ((0.0 if is_passed else 1.0) - share)
        self._put(provider, replace(known, audit_share=share))

    def bar(self, provider: Address, reason: str, until: float) -> None:
        """An audit of ours caught it: it is not asked before `until` (unix seconds)."""
        known = self.get(provider)
        if until > known.barred_until:
            self._barred.add(provider)
            self._put(provider, replace(known, barred_until=until, barred_reason=reason))

    def report_breach(self, provider: Address, reason: str) -> None:
        """It billed for what its offer promises a commitment of, without one."""
        self.report_audit(provider, is_passed=False)
        count = self._breaches.get(provider, 0) + 1
        if count >= BREACHES_OUT:
            self.bar(provider, reason, self._clock() + BARRED_S)
            count = 0
        self._breaches[provider] = count

    def list_barred(self, now: float) -> list[Address]:
        """Whom audits of ours keep out now, by address."""
        return sorted(one for one in self._barred if now < self.get(one).barred_until)

    def report_failure(
        self, provider: Address, reason: str, retry_after_s: float | None = None
    ) -> None:
        """It could not be reached or did not serve; `retry_after_s` is its own wish."""
        now, known = self._clock(), self.get(provider)
        if known.failures and known.is_down(now) and not known.is_probed and not retry_after_s:
            return  # of the same event: what was under way when it died fails together
        if known.failures and now - known.retry_at > FORGET_S:
            known = replace(known, failures=0, is_dishonest=False)
        failures = known.failures + 1
        wait_s = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(failures - 1, 16))
        if not known.failures and self._mix(known, 1.0) > OPEN_SHARE:
            wait_s = max(wait_s, OPEN_S)
        if retry_after_s is not None:
            wait_s = min(BACKOFF_S_MAX, max(0.0, retry_after_s))
        if not known.is_probed:  # a probe's end takes the time back that it was given
            wait_s = max(wait_s, known.retry_at - now)
        self._fail(provider, known, failures, now + wait_s, reason)

    def report_busy(self, provider: Address, reason: str) -> None:
        """All its places were taken: no failure; its own wish for a pause is made for others."""
        self.report_there(provider)
        known = self.get(provider)
        retry_at = max(known.retry_at, self._clock() + BUSY_S)
        since = known.down_since if known.failures else self._clock()
        self._put(provider, replace(known, retry_at=retry_at, down_since=since, reason=reason))

    def report_there(self, provider: Address) -> None:
        """It refused a request for a reason of the request's own: whoever was to find out knows."""
        known = self.get(provider)
        if known.is_probed:
            back = replace(known, failures=0, retry_at=0.0, is_probed=False, is_dishonest=False)
            self._put(provider, back)

    def report_declined(self, provider: Address, reason: str) -> None:
        """It refused what another then served: no failure, unless it does nothing else."""
        now, (times, again_at) = self._clock(), self._declined.get(provider, (0, 0.0))
        if now >= again_at:  # requests that were under way together are refused together
            self._declined[provider] = times + 1, now + BACKOFF_S_MIN
            if times >= DECLINED_MAX:
                self.report_failure(provider, reason)

    def report_dishonest(self, provider: Address, reason: str) -> None:
        """What it sent did not verify."""
        now, known = self._clock(), replace(self.get(provider), is_dishonest=True)
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
            failure_share=self._mix(known, 1.0),
            failed_at=self._clock(),
            is_probed=False,
        )
        self._put(provider, state)

    def _mix(self, known: ProviderHealth, sample: float) -> float:
        """The running share of failures with one more sample; the old ones fade with time."""
        share = RISK_USUAL
        if known.failure_share is not None:
            faded = 0.5 ** ((self._clock() - known.failed_at) / FAILURE_HALF_LIFE_S)
            share += (known.failure_share - RISK_USUAL) * faded
        return share + FAILURE_WEIGHT * (sample - share)

    def _put(self, provider: Address, state: ProviderHealth) -> None:
        self._providers[provider] = state
        self._on_change(provider)


_UNKNOWN = ProviderHealth()
