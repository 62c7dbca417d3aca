"""One answer of an upstream: bytes handed through as they come, nothing paid, no receipt.

A stream ends with its `[DONE]`; one that ends without breaks like any other.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from hanse.gateway.client import Receipted
from hanse.http import HttpBrokenError, HttpResponse, HttpTimeoutError
from hanse.protocol.errors import HanseError, TransientError, VerificationError
from hanse.protocol.limits import RESPONSE_BYTES_MAX
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.wire.frames import is_done
from hanse.sdk.transport.frames import FrameSplitter, is_data


class PlainAnswer:
    """See the module; `hanse.gateway.client.MarketAnswer` says what each method promises.

    `on_end` is told once, with the error if it broke.
    """

    def __init__(
        self,
        provider: str,
        response: HttpResponse,
        *,
        is_stream: bool,
        on_end: Callable[[HanseError | None], None],
    ) -> None:
        self.provider = provider
        self.is_stream = is_stream
        self.receipt: Receipted | None = None
        self._response = response
        self._on_end = on_end
        self._is_open = True
        self._batches = self._iterate()

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            TransientError: it broke off, or is larger or deeper than an answer may be.
        """
        parts: list[bytes] = []
        size = 0
        try:
            while data := await self._response.read():
                parts.append(data)
                size += len(data)
                if size > RESPONSE_BYTES_MAX:
                    raise self._get_broken("sent more than an answer may have")
        except HttpBrokenError as error:
            raise self._get_broken(_describe(error)) from None
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if is_nested_too_deep(body):
            raise self._get_broken("sent an answer that is nested too deep")
        self._end(None)
        return body

    async def frames(self) -> AsyncIterator[bytes]:
        """The stream's data frames, untouched, `[DONE]` last.

        Raises:
            TransientError: it broke off.
            VerificationError: it is no stream of data frames.
        """
        async with aclosing(self._batches) as batches:
            async for batch in batches:
                for frame in batch:
                    yield frame

    async def read_batch(self) -> list[bytes]:
        """The next ones, those that came together in one list; empty after the last."""
        nothing: list[bytes] = []
        return await anext(self._batches, nothing)

    async def _iterate(self) -> AsyncGenerator[list[bytes], None]:
        splitter = FrameSplitter()
        size = 0
        try:
            while data := await self._response.read():
                size += len(data)
                if size > RESPONSE_BYTES_MAX:
                    raise self._get_broken("sent more than a stream may have")
                batch: list[bytes] = []
                for frame in splitter.feed(data):
                    if frame.startswith(b"data: {"):
                        batch.append(frame)
                    elif is_done(frame):
                        self._response.finish()
                        self._end(None)
                        yield [*batch, frame]
                        return
                    elif is_data(frame):
                        batch.append(frame)
                if batch:
                    yield batch
        except HttpBrokenError as error:
            raise self._get_broken(_describe(error)) from None
        except VerificationError as error:
            self._end(error)
            raise
        raise self._get_broken("ended its stream before its [DONE]")

    async def close(self) -> None:
        """Hang up if it is still coming."""
        self._end(None)

    def _get_broken(self, what: str) -> TransientError:
        error = TransientError(
            "provider_unreachable", f"the upstream {what}", details={"upstream": self.provider}
        )
        self._end(error)
        return error

    def _end(self, error: HanseError | None) -> None:
        if self._is_open:
            self._is_open = False
            self._response.close()
            self._on_end(error)


def _describe(error: HttpBrokenError) -> str:
    is_late = isinstance(error, HttpTimeoutError)
    return "took longer than its time limit" if is_late else "broke off"
