"""The bytes of bodies at work, counted as they arrive, over all requests and by API key.

    bodies = BodyBytes()
    with bodies.hold(key, settings) as take:
        take(len(part))                        # `overloaded` beyond what may be held

What is not there takes no memory: were bodies counted as their heads declare them, or at their
longest where a head says nothing, some heads without a body would shut everybody out. And were one
key's bodies not held to a share, its owner could do that with bytes.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

from hanse.gateway.keys import ApiKey
from hanse.gateway.settings import GatewaySettings
from hanse.protocol.errors import TransientError

KEYS_TO_FILL = 4
"""Keys that it takes to fill what may be held; each may have one body of the longest at least."""


class BodyBytes:
    """See the module.

    Attributes:
        total: bytes held now.
    """

    def __init__(self) -> None:
        self.total = 0
        self._by_owner: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, key: ApiKey, settings: GatewaySettings) -> Iterator[Callable[[int], None]]:
        """What counts one request's parts, until its end.

        A minted key counts as the key that minted it.

        Raises:
            TransientError: `overloaded`, of what is yielded.
        """
        owner = key.parent or key.id
        most = settings.body_bytes_in_flight_max
        share = max(most // KEYS_TO_FILL, settings.body_bytes_max)
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if self.total + size > most:
                raise TransientError(
                    "overloaded", f"more than {most} bytes of requests are at work"
                )
            if self._by_owner[owner] + size > share:
                raise TransientError(
                    "overloaded", f"more than {share} bytes of this key's requests are at work"
                )
            held += size
            self.total += size
            self._by_owner[owner] += size

        try:
            yield take
        finally:
            self.total -= held
            self._by_owner[owner] -= held
            if not self._by_owner[owner]:
                del self._by_owner[owner]
