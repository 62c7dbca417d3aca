"""HTTP/1.1 as a client: to brokers, engines, recorders and the chain's node.

    client = HttpClient(connect_s=5.0)
    response = await client.send("POST", url, headers, body, silence_s=60.0)
    while data := await response.read(): ...
    response.close()

    client        pooled connections: where a URL leads, who may be called, how many at once
    connection    one connection: an exchange at a time, with bounds on all that comes
    response      the answer of one exchange, as its reader holds it
    gathering     takes the arrivals of a fast stream together
    errors        what goes wrong, by what the caller may conclude from it

The parsing is httptools', the looking up and trying of addresses aiohappyeyeballs'. Source:
docs/decisions/0022-http-client.md.
"""

from hanse.http.client import AddressInfo, HttpClient, fetch_status
from hanse.http.errors import HttpBrokenError, HttpConnectError, HttpTimeoutError
from hanse.http.gathering import GATHER_S, GATHER_S_MAX
from hanse.http.response import HttpResponse

__all__ = [
    "GATHER_S",
    "GATHER_S_MAX",
    "AddressInfo",
    "HttpBrokenError",
    "HttpClient",
    "HttpConnectError",
    "HttpResponse",
    "HttpTimeoutError",
    "fetch_status",
]
