"""Answers as applications want them: decoded, with the text at hand and the receipt beside it."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import msgspec

from hanse.protocol.errors import TransientError, VerificationError
from hanse.sdk.purchase.answer import Answer
from hanse.sdk.purchase.checking import CheckedReceipt


class Completion:
    """A whole answer: `data` is OpenAI's object, `receipt` what it cost and who signed that."""

    def __init__(self, data: dict[str, Any], receipt: CheckedReceipt, provider: str) -> None:
        self.data = data
        self.receipt = receipt
        self.provider = provider

    @property
    def text(self) -> str:
        """The first choice's text; empty if it has none (a tool call)."""
        return _get_text(self.data, "message")


class CompletionStream:
    """A streamed answer: iterate over OpenAI's chunks, or over `texts()`.

    Leave the block early to hang up; `receipt` is there after the end.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.provider = answer.provider

    @property
    def receipt(self) -> CheckedReceipt | None:
        """The verified receipt once the stream has ended."""
        return self._answer.receipt

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """OpenAI's chunks.

        Raises:
            TransientError: the engine or the connection broke off in the middle.
            VerificationError: the stream is not what was signed.
        """
        failure: TransientError | None = None
        async for frame in self._answer.frames():
            payload = frame[5:].strip()
            if payload == b"[DONE]" or failure is not None:
                continue
            data = _decode(payload)
            if isinstance(data.get("error"), dict):
                # The receipt comes after it and is counted before the error shows.
                message = str(data["error"].get("message", ""))[:500]
                failure = TransientError("engine_unavailable", f"{self.provider}: {message}")
                continue
            yield data
        if failure is not None:
            raise failure

    async def texts(self) -> AsyncIterator[str]:
        """The first choice's text as it grows."""
        async for chunk in self:
            if text := _get_text(chunk, "delta"):
                yield text

    async def close(self) -> None:
        """Hang up if it is still coming."""
        await self._answer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


async def read_completion(answer: Answer) -> Completion:
    """Read a whole answer."""
    body = await answer.read()
    assert answer.receipt is not None  # read() counted it
    return Completion(_decode(body), answer.receipt, answer.provider)


def _decode(payload: bytes) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise VerificationError("response_malformed", "the answer is not a JSON object")
    return data


def _get_text(data: dict[str, Any], part: str) -> str:
    try:
        choice = data["choices"][0]
        text = choice[part]["content"] if part in choice else choice.get("text")
    except (LookupError, TypeError):
        return ""
    return text if isinstance(text, str) else ""
