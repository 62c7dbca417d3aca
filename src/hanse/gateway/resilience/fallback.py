"""When the market has nothing: an engine of one's own, else a canned answer, marked as such.

    local    `fallback_url`: any server that speaks OpenAI's API; nothing is paid and nothing signed
    canned   `canned_text`: one fixed sentence, for chats and plain completions

An answer of either says so: `hanse-provider: local` or `canned`, and `hanse-fallback` with the code
of what the market said. A request that is itself at fault gets its error: no fallback hides it.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from hanse.gateway.bodies import rename_model
from hanse.gateway.client import MarketAnswer, MarketClient, Receipted, get_batch_reader
from hanse.gateway.plain import open_plain, read_upstream
from hanse.gateway.resilience.figures import StayingFigures
from hanse.gateway.settings import GatewaySettings
from hanse.protocol.errors import HanseError, TransientError, VerificationError
from hanse.protocol.hashing import DONE_FRAME
from hanse.protocol.wire import Operation

KEY_VARIABLE = "HANSE_FALLBACK_KEY"
"""Holds the API key of the local engine, if it wants one; arguments can be read by others."""

_NOTHING_THERE = frozenset(
    ("insufficient_balance", "sub_account_unknown", "model_not_found", "unprocessable")
)
"""What a `RequestError` says when nobody could be asked; others are the request's own fault."""

_KINDS = {
    Operation.CHAT.path: ("chatcmpl-canned", "chat.completion"),
    Operation.COMPLETION.path: ("cmpl-canned", "text_completion"),
}


class Fallback:
    """Answers in the market's place, as the settings say."""

    def __init__(
        self,
        local: MarketClient | None,
        get_settings: Callable[[], GatewaySettings],
        figures: StayingFigures,
    ) -> None:
        self._local = local
        self._get_settings = get_settings
        self._figures = figures

    @property
    def is_there(self) -> bool:
        """Whether something may answer in the market's place."""
        return self._local is not None or bool(self._get_settings().canned_text)

    async def find_answer(
        self, path: str, body: bytes, error: HanseError, *, amid_stream: bool = False
    ) -> MarketAnswer | None:
        """An answer in place of `error`; None if there is none.

        Args:
            path: of the request.
            body: of the request.
            error: what the market said.
            amid_stream: whether the rest of an answer is asked for: a canned sentence is none.
        """
        is_transient = isinstance(error, TransientError | VerificationError)
        if not is_transient and error.code not in _NOTHING_THERE:
            return None
        answer = await self.find_local(path, body)
        text = self._get_settings().canned_text
        if answer is None and text and not amid_stream:
            return self.make_canned(path, body, text)
        return answer

    async def find_local(self, path: str, body: bytes) -> MarketAnswer | None:
        """The local engine's answer; None if there is none, or it fails.

        The market's error says more to the application than ours about our engine.
        """
        if self._local is None:
            return None
        try:
            model = self._get_settings().fallback_model  # it may have another name there
            renamed = rename_model(body, model) if model else body
            answer = await self._local.request(path, renamed)
        except HanseError:
            return None
        self._figures.count_fallback("local")
        return _LocalAnswer(answer)

    def make_canned(self, path: str, body: bytes, text: str) -> MarketAnswer | None:
        """A canned answer; None for what is no chat and no plain completion."""
        if path not in _KINDS:
            return None
        self._figures.count_fallback("canned")
        return _CannedAnswer(path, body, text)


@contextlib.asynccontextmanager
async def open_local(url: str) -> AsyncIterator[MarketClient | None]:
    """The local engine at this URL, its key from the environment; None without a URL."""
    if not url:
        yield None
        return
    key = os.environ.get(KEY_VARIABLE, "").strip()
    async with open_plain([read_upstream(url, key)]) as client:
        yield client


class _LocalAnswer:
    """An answer of one's own engine; the market's word for who it is."""

    provider = "local"

    def __init__(self, answer: MarketAnswer) -> None:
        self._answer = answer
        self.read_batch = get_batch_reader(answer)
        self.is_stream = answer.is_stream
        self.receipt: Receipted | None = None

    async def read(self) -> bytes:
        return await self._answer.read()

    def frames(self) -> AsyncIterator[bytes]:
        return self._answer.frames()

    async def close(self) -> None:
        await self._answer.close()


class _CannedAnswer:
    """One fixed sentence, in the shape that was asked for."""

    provider = "canned"

    def __init__(self, path: str, body: bytes, text: str) -> None:
        request = msgspec.json.decode(body)
        self.is_stream = bool(request.get("stream"))
        self.receipt: Receipted | None = None
        self._is_chat = path == Operation.CHAT.path
        self._text = text
        self._wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        id_, kind = _KINDS[path]
        if self.is_stream and self._is_chat:
            kind += ".chunk"
        self._head = {"id": id_, "object": kind, "created": 0, "model": request["model"]}

    async def read(self) -> bytes:
        said: dict[str, Any] = {"text": self._text}
        if self._is_chat:
            said = {"message": {"role": "assistant", "content": self._text}}
        choice = {"index": 0, "finish_reason": "stop", **said}
        return msgspec.json.encode({**self._head, "choices": [choice], "usage": _NO_USAGE})

    async def frames(self) -> AsyncIterator[bytes]:
        said: dict[str, Any] = {"text": self._text}
        end: dict[str, Any] = {"text": ""}
        if self._is_chat:
            said, end = {"delta": {"role": "assistant", "content": self._text}}, {"delta": {}}
        yield self._make_frame([{"index": 0, "finish_reason": None, **said}])
        yield self._make_frame([{"index": 0, "finish_reason": "stop", **end}])
        if self._wants_usage:
            yield self._make_frame([], usage=_NO_USAGE)
        yield DONE_FRAME

    async def close(self) -> None:
        """Nothing is open."""

    def _make_frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + msgspec.json.encode({**self._head, "choices": choices, **more}) + b"\n\n"


_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
"""A canned sentence takes no tokens and costs nothing."""
