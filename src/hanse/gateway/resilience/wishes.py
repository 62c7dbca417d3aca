"""The class and the deadline that an application asks for, by header.

    hanse-class: interactive | ambient | background
    hanse-deadline-ms: 1500

A request without a class has its key's, else it is interactive; above its key's class it cannot
rise. A deadline counts from when the
gateway has the request's head; at it the request ends wherever it is: in the queue, at a provider
(who is hung up on, so that its engine stops and what it had delivered is what it is paid) or amid a
stream.
"""

import asyncio
from collections.abc import Callable, Mapping

from hanse.gateway.exchange import Headers
from hanse.protocol.errors import RequestError

CLASSES = ("interactive", "ambient", "background")
"""In the order in which the queue lets them through."""

DEADLINE_MS_MAX = 3_600_000
"""An hour; no answer takes longer, a larger number is a mistake in the unit."""

_CLASS, _DEADLINE = b"hanse-class", b"hanse-deadline-ms"


def get_class(wishes: Mapping[bytes, bytes], of_key: str = "") -> str:
    """The class that a request is in.

    Raises:
        RequestError: `invalid_request`, naming the header.
    """
    given = wishes.get(_CLASS)
    if given is None:
        return of_key or CLASSES[0]
    name = given.decode("latin-1").strip().lower()
    if name not in CLASSES:
        raise RequestError(
            "invalid_request",
            f"hanse-class is {name!r:.40}, expected one of {', '.join(CLASSES)}",
            param="hanse-class",
        )
    return max(name, of_key, key=CLASSES.index) if of_key else name


def read_deadline_s(name: str, text: str) -> float:
    """The seconds of a header that gives a request so many milliseconds.

    Raises:
        RequestError: `invalid_request`, naming the header.
    """
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    if not (is_number and 0 < int(text) <= DEADLINE_MS_MAX):
        raise RequestError(
            "invalid_request",
            f"{name} is {text!r:.40}, expected whole milliseconds from 1 to {DEADLINE_MS_MAX}",
            param=name,
        )
    return int(text) / 1000


class Deadline:
    """When a request must have ended, wherever it is then."""

    def __init__(self, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline_s = deadline_s
        self._ends_at = self._loop.time() + deadline_s
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def find(cls, wishes: Mapping[bytes, bytes]) -> "Deadline | None":
        """The deadline that the application sets, counted from now; None if it sets none.

        Raises:
            RequestError: `invalid_request`, naming the header.
        """
        given = wishes.get(_DEADLINE)
        if given is None:
            return None
        return cls(read_deadline_s(_DEADLINE.decode(), given.decode("latin-1")))

    def begin(self, cut: Callable[[Exception], None], headers: Headers) -> None:
        """Cut the request when the time is over; SDKs shall not try it again by themselves."""

        def end() -> None:
            headers.append((b"x-should-retry", b"false"))
            given_ms = round(self._deadline_s * 1000)
            cut(
                RequestError(
                    "request_timeout", f"hanse-deadline-ms gave it {given_ms} ms, which are over"
                )
            )

        self._timer = self._loop.call_at(self._ends_at, end)

    def end(self) -> None:
        """It has ended by itself."""
        if self._timer is not None:
            self._timer.cancel()
