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
    """

    def __init__(self) -> None:
        self.total = 0
        self._by_owner: dict[str, int] = {}

    def hold(
        self, exchange: Exchange, key: ApiKey, settings: GatewaySettings
    ) -> AbstractContextManager[ReadBody]:
        """What reads one request's body; its bytes count until the end of the block.

        A minted key counts as the key that minted it. `overloaded` comes out of the reading.
        """
        return _Held(self, exchange, key.parent or key.id, settings)

    def add(self, size: int, owner: str, most: int, share: int) -> None:
        """Count bytes that have come.

        Raises:
            TransientError: `overloaded`; they are not counted.
        """
        if self.total + size > most:
            raise TransientError("overloaded", f"more than {most} bytes of requests are at work")
        held = self._by_owner.get(owner, 0) + size
        if held > share:
            raise TransientError(
                "overloaded", f"more than {share} bytes of this key's requests are at work"
            )
        self.total += size
        self._by_owner[owner] = held

    def give_back(self, size: int, owner: str) -> None:
        """These are not at work any more."""
        self.total -= size
        held = self._by_owner.pop(owner, 0) - size
        if held:
            self._by_owner[owner] = held


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
        self._bodies.give_back(self._size, self._owner)

    def _read(self, within_s: float) -> Awaitable[bytes]:
        return self._exchange.read_body(self._settings.body_bytes_max, within_s, self._take)

    def _take(self, size: int) -> None:
        settings = self._settings
        most = settings.body_bytes_in_flight_max
        share = max(most // KEYS_TO_FILL, settings.body_bytes_max)
        self._bodies.add(size, self._owner, most, share)
        self._size += size
