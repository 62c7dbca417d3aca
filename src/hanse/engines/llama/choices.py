"""Several answers to one request: llama.cpp's `n`, with what it leaves open.

llama.cpp reads the prompt once, copies its state to a slot for each choice, and tells each frame's
choice by its index. Each choice has the seed of the one before plus one. Two things are done here.

Seeds: of llama.cpp's the largest asks for chance, so that no choice's may come to it.

Usage: it tells each choice's for itself, with the prompt in each, and that of a plain completion
beside its end, where OpenAI has one frame for all. So they are added up: the prompt once, as it was
read once, and the output of all choices.
"""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from hanse.engines.wire.sse import DONE
from hanse.protocol.limits import CHOICES_MAX

SEEDS = 2**32 - 1 - CHOICES_MAX
"""So many first seeds there are, from 0: llama.cpp's have 32 bits, all of them set for chance."""


def fit_seed(body: dict[str, Any]) -> None:
    """Bring the seed of a checked body for several choices to where each of them has its own."""
    if "n" in body and "seed" in body:
        body["seed"] %= SEEDS


async def join_usage(
    payloads: AsyncGenerator[list[bytes], None], choices: int
) -> AsyncGenerator[list[bytes], None]:
    """The frames of so many choices, with one usage frame for all at the end."""
    usages = _Usages(choices)
    try:
        async for some in payloads:
            yield [joined for payload in some for joined in usages.join(payload)]
    finally:
        await payloads.aclose()


class _Usages:
    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._by_choice: dict[int, dict[str, Any]] = {}
        self._ended = 0

    def join(self, payload: bytes) -> list[bytes]:
        # Inside a JSON string the quotes would be escaped, so these are never text.
        is_amid = b'"finish_reason":null' in payload and b'"usage":' not in payload
        if is_amid or payload == DONE:
            return [payload]
        frame = msgspec.json.decode(payload)
        parts, usage = frame.get("choices") or (), frame.pop("usage", None)
        for part in parts:
            if part.get("finish_reason"):
                self._ended = part.get("index", 0)
        if not usage:
            return [payload]
        told = [msgspec.json.encode(frame)] if parts else []
        self._by_choice[self._ended] = usage  # it names no choice, but comes with its end or behind
        if len(self._by_choice) == self._choices:
            frame.pop("timings", None)
            all_of_them = {**frame, "choices": [], "usage": self._add_up()}
            told.append(msgspec.json.encode(all_of_them))
        return told

    def _add_up(self) -> dict[str, Any]:
        first = self._by_choice[min(self._by_choice)]
        output = sum(usage["completion_tokens"] for usage in self._by_choice.values())
        total = first["prompt_tokens"] + output
        return {**first, "completion_tokens": output, "total_tokens": total}
