"""One answer that outlives its providers; what is done when is told in `steady`.

A part is what one provider gives, with a voucher and a receipt of its own. The first part's frames
pass untouched; those of later parts are joined to it (`continuing`).
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec

from hanse.gateway.client import (
    MarketAnswer,
    ReadBatch,
    Receipted,
    get_batch_reader,
    get_maximum_fee,
)
from hanse.gateway.exchange import Headers
from hanse.gateway.resilience.continuing import (
    Joint,
    Several,
    count_choices,
    find_obstacle,
    make_comment,
    make_end,
    make_rest,
)
from hanse.gateway.resilience.delivered import (
    ERROR_FRAME,
    HELD_BYTES_MAX,
    Delivered,
    verify_frame,
)
from hanse.gateway.resilience.patience import WAITING, WITH_APPLICATION, Patience
from hanse.gateway.resilience.waiting import Means
from hanse.market import Needs
from hanse.protocol.errors import HanseError, TransientError, VerificationError
from hanse.protocol.wire import Operation

FALLBACK_HEADER = b"hanse-fallback"

_CONTINUED = (Operation.CHAT.path, Operation.COMPLETION.path)
_FRAME_END = b"}\n\n"


class SteadyAnswer:
    """One answer, from as many providers as it takes.

    Attributes:
        is_stream: whether `frames` or `read` gives the content.
    """

    def __init__(
        self,
        means: Means,
        path: str,
        body: bytes,
        needs: Needs,
        part: MarketAnswer,
        fallback_code: str = "",
        turns: int = 0,
    ) -> None:
        self.is_stream = part.is_stream
        self._earlier: list[Receipted] = []
        self._means = means
        self._path = path
        self._body = body
        self._needs = needs
        self._part = part
        self._is_ended = self._is_done = self._is_over = self._is_fallback = False
        self._turns = turns
        self._several: Several | None = None  # once each choice goes on by itself
        self._patience: Patience | None = None  # while a part is read
        self._odd: VerificationError | None = None  # behind what was taken last
        self._read_next: ReadBatch
        self._held_bytes = 0
        self._delivered = Delivered()
        self._joint: Joint | None = None
        self._told = b""
        self._tokens_before = 0
        self._prompts: list[int | None] = []
        self._part_fee = 0  # what the part that ended last took, at most
        self._marks: Headers = []
        if fallback_code:
            self._mark_fallback(fallback_code)

    @property
    def provider(self) -> str:
        """Who serves it now."""
        several = self._several
        return several.provider if several and several.provider else self._part.provider

    @property
    def receipt(self) -> Receipted | None:
        """The verified receipt of its last part."""
        if self._several is not None and self._several.receipts:
            return self._several.receipts[-1]
        return self._part.receipt

    @property
    def earlier(self) -> list[Receipted]:
        """Verified receipts of the parts before the last one, as far as they are here."""
        if self._several is None or not self._several.receipts:
            return self._earlier
        of_part = [] if self._part.receipt is None else [self._part.receipt]
        return [*self._earlier, *of_part, *self._several.receipts[:-1]]

    async def read(self) -> bytes:
        """The whole body, of the first provider whose body is whole and true."""
        while True:
            try:
                return await self._part.read()
            except (TransientError, VerificationError) as error:
                await self._turn(self._body, error)
                self._means.figures.count_turn("restarted")

    async def frames(self) -> AsyncIterator[bytes]:
        """The frames of one stream, whoever made them; `[DONE]` last."""
        try:
            while batch := await self.read_batch():
                for frame in batch:
                    yield frame
        finally:
            self._end_patience()

    async def read_batch(self) -> list[bytes]:
        """The next ones, those that came together in one list; empty after the last."""
        while not self._is_over:
            patience = self._patience or self._begin_part()
            failure: HanseError | None = None
            try:
                if self._odd is not None:  # what came before it was handed on
                    raise self._odd
                if patience.state == WITH_APPLICATION:
                    patience.state = WAITING
                batch = await self._read_next()
                patience.state = WITH_APPLICATION
                if batch:
                    if frames := self._take_batch(batch):
                        return frames
                    continue
            except HanseError as error:
                failure = error
            except asyncio.CancelledError:
                if not patience.take_back():
                    self._end_patience()
                    raise
                failure = self._get_silence(patience.is_first)
            self._end_patience()
            self._is_over = True  # unless somebody goes on
            if failure is None and self._is_done:
                break
            frames = await self._go_on(failure or self._get_break())
            self._is_over = self._is_done
            if frames:
                return frames
        return [] if self._several is None else await self._several.read_batch()

    async def close(self) -> None:
        """Hang up if it is still coming. Never fails, and may be called twice."""
        self._end_patience()
        await self._part.close()
        if self._several is not None:
            await self._several.close()

    def mark(self, headers: Headers) -> None:
        """Say in these headers, now or once it comes to that, that a fallback answered."""
        headers.extend(self._marks)
        self._marks = headers

    def _begin_part(self) -> Patience:
        self._patience = self._means.watch_silence()
        self._odd = None
        self._read_next = get_batch_reader(self._part)
        return self._patience

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.end()
            self._patience = None

    def _take_batch(self, batch: list[bytes]) -> list[bytes]:
        """What the application gets of these; they are also kept as delivered."""
        odd = [raw for raw in batch if raw[-3:] != _FRAME_END or raw[:14] == ERROR_FRAME]
        ends = odd == batch[-1:] and b"[DONE]" in odd[0][:16]
        self._is_done = self._is_done or ends
        taken = batch if (ends or not odd) and not self._joint else self._take_singly(batch)
        self._delivered.held += taken
        self._held_bytes += sum(map(len, taken))
        if self._held_bytes > HELD_BYTES_MAX:
            self._delivered.read()
            self._held_bytes = 0
        return taken

    def _take_singly(self, batch: list[bytes]) -> list[bytes]:
        taken: list[bytes] = []
        try:
            for raw in batch:
                if raw[-3:] != _FRAME_END or raw[:14] == ERROR_FRAME:
                    frame = self._take_odd(raw)
                else:
                    frame = raw if self._joint is None else self._joint.join(raw)
                if frame is not None:
                    taken.append(frame)
        except VerificationError as error:
            self._odd = error
        return taken

    def _take_odd(self, raw: bytes) -> bytes | None:
        """A frame that is no plain chunk: the end, an error, one with other line ends."""
        if b"[DONE]" in raw[:16]:
            self._is_done = True
            return raw
        if raw[:14] == ERROR_FRAME:
            self._told = raw  # kept back until it is clear that nobody goes on
            return None
        verify_frame(raw)
        return raw if self._joint is None else self._joint.join(raw)

    async def _go_on(self, failure: HanseError) -> list[bytes]:
        """Turn to another provider; what the application is sent in between.

        Raises:
            HanseError: nobody goes on; `failure` as it was.
        """
        so_far, told = self._delivered, self._told
        self._told = b""
        if not isinstance(failure, TransientError | VerificationError):
            raise failure
        if told or failure.code == "response_malformed":  # else whoever raised it has said so
            self._means.client.report_failure(self.provider, failure.message)
        so_far.read()
        await self._end_part()
        try:
            return await self._continue(failure)
        except HanseError:
            self._means.figures.count_turn("lost")
            if not told or so_far.is_empty:
                raise
            self._is_done = True
            return [told]

    async def _continue(self, failure: HanseError) -> list[bytes]:
        so_far = self._delivered
        if so_far.is_empty:
            await self._turn(self._body, failure)
            self._joint = Joint(so_far, self._prompts) if so_far.id else None
            self._means.figures.count_turn("restarted")
            return []
        if self._path not in _CONTINUED:
            raise failure
        request = msgspec.json.decode(self._body)
        if find_obstacle(request, so_far):
            raise failure
        if count_choices(request) > 1:
            self._split(request, failure)
            return []
        rest = make_rest(request, so_far)
        if rest is None:
            self._is_done = True
            return make_end(request, so_far, self._prompts)
        await self._turn(rest, failure)
        self._joint = Joint(so_far, self._prompts)
        self._means.figures.count_turn("continued")
        return [make_comment(self.provider, so_far.tokens, failure.code)]

    def _split(self, request: dict[str, Any], failure: HanseError) -> None:
        """Go on with each choice by a request of its own; `failure` is raised if none may be."""
        self._count_turn(failure)
        means, path, needs = self._means, self._path, self._needs

        async def ask(body: bytes, parts: int) -> SteadyAnswer:
            most = needs.max_fee
            part_of = replace(needs, max_fee=None if most is None else most // parts)
            try:
                part, code = await means.ask_elsewhere(path, body, part_of, failure, amid=True)
            except HanseError:
                means.figures.count_turn("lost")
                raise
            means.figures.count_turn("continued")
            return SteadyAnswer(means, path, body, part_of, part, code, self._turns)

        self._several = Several(request, self._delivered, self._prompts, ask, failure.code)
        self._is_done = True  # of this part nothing more comes

    async def _turn(self, body: bytes, failure: HanseError) -> None:
        """Ask another provider; raises `failure` if none takes it."""
        await self._end_part()
        self._count_turn(failure)
        amid, receipt = not self._delivered.is_empty, self._part.receipt
        self._part, fallback_code = await self._means.ask_elsewhere(
            self._path, body, self._needs, failure, amid=amid
        )
        if fallback_code:
            self._mark_fallback(fallback_code)
        if receipt is not None:
            self._earlier.append(receipt)
        self._is_ended = False

    def _count_turn(self, failure: HanseError) -> None:
        """Leave the present provider out from now on; raises `failure` if this was the last."""
        if self._is_fallback or self._turns >= self._means.get_settings().turns_max:
            raise failure
        left = None if self._needs.max_fee is None else self._needs.max_fee - self._part_fee
        if left is not None and left < 0:
            raise failure
        self._turns += 1
        excluded = self._needs.excluded | {self.provider}
        self._needs = replace(self._needs, excluded=excluded, max_fee=left)

    async def _end_part(self) -> None:
        """Hang up on the present part, and count what its receipt says, if it is here."""
        if self._is_ended:
            return
        self._is_ended = True
        await self._part.close()
        receipt = self._part.receipt
        if receipt is None:
            self._prompts.append(None)
            has_given = self._delivered.tokens > self._tokens_before
            self._part_fee = get_maximum_fee(self._part) if has_given else 0
        else:
            self._part_fee = receipt.fee
            usage = receipt.signed.receipt.usage
            self._prompts.append(usage.input_tokens + usage.cached_tokens)
            self._delivered.tokens = self._tokens_before + usage.output_tokens
        self._tokens_before = self._delivered.tokens

    def _mark_fallback(self, code: str) -> None:
        self._is_fallback = True
        self._marks.append((FALLBACK_HEADER, code.encode()))

    def _get_silence(self, is_first: bool) -> TransientError:
        settings = self._means.get_settings()
        silence_s = settings.first_token_s if is_first else settings.silence_s
        reason = f"sent nothing for {silence_s:g} s"
        self._means.client.report_failure(self.provider, reason)
        return TransientError("provider_unreachable", f"provider {self.provider} {reason}")

    def _get_break(self) -> TransientError:
        if self._told:
            return TransientError("engine_unavailable", f"the engine of {self.provider} broke off")
        return TransientError(
            "provider_unreachable", f"the stream of {self.provider} ended before its [DONE]"
        )
