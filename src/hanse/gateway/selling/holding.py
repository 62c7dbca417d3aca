"""The bytes of bodies at work, counted as they arrive, over all requests and by API key.

    bodies = BodyBytes()
    with bodies.hold(exchange, key, settings) as read_body:
        body = await read_body(30.0)           # `overloaded` beyond what may be held

What is not there takes no memory: were bodies counted as their heads declare them, or at their
longest where a head says nothing, some heads without a body would shut everybody out. And were one
key's bodies not held to a share, its owner could do that with bytes.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from hanse.gateway.exchange import Exchange
from hanse.gateway.keys import ApiKey
from hanse.gateway.settings import GatewaySettings
from hanse.protocol.errors import TransientError

ReadBody = Callable[[float], Awaitable[bytes]]
"""Reads a whole body within so many seconds."""

KEYS_TO_FILL = 4
"""Keys that it takes to fill what may be held; each may have one body of the longest at least."""


class BodyBytes:
    """See the module.

    Attributes:
        total: bytes held now.
        by_owner: of them, those of each key that has some.
    """

    def __init__(self) -> None:
        self.total = 0
        self.by_owner: dict[str, int] = {}

    def hold(
        self, exchange: Exchange, key: ApiKey, settings: GatewaySettings
    ) -> AbstractContextManager[ReadBody]:
        """What reads one request's body; its bytes count until the end of the block.

        A minted key counts as the key that minted it. `overloaded` comes out of the reading.
        """
        return _Held(self, exchange, key.parent or key.id, settings)


class _Held:
    """One body. A class, since two generators for it took 3 us of each request."""

    __slots__ = ("_bodies", "_exchange", "_owner", "_settings", "_size")

    def __init__(
        self, bodies: BodyBytes, exchange: Exchange, owner: str, settings: GatewaySettings
    ) -> None:
        self._bodies = bodies
        self._exchange = exchange
        self._owner = owner
        self._settings = settings
        self._size = 0

    def __enter__(self) -> ReadBody:
        return self._read

    def __exit__(self, *_: object) -> None:
        bodies = self._bodies
        bodies.total -= self._size
        held = bodies.by_owner.pop(self._owner, 0) - self._size
        if held:
            bodies.by_owner[self._owner] = held

    def _read(self, within_s: float) -> Awaitable[bytes]:
        return self._exchange.read_body(self._settings.body_bytes_max, within_s, self._take)

    def _take(self, size: int) -> None:
        """Count bytes that have come.

        Raises:
            TransientError: `overloaded`; they are not counted.
        """
        bodies, settings = self._bodies, self._settings
        most = settings.body_bytes_in_flight_max
        if bodies.total + size > most:
            raise TransientError("overloaded", f"more than {most} bytes of requests are at work")
        held = bodies.by_owner.get(self._owner, 0) + size
        share = max(most // KEYS_TO_FILL, settings.body_bytes_max)
        if held > share:
            raise TransientError(
                "overloaded", f"more than {share} bytes of this key's requests are at work"
            )
        bodies.total += size
        bodies.by_owner[self._owner] = held
        self._size += size
