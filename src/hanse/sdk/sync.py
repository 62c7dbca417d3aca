"""`HanseSync`: the same client for programs without async.

    with HanseSync(settings) as hanse:
        print(hanse.chat("smollm2", [{"role": "user", "content": "Hello"}]).text)
        for text in hanse.stream_chat("smollm2", messages): ...

A thread of its own runs the event loop; every call waits for its result. Safe to use from several
threads at once.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from hanse.market import Needs
from hanse.sdk.client import Hanse, MarketOffer
from hanse.sdk.completion import Completion, CompletionStream
from hanse.sdk.discovery import DiscoveryReport
from hanse.sdk.money import Money
from hanse.sdk.purchase.resume import FetchedAnswer, ResumeReport
from hanse.sdk.settings import Settings
from hanse.settlement.books.voucher_records import StoredReceipt

ResultT = TypeVar("ResultT")

Opener = contextlib.AbstractAsyncContextManager[Hanse]


class HanseSync:
    """A `Hanse` behind a thread. Use it as a context manager, or call `close`."""

    def __init__(self, settings: Settings | None = None, *, opener: Opener | None = None) -> None:
        """Open a client.

        Args:
            settings: as for `Hanse.open`.
            opener: instead of settings, a context manager that yields a `Hanse`.
        """
        if opener is None:
            assert settings is not None, "settings or opener"
            opener = Hanse.open(settings)
        self._opener = opener
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="hanse-sdk", daemon=True
        )
        self._thread.start()
        try:
            self._hanse = self._run(opener.__aenter__())
        except BaseException:
            self._stop()
            raise

    def chat(
        self,
        model: str,
        messages: list[dict[str, Any]],
        *,
        needs: Needs | None = None,
        **params: Any,
    ) -> Completion:
        """A whole chat completion."""
        found = self._run(self._hanse.chat(model, messages, needs=needs, **params))
        assert isinstance(found, Completion)  # no stream was asked for
        return found

    def stream_chat(
        self,
        model: str,
        messages: list[dict[str, Any]],
        *,
        needs: Needs | None = None,
        **params: Any,
    ) -> Iterator[str]:
        """A chat completion's text as it grows; leaving the loop early hangs up."""
        asked = self._hanse.chat(model, messages, stream=True, needs=needs, **params)
        found = self._run(asked)
        assert isinstance(found, CompletionStream)  # a stream was asked for
        texts = found.texts()
        try:
            while (text := self._run(_next(texts))) is not None:
                yield text
        finally:
            self._run(found.close())

    def completions(
        self, model: str, prompt: str, *, needs: Needs | None = None, **params: Any
    ) -> Completion:
        """A whole plain completion."""
        found = self._run(self._hanse.completions(model, prompt, needs=needs, **params))
        assert isinstance(found, Completion)  # no stream was asked for
        return found

    def embeddings(
        self, model: str, input: str | list[str], *, needs: Needs | None = None, **params: Any
    ) -> Completion:
        """Embeddings."""
        return self._run(self._hanse.embeddings(model, input, needs=needs, **params))

    def discover(self) -> DiscoveryReport:
        """See `Hanse.discover`."""
        return self._run(self._hanse.discover())

    def get_offers(self) -> list[MarketOffer]:
        """See `Hanse.get_offers`."""
        return self._hanse.get_offers()

    def get_receipts(
        self, *, limit: int = 100, before: int | None = None, offset: int = 0
    ) -> list[StoredReceipt]:
        """See `Hanse.get_receipts`."""
        return self._run(self._hanse.get_receipts(limit=limit, before=before, offset=offset))

    def export_receipt(self, request_id: str) -> dict[str, Any]:
        """See `Hanse.export_receipt`."""
        return self._run(self._hanse.export_receipt(request_id))

    def resume(self, *, adopt: bool = False) -> list[ResumeReport]:
        """See `Hanse.resume`."""
        return self._run(self._hanse.resume(adopt=adopt))

    def fetch_answer(self, request_id: str) -> FetchedAnswer:
        """See `Hanse.fetch_answer`."""
        return self._run(self._hanse.fetch_answer(request_id))

    def read_money(self) -> Money:
        """See `Hanse.read_money`."""
        return self._run(self._hanse.read_money())

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run anything else of `hanse` (such as `hanse.account.deposit(...)`) and wait for it."""
        return self._run(work)

    @property
    def hanse(self) -> Hanse:
        """The client behind; its coroutines go through `run`."""
        return self._hanse

    def close(self) -> None:
        """Close the client and end the thread; may be called twice."""
        if self._thread.is_alive():
            try:
                self._run(self._opener.__aexit__(None, None, None))
            finally:
                self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(texts: AsyncIterator[str]) -> str | None:
    return await anext(texts, None)
