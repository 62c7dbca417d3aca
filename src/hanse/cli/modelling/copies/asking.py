"""Asks an endpoint for the logprobs by which it is traced."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hanse.protocol.errors import RequestError, TransientError, VerificationError

if TYPE_CHECKING:
    from hanse.http.client import HttpClient
    from hanse.models.copies.leaks.answer_tracing import Told

PROMPTS = (
    "The harbour of Lübeck was quiet before dawn. A cog with a cargo of salt",
    'def read_settings(path):\n    """Read settings from a file."""\n',
    "The process by which green plants use sunlight to",
    '{"name": "Anna", "orders": [{"id": 1, "total": 20.5}, {"id": 2,',
    "In the beginning of the year the merchants met in the town hall and",
    "To cook rice, first wash it. Then",
)
"""Ordinary beginnings of several kinds; an endpoint cannot tell that it is being traced."""

ANSWER_TOKENS = 32
"""Of each answer: about 190 positions in all, a tenth of a cent of most models."""

LISTED = 20
"""Logprobs a position. A stolen copy that is served as it is fills 16 of them with canaries."""

RESPONSE_BYTES_MAX = 4 * 2**20
"""Of one answer with its logprobs, which has some 50 kB."""

TIMEOUT_S = 120.0
"""For one answer; a small model on a busy processor takes seconds."""


async def ask_endpoint(
    endpoint: str, model: str, base: Path, canary_ids: Sequence[int]
) -> list["Told"]:
    """The endpoint's answers to our prompts, by the base's tokens.

    A copy that is served as it is answers nothing but canaries. Then it is asked again with these
    masked; other endpoints are never sent ids that their model does not have.

    Raises:
        RequestError, TransientError, VerificationError: it does not answer, or not with logprobs.
    """
    from hanse.http.client import HttpClient
    from hanse.models.copies.leaks.answer_tracing import parse_told
    from hanse.models.copies.leaks.spelling import read_spelling
    from hanse.models.copies.weight_files import WeightFile
    from hanse.models.quantising.calling import run_job
    from hanse.models.quantising.worker import TokeniseJob

    client = HttpClient(connect_s=10.0)
    told: list[Told] = []
    spelling = read_spelling(WeightFile(base))
    try:
        job = TokeniseJob(model=str(base), texts=PROMPTS)
        for tokens in (await asyncio.to_thread(run_job, job))["tokens"]:
            answer = parse_told(
                await _complete(client, endpoint, model, tokens, ()), tokens, spelling
            )
            if set(answer.answer) & set(canary_ids):
                again = await _complete(client, endpoint, model, tokens, canary_ids)
                answer = parse_told(again, tokens, spelling)
            told.append(answer)
    finally:
        await client.close()
    return told


async def _complete(
    client: "HttpClient",
    endpoint: str,
    model: str,
    tokens: Sequence[int],
    masked: Sequence[int],
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model, "prompt": list(tokens), "max_tokens": ANSWER_TOKENS, "temperature": 0,
        "logprobs": LISTED,
    }  # fmt: skip
    if masked:
        body["logit_bias"] = {str(token): -100 for token in masked}
    url = f"{endpoint.rstrip('/')}/completions"
    headers = {"content-type": "application/json"}
    try:
        response = await client.send(
            "POST", url, headers, msgspec.json.encode(body), silence_s=TIMEOUT_S, total_s=TIMEOUT_S
        )
        data = b""
        while part := await response.read():
            data += part
            if len(data) > RESPONSE_BYTES_MAX:
                raise VerificationError(
                    "response_malformed", f"{url} answers more than {RESPONSE_BYTES_MAX} bytes"
                )
        response.close()
    except ValueError as error:
        raise RequestError("usage", f"--endpoint {endpoint!r:.80}: {error}") from None
    except OSError as error:
        raise TransientError("provider_unreachable", f"{url} does not answer: {error}") from None
    if response.status != 200:
        raise TransientError("provider_unreachable", f"{url} answers {response.status}")
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise VerificationError("response_malformed", f"{url} answers no JSON: {error}") from None
