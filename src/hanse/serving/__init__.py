"""Listening for HTTP: uvicorn with the bounds that it lacks, for broker and gateway alike.

    listener = listen(host, port)                   # port 0 takes a free one
    config = create_config(app, connections_max=4_096, descriptors_each=2)
    server = HttpServer.bind(host, port)            # the whole of it, inside a loop of one's own
    await server.start(app)     server.url     await server.stop()

    listener     socket, descriptors, uvicorn's settings       server    start and stop
    connection   one connection: bounds of its head, its idle time
    gathering    one packet for what belongs together
    departure    learning that the other end has hung up
    looks        one timer for all requests that want a look every so often
    process      the loops beside a server, and its end by a signal

Applications are raw ASGI. In `scope["state"][ABORT]` each request finds a function that drops its
connection, and in `scope["state"][COMPLETE]` its body once all of that has come. Whose process this
is, what it answers and how it drains are no business of this folder.

Source: docs/decisions/0011-serving.md.
"""

from hanse.serving.connection import (
    ABORT,
    COMPLETE,
    HEAD_BYTES_MAX,
    HEAD_READ_S,
    BoundedHttpProtocol,
)
from hanse.serving.departure import watch_departure
from hanse.serving.listener import CLOSING_S, create_config, grant_connections, listen
from hanse.serving.looks import Looks
from hanse.serving.process import Loops, ServingProcess, run_until_signal
from hanse.serving.server import HttpServer, QuietServer

__all__ = [
    "ABORT",
    "COMPLETE",
    "HEAD_BYTES_MAX",
    "HEAD_READ_S",
    "CLOSING_S",
    "BoundedHttpProtocol",
    "HttpServer",
    "Looks",
    "Loops",
    "QuietServer",
    "ServingProcess",
    "create_config",
    "grant_connections",
    "listen",
    "run_until_signal",
    "watch_departure",
]
