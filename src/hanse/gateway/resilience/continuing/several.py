"""The choices of a broken stream, each gone on with by a request of its own, as one stream again.

    several = Several(request, delivered, prompts, ask, reason)
    while batch := await several.read_batch(): ...        # up to `[DONE]`

`ask` buys the rest of one choice and gives an answer that outlives its providers itself. All are
asked at once and read side by side, each by a task of its own; what they say is handed on as it
comes. A choice that cannot be gone on with ends all of it: its error is raised, the others are hung
up on, and what they had delivered is what is paid.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from hanse.gateway.client import Receipted
from hanse.gateway.resilience.continuing.joint import ChoiceJoint
from hanse.gateway.resilience.continuing.rest import list_going, make_cut, make_rest, make_usage
from hanse.gateway.resilience.delivered import ERROR_FRAME, Delivered
from hanse.protocol.errors import TransientError
from hanse.protocol.hashing import DONE_FRAME

CONTINUED_COMMENT = b": hanse-continued "
"""Begins the SSE comment that stands where another provider went on."""

AHEAD_MAX = 16
"""Arrivals that are kept for an application that reads slowly; then its providers wait."""


class Rest(Protocol):
    """The rest of one choice."""

    @property
    def provider(self) -> str:
        """Who serves it now."""
        ...

    @property
    def receipt(self) -> Receipted | None:
        """The verified receipt of its last part."""
        ...

    @property
    def earlier(self) -> Sequence[Receipted]:
        """Those of the parts before."""
        ...

    async def read_batch(self) -> list[bytes]:
        """Its next frames; none after the last."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


Ask = Callable[[bytes, int], Awaitable[Rest]]
"""Buys what a body asks for; the number is in how many parts the answer goes on."""


def make_comment(provider: str, tokens: int, reason: str, **more: int) -> bytes:
    """The comment that says who went on, after how many tokens, and why."""
    fact = {"provider": provider, "tokens": tokens, "reason": reason, **more}
    return CONTINUED_COMMENT + msgspec.json.encode(fact) + b"\n\n"


class Several:
    """See the module.

    Attributes:
        provider: who went on with a choice last.
        receipts: verified ones of all parts that are here, in the order of their ends.
    """

    def __init__(
        self,
        request: dict[str, Any],
        delivered: Delivered,
        prompts: Sequence[int | None],
        ask: Ask,
        reason: str,
    ) -> None:
        """Begin to ask.

        Args:
            request: the application's own, decoded; one without obstacle.
            delivered: what it has.
            prompts: prompt tokens of each part before, None where nobody told.
            ask: buys the rest of one choice.
            reason: why the stream broke, a code.
        """
        self.provider = ""
        self.receipts: list[Receipted] = []
        self._request, self._delivered, self._prompts = request, delivered, tuple(prompts)
        self._ask, self._reason = ask, reason
        going = list_going(request, delivered)
        bodies = {index: make_rest(request, delivered, index) for index in going}
        self._cuts = [make_cut(request, delivered, i) for i, body in bodies.items() if body is None]
        asked = {index: body for index, body in bodies.items() if body is not None}
        self._joints = {index: ChoiceJoint(delivered, index) for index in asked}
        self._arrivals: asyncio.Queue[list[bytes] | int | Exception] = asyncio.Queue(AHEAD_MAX)
        self._rests: dict[int, Rest] = {}
        self._tasks = [
            asyncio.create_task(self._read(index, body, len(asked)))
            for index, body in asked.items()
        ]
        self._open = len(asked)
        self._is_over = False

    async def read_batch(self) -> list[bytes]:
        """What came of any choice; none after `[DONE]`.

        Raises:
            HanseError: one of them cannot be gone on with.
        """
        if self._cuts:
            cuts, self._cuts = self._cuts, []
            return cuts
        while self._open:
            arrived = await self._arrivals.get()
            if isinstance(arrived, list):
                return arrived
            if isinstance(arrived, Exception):
                await self.close()
                raise arrived
            self._open -= 1
            await self._leave(arrived)
        if self._is_over:
            return []
        self._is_over = True
        return self._make_end()

    async def close(self) -> None:
        """Hang up on what is still coming. Never fails, and may be called twice."""
        self._is_over, self._open = True, 0
        for task in self._tasks:
            task.cancel()
        await asyncio.shield(self._hang_up())  # all of them, also if whoever hangs up is cancelled

    async def _hang_up(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for index in list(self._rests):
            await self._leave(index)

    async def _leave(self, index: int) -> None:
        """Take the receipts of a choice that came to an end, whichever."""
        rest = self._rests.pop(index, None)
        if rest is None:  # somebody else hangs up on it at this moment
            return
        await rest.close()
        self.receipts += rest.earlier
        if rest.receipt is not None:
            self.receipts.append(rest.receipt)

    async def _read(self, index: int, body: bytes, parts: int) -> None:
        """Ask for the rest of a choice, and hand on what comes of it."""
        put, said = self._arrivals.put, self._delivered.get(index)
        try:
            self._rests[index] = rest = await self._ask(body, parts)
            self.provider = rest.provider
            await put([make_comment(rest.provider, said.frames, self._reason, index=index)])
            while batch := await rest.read_batch():
                joined = [self._join(index, raw) for raw in batch]
                if frames := [frame for frame in joined if frame is not None]:
                    await put(frames)
        except Exception as error:  # whoever reads gets it, a defect too
            await put(error)
        else:
            await put(index)

    def _join(self, index: int, raw: bytes) -> bytes | None:
        if raw.startswith(CONTINUED_COMMENT):
            fact = msgspec.json.decode(raw[len(CONTINUED_COMMENT) :])
            fact["tokens"] += self._delivered.get(index).frames
            return make_comment(**fact, index=index)
        if b"[DONE]" in raw[:16]:
            return None
        if raw.startswith(ERROR_FRAME):
            raise TransientError(
                "engine_unavailable", f"the engine of {self._rests[index].provider} broke off"
            )
        return self._joints[index].join(raw)

    def _make_end(self) -> list[bytes]:
        """The usage of all parts, if it was asked for, and the end."""
        rests, delivered = self._joints, self._delivered
        own = [
            max(0, rest.prompt_tokens - delivered.get(index).frames)
            for index, rest in rests.items()
            if rest.prompt_tokens is not None
        ]
        before = sum(min(own, default=0) if told is None else told for told in self._prompts)
        prompt = before + sum(rest.prompt_tokens or 0 for rest in rests.values())
        completion = delivered.tokens + sum(rest.tokens for rest in rests.values())
        return [*make_usage(self._request, delivered, prompt, completion), DONE_FRAME]
