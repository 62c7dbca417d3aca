"""`Transport` over the network: pooled connections to all brokers.

No redirects (a voucher must not be handed on), no cookies, no proxies from the environment, no
compression (the receipt's hash is over the bytes as they were sent), and, unless it is asked for,
no connection to a private address: anybody with a stake may publish an endpoint, and must not get
this machine to send requests to what only this machine can reach.
"""

import ipaddress
import socket
from collections.abc import Mapping

from hanse.http import (
    AddressInfo,
    HttpBrokenError,
    HttpClient,
    HttpConnectError,
    HttpResponse,
    HttpTimeoutError,
)
from hanse.sdk.transport import BrokenError, NotSentError, Response, TransportLimits

KEEP_ALIVE_S = 30.0
"""An idle connection is dropped long before a broker does it (after 75 s): a request must not meet
a connection that is just closing, since its fate would be unknown."""

PRIVATE_REFUSED = (
    "the endpoint is at a private address, which a published endpoint may not be; "
    "set private_endpoints if this market is your own"
)

_HEADERS = {"accept-encoding": "identity", "user-agent": "hanse"}


class _PrivateAddressError(OSError):
    """The endpoint's address is not one of the open network."""


class HttpTransport:
    """`Transport` over the network; create it inside a running event loop."""

    def __init__(
        self, limits: TransportLimits | None = None, *, reaches_private: bool = False
    ) -> None:
        """Open no connection yet.

        Args:
            limits: how long and how much.
            reaches_private: whether loopback, link-local and private addresses may be called.
        """
        self._limits = limits or TransportLimits()
        self._client = HttpClient(
            connect_s=self._limits.connect_s,
            idle_s=KEEP_ALIVE_S,
            socket_factory=None if reaches_private else _open_public_socket,
        )

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, silence_s: float
    ) -> Response:
        """See `Transport.send`."""
        try:
            answer = await self._client.send(
                method,
                url,
                {**_HEADERS, **headers},
                body,
                silence_s=silence_s,
                total_s=self._limits.total_s,
            )
        except HttpConnectError as error:
            if isinstance(error.__cause__, _PrivateAddressError):
                raise NotSentError(PRIVATE_REFUSED) from None
            raise NotSentError(str(error)) from None
        except ValueError:
            raise NotSentError("the endpoint is not a valid URL") from None
        except HttpTimeoutError:
            raise BrokenError(f"no answer within {silence_s:g} s") from None
        except HttpBrokenError as error:
            raise BrokenError(f"no answer ({error})") from None
        return _HttpResponse(answer)

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._client.close()


class _HttpResponse:
    def __init__(self, answer: HttpResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.close = answer.close

    def find_header(self, name: str) -> str | None:
        return self._answer.headers.get(name)

    async def read(self) -> bytes:
        try:
            return await self._answer.read()
        except HttpTimeoutError:
            raise BrokenError("the answer stopped coming") from None
        except HttpBrokenError as error:
            raise BrokenError(f"the answer broke off ({error})") from None


def _open_public_socket(address_info: AddressInfo) -> socket.socket:
    """A socket for one resolved address: after the name was looked up, so no name gets around."""
    family, kind, protocol, _, address = address_info
    host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    if not host.is_global:
        raise _PrivateAddressError("not a public address")
    return socket.socket(family, kind, protocol)
