"""A stream that is delivered as it comes and judged at its end.

For `hanse-structured: stream`: the first token is early, and what is wrong is only known when it is
all there. Then the stream ends with an error frame and without `[DONE]`, which OpenAI's SDKs raise.
"""

from collections.abc import AsyncIterator

from hanse.gateway.client import MarketAnswer, Receipted
from hanse.gateway.structured.contents import Gathering
from hanse.gateway.structured.demand import Demand
from hanse.protocol.errors import VerificationError
from hanse.protocol.wire.frames import is_done

_FITS = b": hanse-structured valid\n\n"


class CheckedStream:
    """Fulfils `hanse.gateway.client.MarketAnswer` over another one."""

    def __init__(self, answer: MarketAnswer, demand: Demand) -> None:
        self._answer = answer
        self._demand = demand
        self.provider = answer.provider
        self.is_stream = True

    @property
    def receipt(self) -> Receipted | None:
        """The stream's receipt; a wrong answer is paid too."""
        return self._answer.receipt

    async def read(self) -> bytes:
        """The whole body, as the provider sent it."""
        return await self._answer.read()

    async def frames(self) -> AsyncIterator[bytes]:
        """The frames as they came, and a comment before `[DONE]` that says that they fit.

        Raises:
            VerificationError: `schema_unmet`, in the place of `[DONE]`.
        """
        gathering = Gathering()
        async for frame in self._answer.frames():
            if is_done(frame):
                fault = self._demand.find_fault(gathering)
                if fault is not None:
                    raise VerificationError(
                        "schema_unmet",
                        f"the stream does not fit the JSON schema: {fault}",
                        param="response_format",
                    )
                yield _FITS
            else:
                gathering.add_frame(frame)
            yield frame

    async def close(self) -> None:
        """Hang up if it is still coming."""
        await self._answer.close()
