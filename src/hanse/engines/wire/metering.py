"""Streams turned into chunks: what each owes, under our names, its end kept together.

A frame is decoded into the handful of fields that count (`envelope`) and passed on as the bytes
that came, but for three things, each done by cutting bytes: the engine's id and model name give way
to ours (`renaming`), and llama.cpp's `timings`, which are asked for to count tokens exactly, are
taken out again. Cutting is safe: inside a JSON string a quote is always escaped, so a sequence such
as `,"timings":{` is never text.

Metering, in order of preference:
1. `timings` in the frame (llama.cpp): cumulative, exact at every frame, also when one character
   takes three tokens or a stop string holds text back.
2. `usage` in the frame (the last one; with vLLM's `continuous_usage_stats` every one).
3. Neither: a frame with text counts as one token, and the prompt as its words. Both are lower
   bounds, so a stream cut before its usage never costs more than it used.
"""

from typing import Any

from hanse.engines.base import Chunk
from hanse.engines.wire.envelope import Envelope, note_reasons, read_envelope
from hanse.engines.wire.renaming import Renamer
from hanse.engines.wire.sse import DONE
from hanse.protocol.errors import TransientError
from hanse.protocol.messages import FinishReason, Usage

_TIMINGS = b',"timings":{'


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
        self._sent_usage = Usage()
        self._counted: dict[int, Usage] = {}
        self._reasons: dict[int, FinishReason] = {}
        self.usage = Usage()
        self.is_done = False

    def take(self, payloads: list[bytes]) -> Chunk | None:
        """One chunk from what one read gave; None if there is nothing to send yet."""
        frames: list[bytes] = []
        for payload in payloads:
            if payload == DONE:
                self.is_done = True
                break
            self._take_one(payload, frames)
        return Chunk(b"".join(frames), self._sent_usage) if frames else None

    def finish(self) -> Chunk:
        """The last chunk, when the engine has ended the stream.

        Raises:
            TransientError: it ended without saying why each choice did, so the answer is not
                complete.
        """
        if len(self._reasons) < self._choices:
            raise TransientError("engine_unavailable", "The engine broke off amid its answer.")
        return Chunk(b"".join(self._held), self.usage, self._reasons[min(self._reasons)])

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
        frame = b"data: " + self._renamer.rename(payload, envelope) + b"\n\n"
        note_reasons(envelope, self._reasons)
        if len(self._reasons) < self._choices:
            frames.append(frame)
            self._sent_usage = self.usage
        else:
            self._held.append(frame)

    def _meter(self, envelope: Envelope) -> None:
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
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        words += sum(len(text.split()) for text in texts)
    return words


def strip_timings(payload: bytes) -> bytes:
    """The same JSON object without its last field `timings`."""
    start = payload.rfind(_TIMINGS)
    end = payload.find(b"}", start) + 1
    return payload[:start] + payload[end:] if start >= 0 else payload
