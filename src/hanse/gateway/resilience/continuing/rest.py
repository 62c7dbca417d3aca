"""What is asked of another provider when a stream broke, and why that may not be asked.

A chat goes on as an assistant message at the end that holds the delivered text: llama.cpp goes on
from there instead of starting a turn. A plain completion goes on from prompt and text together.
What is asked is a request of the gateway's own making: the voucher buys its hash, the receipt
covers the bytes that the next provider sends. `max_tokens` falls by the tokens that were delivered
(`hanse.gateway.resilience.delivered`).

Of several choices each that has not come to its end gets a request of its own, for one choice, with
the seed that it would have had. One of which nothing came is asked for from its beginning.

The delivered text becomes a prompt that is paid for, so one that is longer than the tokens that
were asked for can be is not handed over: a provider could make the next one dear.

Not continued, since the other provider could not know where it stands: token log probabilities, an
answer bound to a schema or grammar, a tool call under way, a thought. Where one choice cannot go
on, none does: the application would wait for what never comes.

Source: llama.cpp's server, "prefill" of an assistant message that comes last.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from hanse.gateway.resilience.delivered import TEXT_BYTES_MAX, Delivered, Said
from hanse.protocol.hashing import DONE_FRAME

TOKEN_BYTES_MAX = 32
"""Of text for each token that was asked for; tokens of ordinary text have about four."""

PROMPTS_BYTES_MAX = 131_072
"""Of bodies that ask for several choices one by one: some 32,000 tokens. Each reads the prompt
anew, so whoever breaks off on purpose could have others earn it sixteen times over."""

_LIMITS = ("max_completion_tokens", "max_tokens")
_BOUND = ("grammar", "json_schema", "guided_json", "guided_regex", "guided_grammar", "suffix")


def count_choices(request: dict[str, Any]) -> int:
    """How many answers were asked for."""
    return request.get("n") or 1


def list_going(request: dict[str, Any], delivered: Delivered) -> list[int]:
    """The choices that have not come to their end."""
    choices = range(count_choices(request))
    return [index for index in choices if not delivered.get(index).finish_reason]


def find_obstacle(request: dict[str, Any], delivered: Delivered) -> str:
    """Why the rest of this answer cannot be asked for elsewhere; empty if it can."""
    if delivered.obstacle:
        return delivered.obstacle
    choices, going = count_choices(request), list_going(request, delivered)
    if not going:
        return "it had come to its end"
    if max(delivered.choices, default=0) >= choices:
        return f"it has more choices than {choices}"
    if len(going) > 1:
        read_bytes = len(going) * len(msgspec.json.encode(request))
        if read_bytes > PROMPTS_BYTES_MAX:
            return f"its {len(going)} choices would read {read_bytes} bytes of prompts"
    for index in going:
        if found := _find_obstacle_of_choice(request, delivered.get(index)):
            return found
    if request.get("best_of") not in (None, choices):
        return "it is the best of more"
    if request.get("logprobs") or request.get("top_logprobs"):
        return "it has log probabilities"
    shape = request.get("response_format")
    if isinstance(shape, dict) and shape.get("type") not in (None, "text"):
        return "it is bound to a schema"
    if any(request.get(name) for name in _BOUND):
        return "it is bound to a grammar"
    if request.get("echo") or request.get("tool_choice") == "required":
        return "it does not go on from its text"
    return _find_prompt_obstacle(request)


def make_rest(request: dict[str, Any], delivered: Delivered, index: int = 0) -> bytes | None:
    """The body that asks for the rest of a choice; None if `max_tokens` leaves nothing to ask for.

    Args:
        request: the application's own, decoded; one without obstacle.
        delivered: what it has.
        index: of the choice.
    """
    body, said = dict(request), delivered.get(index)
    given = delivered.tokens
    if count_choices(request) > 1:  # what was counted elsewhere was counted of all together
        given = said.frames
        body.pop("n")
        body.pop("best_of", None)
        if isinstance(body.get("seed"), int):
            body["seed"] += index
    for name in _LIMITS:
        if isinstance(body.get(name), int):
            body[name] -= given
            if body[name] < 1:
                return None
    if said.text and body.get("messages"):
        body["messages"] = _extend(body["messages"], said.text)
    elif said.text:
        prompt = body["prompt"]
        body["prompt"] = (prompt if isinstance(prompt, str) else prompt[0]) + said.text
    return msgspec.json.encode(body)


def make_cut(request: dict[str, Any], delivered: Delivered, index: int = 0) -> bytes:
    """The end of a choice whose provider gave every token that was asked for, but no end."""
    said: dict[str, Any] = {"delta": {}} if request.get("messages") else {"text": ""}
    return make_frame(delivered, [{"index": index, "finish_reason": "length"} | said])


def make_usage(
    request: dict[str, Any], delivered: Delivered, prompt: int, completion: int
) -> list[bytes]:
    """The frame with the usage, if it was asked for."""
    if not (request.get("stream_options") or {}).get("include_usage"):
        return []
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return [make_frame(delivered, [], usage=usage | {"total_tokens": prompt + completion})]


def make_end(
    request: dict[str, Any], delivered: Delivered, prompts: Sequence[int | None]
) -> list[bytes]:
    """The end of a stream with one choice, to which `make_cut` applies."""
    prompt = sum(told or 0 for told in prompts)
    usage = make_usage(request, delivered, prompt, delivered.tokens)
    return [make_cut(request, delivered), *usage, DONE_FRAME]


def make_frame(delivered: Delivered, choices: list[dict[str, Any]], **more: Any) -> bytes:
    """A frame of the gateway's own that goes by the stream's name."""
    head = {
        "id": delivered.id,
        "object": delivered.kind,
        "created": delivered.created,
        "model": delivered.model,
    }
    return b"data: " + msgspec.json.encode({**head, "choices": choices, **more}) + b"\n\n"


def _find_obstacle_of_choice(request: dict[str, Any], said: Said) -> str:
    text_bytes, most = len(said.text.encode()), _get_text_bytes_max(request)
    if text_bytes > most:
        return f"its text has {text_bytes} bytes, more than the {most} of what was asked for"
    return said.obstacle


def _get_text_bytes_max(request: dict[str, Any]) -> int:
    most = TEXT_BYTES_MAX
    for name in _LIMITS:
        asked = request.get(name)
        if isinstance(asked, int):
            most = min(most, asked * TOKEN_BYTES_MAX)
    return most


def _find_prompt_obstacle(request: dict[str, Any]) -> str:
    if request.get("messages"):
        last = request["messages"][-1]
        if last.get("role") == "assistant" and not isinstance(last.get("content"), str):
            return "its last message has parts"
        return ""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return "" if isinstance(prompt, str) else "its prompt is not one text"


def _extend(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    last = messages[-1]
    if last.get("role") == "assistant":  # the application's own beginning of the answer
        return [*messages[:-1], {**last, "content": last["content"] + text}]
    return [*messages, {"role": "assistant", "content": text}]
