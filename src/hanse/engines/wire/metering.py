"""Streams turned into chunks: what each owes, under our names, its end kept together.

A frame is decoded into the handful of fields that count (`envelope`) and passed on as the bytes
that came, but for three things, each done by cutting bytes: the engine's id and model name give way
to ours (`renaming`), and llama.cpp's `timings`, which are asked for to count tokens exactly, are
taken out again. Cutting is safe: inside a JSON string a quote is always escaped, so a sequence such
as `,"timings":{` is never text. A frame that differs from an earlier one in its text only, as most
do, is not decoded at all.

Metering, in order of preference:
1. `timings` in the frame (llama.cpp): cumulative, exact at every frame, also when one character
   takes three tokens or a stop string holds text back.
2. `usage` in the frame (the last one; with vLLM's `continuous_usage_stats` every one).
   A caller that asks for a usage frame gets one also where the engine sends none.
3. Neither: a frame with text counts as one token, and the prompt as its words. Both are lower
   bounds, so a stream cut before its usage never costs more than it used.
"""

import re
from typing import Any

import msgspec

from hanse.engines.base import Chunk
from hanse.engines.wire.envelope import Envelope, note_reasons, read_envelope
from hanse.engines.wire.renaming import Renamer
from hanse.engines.wire.sse import DONE
from hanse.protocol.errors import TransientError
from hanse.protocol.messages import FinishReason, Usage

_TIMINGS = b',"timings":{'

LESSONS_MAX = 4
"""Frames of a stream from which a pattern is learnt: the first may hold the role, the second the
first text; after that either one is known, or none of them is like another."""

_is_plain_text = re.compile(rb"[ !#-\[\]-~]+").fullmatch
"""The inside of a JSON string in printable ASCII, without quotes and escapes."""


class StreamMeter:
    """Turns one stream's payloads into chunks: renames, meters, keeps the end together.

    The frame with the last choice's finish reason is held until the usage frame behind it has come,
    so that the last chunk carries the final count.

    Of several choices each frame counts its own, as llama.cpp, vLLM and SGLang do; a usage frame
    without a choice counts all.
    """

    def __init__(
        self, renamer: Renamer, *, wants_usage: bool, input_words: int = 0, choices: int = 1
    ) -> None:
        self._renamer = renamer
        self._wants_usage = wants_usage
        self._input_words = input_words
        self._choices = choices
        self._held: list[bytes] = []
        self._is_metered = False
        self._is_stated = False
        self._sent_usage = Usage()
        self._counted: dict[int, Usage] = {}
        self._reasons: dict[int, FinishReason] = {}
        self.usage = Usage()
        self.is_done = False
        self._lessons = 0
        self._head = self._tail = self._new_head = self._new_tail = b""

    def take(self, payloads: list[bytes]) -> Chunk | None:
        """One chunk from what one read gave; None if there is nothing to send yet."""
        frames: list[bytes] = []
        at, end = 0, len(payloads)
        while at < end:
            if self._head and not self._reasons:
                at = self._take_alike(payloads, at, frames)
                if at == end:
                    break
            payload = payloads[at]
            at += 1
            if payload == DONE:
                self.is_done = True
                break
            self._take_one(payload, frames)
        if not frames:
            return None
        ends_next = self.is_done and len(self._reasons) == self._choices
        return Chunk(b"".join(frames), self._sent_usage, ends_next=ends_next)

    def finish(self) -> Chunk:
        """The last chunk, when the engine has ended the stream.

        Raises:
            TransientError: it ended without saying why each choice did, so the answer is not
                complete.
        """
        if len(self._reasons) < self._choices:
            raise TransientError("engine_unavailable", "The engine broke off amid its answer.")
        if self._wants_usage and not self._is_stated:
            self._held.append(_state_usage(self._held[-1], self.usage))
        return Chunk(b"".join(self._held), self.usage, self._reasons[min(self._reasons)])

    def _take_alike(self, payloads: list[bytes], at: int, frames: list[bytes]) -> int:
        """Take the frames from `at` that differ from an earlier one in their text only.

        What stands between that frame's beginning and end is then the inside of a JSON string,
        printable and without quotes or escapes, so nothing else can have changed.

        Returns:
            The place of the first that does not.
        """
        head, tail, new_head, new_tail = self._head, self._tail, self._new_head, self._new_tail
        begin, end, before = len(head), len(payloads), at
        while at < end:
            payload = payloads[at]
            if not (payload.startswith(head) and payload.endswith(tail)):
                break
            text = payload[begin : len(payload) - len(tail)]
            if _is_plain_text(text) is None:
                break
            frames.append(new_head + text + new_tail)
            at += 1
        if at > before:
            if not self._is_metered:
                output = self.usage.output_tokens + at - before
                self.usage = Usage(self._input_words, 0, output)
            self._sent_usage = self.usage
        return at

    def _learn(self, payload: bytes, envelope: Envelope, renamed: bytes) -> None:
        """Remember what stands around the text of a frame that holds nothing else new."""
        text = _find_only_text(envelope)
        if not text or _is_plain_text(encoded := text.encode()) is None:
            return
        mark = b'"' + encoded + b'"'
        for name in (b'"content":', b'"content": '):
            if payload.count(name + mark) == 1 and renamed.count(name + mark) == 1:
                start = payload.index(name + mark) + len(name) + 1
                self._head, self._tail = payload[:start], payload[start + len(encoded) :]
                start = renamed.index(name + mark) + len(name) + 1
                self._new_head = b"data: " + renamed[:start]
                self._new_tail = renamed[start + len(encoded) :] + b"\n\n"

    def _take_one(self, payload: bytes, frames: list[bytes]) -> None:
        envelope = read_envelope(payload)
        if envelope.prompt_progress is not None:
            return  # llama.cpp's, about the prompt; see `hanse.engines.llama_engine`
        if self._choices > 1 and any(
            not 0 <= choice.index < self._choices for choice in envelope.choices
        ):
            raise TransientError(
                "engine_unavailable", "The engine's answer has a choice that nobody asked for."
            )
        self._meter(envelope)
        if envelope.timings is not None:
            payload = strip_timings(payload)
        if not envelope.choices and envelope.usage is not None and not self._wants_usage:
            return
        renamed = self._renamer.rename(payload, envelope)
        frame = b"data: " + renamed + b"\n\n"
        note_reasons(envelope, self._reasons)
        if len(self._reasons) < self._choices:
            frames.append(frame)
            self._sent_usage = self.usage
            if self._lessons < LESSONS_MAX and not self._is_metered and self._choices == 1:
                self._lessons += 1
                self._learn(payload, envelope, renamed)
        else:
            self._held.append(frame)

    def _meter(self, envelope: Envelope) -> None:
        if envelope.usage is not None:
            self._is_stated = True
        if (timings := envelope.timings) is not None:
            self._count(envelope, Usage(timings.prompt_n, timings.cache_n, timings.predicted_n))
        elif envelope.usage is not None:
            self._count(envelope, envelope.usage.to_usage())
        elif not self._is_metered:
            for choice in envelope.choices:
                if choice.has_output():
                    self.usage = Usage(self._input_words, 0, self.usage.output_tokens + 1)
                    return

    def _count(self, envelope: Envelope, usage: Usage) -> None:
        self._is_metered = True
        if self._choices == 1 or not envelope.choices:
            self.usage = usage
            return
        self._counted[envelope.choices[0].index] = usage
        prompt = self._counted[min(self._counted)]  # counted once, as the first choice counts it
        output = sum(each.output_tokens for each in self._counted.values())
        # Of choices that were not counted yet, frames were: those stay owed.
        output = max(output, self.usage.output_tokens)
        self.usage = Usage(prompt.input_tokens, prompt.cached_tokens, output)


def _state_usage(last: bytes, usage: Usage) -> bytes:
    """A usage frame in the form of the stream's last one, where the engine sent none."""
    prompt = usage.input_tokens + usage.cached_tokens
    frame = msgspec.json.decode(last.removeprefix(b"data: "))
    stated: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
    }
    if usage.cached_tokens:
        stated["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return b"data: " + msgspec.json.encode(frame | {"choices": [], "usage": stated}) + b"\n\n"


def _find_only_text(envelope: Envelope) -> str | None:
    """A chat frame's text, if it has one choice and tells nothing besides."""
    if len(envelope.choices) != 1 or envelope.usage is not None or envelope.timings is not None:
        return None
    choice = envelope.choices[0]
    delta = choice.delta
    if delta is None or choice.finish_reason or choice.index != 0 or choice.text:
        return None
    return None if delta.reasoning_content or delta.tool_calls else delta.content


def count_words(body: dict[str, Any]) -> int:
    """Words of a prompt: at least one token each, so never more than the tokens."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return len(prompt.split())
    if isinstance(prompt, list):
        return len(prompt[0].split()) if isinstance(prompt[0], str) else len(prompt)
    words = 0
    for message in body.get("messages", ()):
        content = message.get("content") or ""
        for text in [content] if isinstance(content, str) else [part["text"] for part in content]:
            words += len(text.split())
    return words


def strip_timings(payload: bytes) -> bytes:
    """The same JSON object without its last field `timings`."""
    start = payload.rfind(_TIMINGS)
    end = payload.find(b"}", start) + 1
    return payload[:start] + payload[end:] if start >= 0 else payload
