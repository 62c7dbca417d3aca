"""An instant OpenAI-compatible engine for benchmarks: a fake, it answers every prompt with the same
words, as many as `max_tokens` says. With a pace it is as slow as a real one.

It does as little as a server can: one raw ASGI app that writes prepared frames. What a gateway
costs in front of it is therefore the gateway's own cost.

    python benchmarks/mock_engine.py --port 9000 [--pace-ms 10]
"""

import argparse
import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

MODEL = "mock"
PROMPT_TOKENS = 12
ANSWER_TOKENS = 16
"""Where a request does not say."""


@functools.cache
def get_frames(tokens: int) -> list[bytes]:
    """One SSE frame a token, then the finish, the usage and [DONE], as OpenAI sends them."""
    head = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": MODEL}

    def frame(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"

    words = [
        frame([{"index": 0, "delta": {"content": f"w{i} "}, "finish_reason": None}])
        for i in range(tokens)
    ]
    finish = frame([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    usage = frame([], usage=get_usage(tokens))
    return [*words, finish, usage, b"data: [DONE]\n\n"]


def get_usage(tokens: int) -> dict[str, int]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": tokens,
        "total_tokens": PROMPT_TOKENS + tokens,
    }


@functools.cache
def get_body(tokens: int) -> bytes:
    """The same answer in one piece."""
    message = {"role": "assistant", "content": "".join(f"w{i} " for i in range(tokens))}
    return json.dumps(
        {
            "id": "chatcmpl-mock",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": get_usage(tokens),
        }
    ).encode()


def build_app(
    answer_tokens: int = ANSWER_TOKENS, pace_s: float = 0.0
) -> Callable[..., Awaitable[None]]:
    """The ASGI app; answers have so many tokens where a request does not say.

    `pace_s` is from one token to the next.
    """
    models = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = b""
        while True:
            message = await receive()
            request += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = json.loads(request) if scope["method"] == "POST" else {}
        stream, tokens = asked.get("stream"), asked.get("max_tokens", answer_tokens)
        kind = b"text/event-stream" if stream else b"application/json"
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}
        )
        if stream:
            for number, frame in enumerate(get_frames(tokens)):
                if pace_s and 0 < number <= tokens:
                    await asyncio.sleep(pace_s)
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            if pace_s and asked:
                await asyncio.sleep(pace_s * tokens)
            await send(
                {
                    "type": "http.response.body",
                    "body": get_body(tokens) if asked else models,
                }
            )

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pace-ms", type=float, default=0.0)
    options = parser.parse_args()
    app = build_app(pace_s=options.pace_ms / 1_000)
    config = uvicorn.Config(app, port=options.port, log_level="warning", access_log=False)
    asyncio.run(uvicorn.Server(config).serve())
