"""Learning that the other end of a request has hung up, without a task that waits for it.

    stop = watch_departure(scope.get("state", {}), receive, on_left)
    ...
    stop()

Behind the listener of this folder the connection itself calls `on_left`. Behind any other ASGI
server a task waits for `http.disconnect`, which costs two turns of the loop a request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

LEFT = "hanse.left"
"""Where a request's scope holds, in its state, a function that takes what to call when its
connection ends; None for nothing any more."""


def watch_departure(
    state: Mapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    on_left: Callable[[], None],
) -> Callable[[], None]:
    """Have `on_left` called once the other end has hung up; the result ends the watch."""
    listen = state.get(LEFT)
    if listen is not None:
        listen(on_left)
        return partial(listen, None)
    watching = asyncio.get_running_loop().create_task(_wait(receive, on_left))

    def stop() -> None:
        watching.cancel()

    return stop


async def _wait(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]], on_left: Callable[[], None]
) -> None:
    try:
        # a server may still hand over an empty end of the body
        while (await receive())["type"] != "http.disconnect":
            pass
    except OSError:
        pass
    on_left()
