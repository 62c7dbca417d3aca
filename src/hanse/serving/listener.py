"""A listening socket, the descriptors behind it, and uvicorn's settings."""

import resource
import socket
from typing import Any

import uvicorn

from hanse.protocol.errors import RequestError
from hanse.serving.connection import HEAD_READ_S, BoundedHttpProtocol

BACKLOG = 2_048
"""Connections that the system accepts before this process takes them."""

CONNECTIONS_MAX = 8_192
"""Open connections, where nothing else is set. Fewer where the system grants fewer descriptors."""

DESCRIPTORS_KEPT = 128
"""Descriptors that connections may not take: books, engines, chain and logs need some."""

KEEP_ALIVE_S = 75
"""An idle connection is kept this long: longer than the pools of common clients."""

CLOSING_S = 5
"""For requests that were cancelled at the end to tell the other side."""


def listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """Take an address; port 0 takes a free port.

    Args:
        host: address of this machine.
        port: to take; 0 for any.
        is_shared: whether other processes that say so too may take the same one (SO_REUSEPORT);
            the system then deals new connections out among them.

    Raises:
        RequestError: `configuration_invalid` if the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, reuse_port=is_shared
        )
    except OSError as error:
        raise RequestError(
            "configuration_invalid",
            f"cannot listen on {host} port {port}: {error.strerror}; "
            "name another port, or stop what listens there",
            param="port",
        ) from None
    # Accepted sockets inherit it. asyncio sets it only on sockets whose protocol number is given,
    # and a stream of small frames without it waits 40 ms for the other end's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def grant_connections(wanted: int, descriptors_each: int) -> int:
    """Connections that this process may hold: raises its descriptors as far as the system lets.

    Without descriptors left nothing works: neither the books nor a call to anybody.

    Args:
        wanted: how many, if the system grants them.
        descriptors_each: that one connection takes; 2 if each may lead to a call elsewhere.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = descriptors_each * wanted + DESCRIPTORS_KEPT
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    granted = max(soft, needed)
    return max(1, min(wanted, (granted - DESCRIPTORS_KEPT) // descriptors_each))


def create_config(
    app: Any,
    *,
    connections_max: int = CONNECTIONS_MAX,
    descriptors_each: int = 1,
    head_read_s: float = HEAD_READ_S,
    keep_alive_s: int = KEEP_ALIVE_S,
) -> uvicorn.Config:
    """Uvicorn's settings for a raw ASGI application; see `grant_connections` for the counts."""

    class Protocol(BoundedHttpProtocol):
        """With the limits of this listener."""

    Protocol.connections_max = grant_connections(connections_max, descriptors_each)
    Protocol.head_read_s = head_read_s
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are one line for each malformed request
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=CLOSING_S,
    )
