"""`Transport` over aiohttp: one pooled session for all brokers.

No redirects (a voucher must not be handed on), no cookies, no proxies from the environment, no
compression (the receipt's hash is over the bytes as they were sent), and, unless it is asked for,
no connection to a private address: anybody with a stake may publish an endpoint, and must not get
this machine to send requests to what only this machine can reach.
"""

import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping

import aiohttp

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
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE_S,
                socket_factory=None if reaches_private else _open_public_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            skip_auto_headers=("Accept", "Content-Type"),
        )

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, silence_s: float
    ) -> Response:
        """See `Transport.send`."""
        timeout = aiohttp.ClientTimeout(
            total=self._limits.total_s, sock_connect=self._limits.connect_s, sock_read=silence_s
        )
        try:
            answer = await self._session.request(
                method,
                url,
                data=body or None,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if isinstance(getattr(error, "os_error", None), _PrivateAddressError):
                raise NotSentError(PRIVATE_REFUSED) from None
            raise NotSentError(f"cannot connect ({type(error).__name__})") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise NotSentError("the endpoint is not a valid URL") from None
        except TimeoutError:
            raise BrokenError(f"no answer within {silence_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BrokenError(f"no answer ({type(error).__name__})") from None
        return _HttpResponse(answer)

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._session.close()


class _HttpResponse:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status

    def find_header(self, name: str) -> str | None:
        return self._answer.headers.get(name)

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._answer.content
        try:
            while chunk := await content.readany():
                yield chunk
        except TimeoutError:
            raise BrokenError("the answer stopped coming") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BrokenError(f"the answer broke off ({type(error).__name__})") from None

    def close(self) -> None:
        # Gives the connection back if the body has ended, else closes it.
        if self._answer.content.at_eof():
            self._answer.release()
        else:
            self._answer.close()


def _open_public_socket(address_info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for one resolved address: after the name was looked up, so no name gets around."""
    family, kind, protocol, _, address = address_info
    host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    if not host.is_global:
        raise _PrivateAddressError(f"{host} is not a public address")
    return socket.socket(family, kind, protocol)
