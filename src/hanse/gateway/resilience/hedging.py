"""Asking a second provider when the first token is late; the first token wins.

Off unless `hedge_after_s` is set, since it may pay twice. The loser is hung up on at once: its
engine stops, and its charge is what it had delivered, mostly nothing, at most its first frame and
its prompt. Only streams are hedged: a whole answer shows no first token.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from hanse.gateway.client import (
    MarketAnswer,
    MarketClient,
    ReadBatch,
    Receipted,
    get_batch_reader,
)
from hanse.gateway.resilience.delivered import ERROR_FRAME
from hanse.gateway.resilience.figures import StayingFigures
from hanse.market import Needs
from hanse.protocol.errors import HanseError, TransientError


class Opened:
    """A stream whose first frames are here already; fulfils `MarketAnswer`."""

    is_stream = True

    def __init__(self, answer: MarketAnswer, first: list[bytes], rest: ReadBatch) -> None:
        self.provider = answer.provider
        self.read = answer.read
        self.close = answer.close
        self.voucher = getattr(answer, "voucher", None)
        self._answer = answer
        self._first = first
        self._rest = rest

    @property
    def receipt(self) -> Receipted | None:
        """See `MarketAnswer.receipt`."""
        return self._answer.receipt

    async def frames(self) -> AsyncIterator[bytes]:
        """See `MarketAnswer.frames`."""
        while batch := await self.read_batch():
            for frame in batch:
                yield frame

    async def read_batch(self) -> list[bytes]:
        """The next ones, those that came together in one list; empty after the last."""
        first, self._first = self._first, []
        return first or await self._rest()


class Hedge:
    """Races two providers for the first frame.

    Losers are hung up on behind, so that the winner's first frame does not wait for that.
    """

    def __init__(self, client: MarketClient, figures: StayingFigures) -> None:
        self._client = client
        self._figures = figures
        self._losers: set[asyncio.Task[Opened]] = set()

    async def open(self, path: str, body: bytes, needs: Needs, after_s: float) -> Opened:
        """The stream whose first frame came first.

        Args:
            path: of the request.
            body: of the request.
            needs: of its choice.
            after_s: when the second provider is asked.

        Raises:
            HanseError: both failed; the first one's error.
        """
        asked: list[str] = []
        first = asyncio.create_task(self._open(path, body, needs, asked))
        racers = [first]
        try:
            await asyncio.wait(racers, timeout=after_s)
            if not first.done():
                others = replace(needs, excluded=needs.excluded | set(asked))
                racers.append(asyncio.create_task(self._open(path, body, others, [])))
                self._figures.count_hedge("asked")
            winner = await _find_winner(racers)
        except BaseException:
            self._hang_up(racers)
            raise
        self._hang_up([racer for racer in racers if racer is not winner])
        if winner is not first:
            self._figures.count_hedge("won")
        return winner.result()

    async def _open(self, path: str, body: bytes, needs: Needs, asked: list[str]) -> Opened:
        answer = await self._client.request(path, body, needs, asked)
        try:
            read_batch = get_batch_reader(answer)
            first = await read_batch()
            if not first or first[0].startswith(ERROR_FRAME):
                raise TransientError(
                    "provider_unreachable", f"provider {answer.provider} sent no first frame"
                )
        except BaseException:
            await answer.close()
            raise
        return Opened(answer, first, read_batch)

    def _hang_up(self, racers: list["asyncio.Task[Opened]"]) -> None:
        for racer in racers:
            racer.cancel()
            self._losers.add(racer)
            racer.add_done_callback(self._forget)

    def _forget(self, racer: "asyncio.Task[Opened]") -> None:
        self._losers.discard(racer)
        if not racer.cancelled() and racer.exception() is None:  # it came in at the same moment
            closing = asyncio.ensure_future(racer.result().close())
            closing.add_done_callback(lambda _: self._figures.count_hedge("both"))


async def _find_winner(racers: list["asyncio.Task[Opened]"]) -> "asyncio.Task[Opened]":
    pending = set(racers)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for racer in racers:
            if racer in done and racer.exception() is None:
                return racer
    for racer in racers[1:]:
        error = racer.exception()
        if error is not None and not isinstance(error, HanseError):
            raise error  # a defect must not hide behind the first one's failure
    racers[0].result()
    raise AssertionError("unreachable")
