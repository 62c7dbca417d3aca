"""What this gateway has measured itself of each service: speed, by the answers it received.

Running means in memory, a fifth of the weight on the newest. Time to the first token counts from
when the request was sent to when the first frame of a stream came; the time of each token after it
by the receipt's output tokens. Both hold what the way and the application's own slowness add, alike
for all providers.
"""

from collections.abc import Callable

import msgspec

from hanse.protocol.signatures import Address

ServiceKey = tuple[Address, int]
"""Provider and number of the service."""

WEIGHT = 0.2
"""Of the newest sample: five answers tell most of what is to be known, and old ones fade."""

TOKENS_MIN = 8
"""Output tokens from which an answer says how long a token takes."""


class Measured(msgspec.Struct, frozen=True):
    """Of one service; 0 where nothing was measured yet.

    Attributes:
        answers: that ended well.
        first_token_s: from sending to the first frame.
        token_s: of each token after it.
    """

    answers: int = 0
    first_token_s: float = 0.0
    token_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """For people; 0 if not measured."""
        return 1 / self.token_s if self.token_s else 0.0


NEVER = Measured()


class MeasuredBook:
    """Measurements of every service that was asked."""

    def __init__(self) -> None:
        self._services: dict[ServiceKey, Measured] = {}
        self._on_change: Callable[[ServiceKey], None] = _ignore

    def watch(self, on_change: Callable[[ServiceKey], None]) -> None:
        """Call this after each change."""
        self._on_change = on_change

    def get(self, key: ServiceKey) -> Measured:
        """What is known of a service."""
        return self._services.get(key, NEVER)

    def report_stream(
        self, key: ServiceKey, first_token_s: float, total_s: float, output_tokens: int
    ) -> None:
        """A stream ended well."""
        known = self._services.get(key, NEVER)
        token_s = known.token_s
        if output_tokens >= TOKENS_MIN:
            token_s = _mix(token_s, max(0.0, total_s - first_token_s) / (output_tokens - 1))
        first_token_s = _mix(known.first_token_s, first_token_s)
        self._put(key, Measured(known.answers + 1, first_token_s, token_s))

    def report_whole(self, key: ServiceKey, total_s: float, output_tokens: int) -> None:
        """A whole answer ended well: it tells the time of a token, once the first's is known."""
        known = self._services.get(key, NEVER)
        token_s = known.token_s
        if output_tokens >= TOKENS_MIN:
            token_s = _mix(token_s, max(0.0, total_s - known.first_token_s) / output_tokens)
        self._put(key, Measured(known.answers + 1, known.first_token_s, token_s))

    def _put(self, key: ServiceKey, measured: Measured) -> None:
        self._services[key] = measured
        self._on_change(key)


def _mix(known: float, sample: float) -> float:
    return known + WEIGHT * (sample - known) if known else sample


def _ignore(key: ServiceKey) -> None:
    """Nobody watches."""
