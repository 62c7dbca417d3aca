"""A stand-in for Godot's HTTPClient over a real socket that never blocks.

It keeps to the states that Godot 4 goes through (its core/io/http_client_tcp.cpp): one chunk a
read, the body's end by a read of its own, the head's fields given once, and a poll that finds the
connection gone once the server has closed it and all is read, even after a whole answer.
"""

import select
import socket
from typing import Any

from tests.examples.games.gdscript.objects import GodotError

_READ_BYTES = 65536


class HTTPClient:
    STATUS_DISCONNECTED = 0
    STATUS_RESOLVING = 1
    STATUS_CONNECTING = 3
    STATUS_CANT_CONNECT = 4
    STATUS_CONNECTED = 5
    STATUS_REQUESTING = 6
    STATUS_BODY = 7
    STATUS_CONNECTION_ERROR = 8
    METHOD_POST = 2
    _INVALID_PARAMETER = 31

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._status = self.STATUS_DISCONNECTED
        self._host = ""
        self._unsent = b""
        self._unread = b""
        self._finished = self._at_trailer = False
        self._code = 0
        self._headers: dict[str, str] = {}

    @classmethod
    def new(cls) -> "HTTPClient":
        return cls()

    def connect_to_host(self, host: str, port: int, options: Any) -> int:
        if options is not None:
            raise GodotError("no TLS here")
        if not host:
            return self._INVALID_PARAMETER
        self._host = f"{host}:{port}"
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.connect_ex((host, port))
        self._status = self.STATUS_CONNECTING
        return 0

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._status = self.STATUS_DISCONNECTED
        self._unsent = self._unread = b""
        self._code, self._headers = 0, {}

    def get_status(self) -> int:
        return self._status

    def get_response_code(self) -> int:
        return self._code

    def get_response_headers_as_dictionary(self) -> dict[str, str]:
        headers, self._headers = self._headers, {}
        return headers

    def request(self, method: int, path: str, headers: list[str], body: str) -> int:
        if method != self.METHOD_POST or self._status != self.STATUS_CONNECTED:
            raise GodotError(f"a request by method {method} in status {self._status}")
        content = body.encode()
        fields = [*headers, f"Host: {self._host}", f"Content-Length: {len(content)}"]
        head = "\r\n".join([f"POST {path} HTTP/1.1", *fields, "", ""])
        self._unsent = head.encode() + content
        self._status = self.STATUS_REQUESTING
        return 0

    def poll(self) -> None:
        if self._socket is None:
            return
        if self._status == self.STATUS_CONNECTING:
            if select.select([], [self._socket], [], 0)[1]:
                failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failed:
                    self._end(self.STATUS_CANT_CONNECT)
                else:
                    self._status = self.STATUS_CONNECTED
            return
        if self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
            return
        self._read()
        if self._finished and not self._unread:
            self._end(self.STATUS_CONNECTION_ERROR)
        elif self._status == self.STATUS_REQUESTING and b"\r\n\r\n" in self._unread:
            self._take_head()

    def _end(self, status: int) -> None:
        self.close()
        self._status = status

    def _read(self) -> None:
        while self._socket is not None and not self._finished:
            try:
                read = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            self._unread += read
            self._finished = not read

    def _take_head(self) -> None:
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        self._code = int(first.split(" ")[1])
        self._headers = {
            name: value.strip() for name, _, value in (field.partition(":") for field in fields)
        }
        if self._headers.get("transfer-encoding") != "chunked":
            raise GodotError("only chunked answers are read here, as the recording is served")
        self._status = self.STATUS_BODY

    def read_response_body_chunk(self) -> bytearray:
        if self._status != self.STATUS_BODY:
            raise GodotError(f"a body is read in status {self._status}")
        self._read()
        if self._at_trailer and self._unread.startswith(b"\r\n"):
            self._unread = self._unread[2:]
            self._status = self.STATUS_CONNECTED
            return bytearray()
        size, found, rest = self._unread.partition(b"\r\n")
        length = int(size, 16) if found and not self._at_trailer else None
        if length == 0:  # what ends the body is read by the next call
            self._at_trailer, self._unread = True, rest
        elif length is not None and len(rest) >= length + 2:
            self._unread = rest[length + 2 :]
            return bytearray(rest[:length])
        elif self._finished:
            self.close()
        return bytearray()
