"""Which fields of an OpenAI request are taken, ignored or refused; the same for every engine.

A field is taken (checked here, handed to the engine), ignored (it cannot change the answer, so a
client that sends it is served), or refused by name with `unsupported_parameter`. Nothing is dropped
silently that a caller could miss in the answer. `null` counts as absent.

Engines get a new dict and build their own request from it, so a caller can never reach an engine's
private parameters (slots, adapters, file paths).

Source: OpenAI's API reference for chat completions, completions and embeddings.
"""

from collections.abc import Callable
from typing import Any

from hanse.engines.audio.fields import check_audio_fields
from hanse.engines.base import Capabilities, EngineRequest, Operation
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import CHOICES_MAX, MESSAGES_MAX

STOPS_MAX = 16
"""Stop strings; OpenAI takes 4, engines compare each one at every token."""

STOP_CHARS_MAX = 256
"""Length of one stop string: the engine holds back as much text as this."""

LOGIT_BIAS_MAX = 1_024
"""Entries of `logit_bias`; OpenAI takes 300."""

TOP_LOGPROBS_MAX = 20
"""Alternatives a token; OpenAI's limit, and each is about 60 bytes of every frame."""

GRAMMAR_CHARS_MAX = 65_536
"""Length of a grammar; compiling it is work that nobody pays for."""

SCHEMA_DEPTH_MAX = 32
"""Nesting of a JSON schema; it is compiled recursively."""

SCHEMA_NODES_MAX = 1_024
"""Values in a JSON schema, for the same reason as GRAMMAR_CHARS_MAX: 4,000 took llama.cpp 4 s."""

EMBEDDING_INPUTS_MAX = 256
"""Texts of one embeddings request; more belong into a second one."""

IGNORED = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Fields that OpenAI keeps for its own accounts; they cannot change an answer."""

_HANDLED = frozenset({"model", "stream", "stream_options"})
"""Fields that the engine or the broker sets by itself."""

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "n": (1,),
    "suffix": ("",),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
}
"""Fields that are accepted with a value that changes nothing, and refused with any other."""

_OPTIONAL = frozenset(  # what an engine need not offer, or not with any value
    ["n", "best_of", "dimensions", "logprobs", "grammar", "tools", "tool_choice", "response_format"]
)
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})

Check = Callable[[str, Any], Any]


def check_request(request: EngineRequest, capabilities: Capabilities) -> dict[str, Any]:
    """The fields that the engine must honour, each checked; `max_tokens` is always among them.

    `max_completion_tokens` becomes `max_tokens`. Without either, it is the capabilities' limit. `n`
    is there only if it is above 1.

    Raises:
        RequestError: `invalid_request` or `unsupported_parameter`, with `param`.
    """
    if request.checked is not None and request.checked[0] is capabilities:
        return request.checked[1].copy()
    if request.operation not in capabilities.operations:
        raise RequestError("not_found", f"This service does not offer {request.operation.path}.")
    if request.operation not in _CHECKS:
        return check_audio_fields(request.operation, request.body, IGNORED | _HANDLED)
    checks = _CHECKS[request.operation]
    out: dict[str, Any] = {}
    for name, value in request.body.items():
        check = checks.get(name)
        if check is not None and value is not None:
            out[name] = check(name, value)
        elif not (value is None or name in IGNORED or name in _HANDLED):
            _refuse_unless_neutral(name, value, capabilities)
    _check_required(request.operation, out)
    if not _OPTIONAL.isdisjoint(out):
        _check_capabilities(out, capabilities)
    if request.operation is not Operation.EMBEDDINGS:
        _settle_output_limit(out, capabilities.output_tokens_max)
    return out


def count_choices(checked: dict[str, Any]) -> int:
    """How many answers a checked body asks for."""
    return int(checked.get("n", 1))


def wants_usage(body: dict[str, Any]) -> bool:
    """Whether the caller asked for the usage frame at the end of a stream."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise _invalid("stream_options", "must be an object")
    return options.get("include_usage") is True


def _refuse_unless_neutral(name: str, value: Any, capabilities: Capabilities) -> None:
    if value in _NEUTRAL.get(name, ()):
        return
    if name in _NEUTRAL:
        raise _unsupported(name, f"only takes {_NEUTRAL[name][0]!r} here")
    raise _unsupported(name, "is not known here; leave it out")


def _check_required(operation: Operation, out: dict[str, Any]) -> None:
    needed = _NEEDED[operation]
    if needed not in out:
        raise _invalid(needed, "is missing")
    if out.get("top_logprobs") is not None and out.get("logprobs") is not True:
        raise _invalid("top_logprobs", "needs logprobs to be true")


def _check_capabilities(out: dict[str, Any], capabilities: Capabilities) -> None:
    offered = {
        "logprobs": capabilities.logprobs,
        "grammar": capabilities.grammar,
        "tools": capabilities.tools,
        "tool_choice": (capabilities.tools and capabilities.forced_tools)
        or out.get("tool_choice") in ("none", "auto"),
        "response_format": capabilities.json_schema
        or out.get("response_format", {}).get("type") == "text",
    }
    for name, is_offered in offered.items():
        if out.get(name) and not is_offered:
            raise _unsupported(name, "is not offered by this model's engine")
    if not capabilities.tools:
        out.pop("tool_choice", None)
    _settle_choices(out, capabilities.choices_max)
    known, asked = capabilities.embedding_dimensions, out.get("dimensions")
    if known and asked is not None and asked != known:
        raise _unsupported("dimensions", f"is {asked}, but this model's vectors have {known}")


def _settle_choices(out: dict[str, Any], limit: int) -> None:
    choices = out.pop("n", 1)
    if choices > limit:
        raise _unsupported("n", f"is {choices}, but this model's engine gives at most {limit}")
    if out.pop("best_of", choices) != choices:
        raise _unsupported("best_of", f"only takes {choices}, the value of n, here")
    if choices > 1:
        out["n"] = choices


def _settle_output_limit(out: dict[str, Any], limit: int) -> None:
    name = "max_completion_tokens" if "max_completion_tokens" in out else "max_tokens"
    asked = out.pop("max_completion_tokens", None) or out.get("max_tokens", limit)
    if asked > limit:
        raise _invalid(name, f"is {asked}, but this service gives at most {limit} tokens")
    out["max_tokens"] = asked


def _invalid(name: str, problem: str) -> RequestError:
    return RequestError("invalid_request", f"{_shown(name)} {problem}.", param=_shown(name))


def _unsupported(name: str, problem: str) -> RequestError:
    return RequestError("unsupported_parameter", f"{_shown(name)} {problem}.", param=_shown(name))


def _shown(name: str) -> str:
    """A caller chooses a field's name, so what is repeated of it is short and printable."""
    return "".join(c for c in name[:64] if c.isprintable())


def _number(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _invalid(name, "must be a number")
        if not low <= value <= high:
            raise _invalid(name, f"is {value}, but must lie between {low} and {high}")
        return value

    return check


def _integer(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _invalid(name, "must be an integer")
        if not low <= value <= high:
            raise _invalid(name, f"is {value}, but must lie between {low} and {high}")
        return value

    return check


def _text(chars_max: int) -> Check:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise _invalid(name, "must be a string")
        if len(value) > chars_max:
            raise _invalid(name, f"has {len(value)} characters, but at most {chars_max} are taken")
        return value

    return check


def _flag(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise _invalid(name, "must be true or false")
    return value


def _one_of(*choices: str) -> Check:
    def check(name: str, value: Any) -> Any:
        if value not in choices:
            raise _invalid(name, f"must be one of {', '.join(choices)}")
        return value

    return check


def _stop(name: str, value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > STOPS_MAX:
        raise _invalid(name, f"must be a string or at most {STOPS_MAX} strings")
    check = _text(STOP_CHARS_MAX)
    return [check(name, text) for text in texts if text != ""]


def _logit_bias(name: str, value: Any) -> Any:
    if not isinstance(value, dict) or len(value) > LOGIT_BIAS_MAX:
        raise _invalid(name, f"must be an object of at most {LOGIT_BIAS_MAX} token numbers")
    check = _number(-100, 100)
    if not all(key.isascii() and key.isdigit() for key in value):
        raise _invalid(name, "must have token numbers as its keys")
    return {key: check(name, bias) for key, bias in value.items()}


def _messages(name: str, value: Any) -> Any:
    if not isinstance(value, list) or not 1 <= len(value) <= MESSAGES_MAX:
        raise _invalid(name, f"must be a list of 1 to {MESSAGES_MAX} messages")
    for index, message in enumerate(value):
        if _is_plain(message):
            continue
        where = f"{name}[{index}]"
        if not isinstance(message, dict):
            raise _invalid(where, "must be an object")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise _invalid(f"{where}.role", f"must be one of {', '.join(sorted(_ROLES))}")
        for key in ("name", "reasoning_content", "tool_call_id"):
            _text_or_nothing(f"{where}.{key}", message.get(key))
        if message.get("tool_calls") is not None:
            _tool_calls(f"{where}.tool_calls", message["tool_calls"])
        content = message.get("content")
        if content is None and role == "assistant" and message.get("tool_calls"):
            continue
        _content(f"{where}.content", content)
    return value


def _is_plain(message: Any) -> bool:
    """A role and a text: what nearly every message is, and hundreds come with one request."""
    if not isinstance(message, dict) or len(message) != 2:
        return False
    role, content = message.get("role"), message.get("content")
    return isinstance(content, str) and isinstance(role, str) and role in _ROLES


def _tool_calls(where: str, calls: Any) -> None:
    for given in calls if isinstance(calls, list) and calls else [None]:
        call = given if isinstance(given, dict) else {}
        function = call.get("function")
        if not isinstance(function, dict) or not all(
            isinstance(function.get(key), str) for key in ("name", "arguments")
        ):
            raise _invalid(where, "must be a list of function calls with a name and arguments")
        for key in ("id", "type"):
            _text_or_nothing(f"{where}.{key}", call.get(key))


def _text_or_nothing(where: str, value: Any) -> None:
    """Engines end with an internal error over another type, as if they were broken."""
    if value is not None and not isinstance(value, str):
        raise _invalid(where, "must be a string")


def _content(where: str, content: Any) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise _invalid(where, "must be a string or a list of text parts")
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise _invalid(where, "takes parts of type text only")
        if part.get("type") != "text":
            raise _invalid(where, "takes parts of type text only")


def _prompt(name: str, value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (str, list)):
        value = value[0]
    if isinstance(value, str) or _is_tokens(value):
        return value
    raise _invalid(name, "must be one string or one list of token numbers")


def _inputs(name: str, value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if _is_tokens(value):
        value = [value]
    if not isinstance(value, list) or not 1 <= len(value) <= EMBEDDING_INPUTS_MAX:
        raise _invalid(name, f"must be a text or 1 to {EMBEDDING_INPUTS_MAX} texts")
    if not all((isinstance(v, str) and v) or _is_tokens(v) for v in value):
        raise _invalid(name, "holds an empty text, or something that is no text")
    return value


def _is_tokens(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(token) is int and 0 <= token < 2**31 for token in value)
    )


def _response_format(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        raise _invalid(name, "must be an object")
    kind = value.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise _invalid(f"{name}.type", "must be one of text, json_object, json_schema")
    if kind == "json_schema":
        holder = value.get("json_schema")
        if not isinstance(holder, dict) or not isinstance(holder.get("schema"), dict):
            raise _invalid(f"{name}.json_schema.schema", "must be an object")
    _bound_schema(name, value)
    return value


def _tools(name: str, value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise _invalid(name, "must be a list of objects")
    _bound_schema(name, value)
    return value


def _tool_choice(name: str, value: Any) -> Any:
    if not isinstance(value, dict) and value not in ("none", "auto", "required"):
        raise _invalid(name, "must be none, auto, required or an object")
    return value


def _bound_schema(where: str, schema: Any) -> None:
    nodes, level = 0, [schema]
    for _ in range(SCHEMA_DEPTH_MAX):
        nodes += len(level)
        if nodes > SCHEMA_NODES_MAX:
            raise _invalid(where, f"has more than {SCHEMA_NODES_MAX} values")
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise _invalid(where, f"is nested deeper than {SCHEMA_DEPTH_MAX}")


def refuse_patterns(where: str, schema: Any) -> None:
    """Refuse regular expressions in a bounded schema, for engines that expand them unboundedly.

    A property may be called `pattern`; then a schema stands there, not a string.

    Raises:
        RequestError: `unsupported_parameter`.
    """
    level = [schema]
    while level:
        if any(isinstance(node, dict) and isinstance(node.get("pattern"), str) for node in level):
            raise _unsupported(f"{where}.pattern", "is not taken by this model's engine")
        level = [child for node in level for child in _children(node)]


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


_SAMPLING: dict[str, Check] = {
    "n": _integer(1, CHOICES_MAX),
    "best_of": _integer(1, CHOICES_MAX),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": _integer(0, 1_000),
    "min_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _integer(-(2**63), 2**63 - 1),
    "stop": _stop,
    "logit_bias": _logit_bias,
    "max_tokens": _integer(1, 2**31),
    "grammar": _text(GRAMMAR_CHARS_MAX),
}

_NEEDED = {
    Operation.CHAT: "messages",
    Operation.COMPLETION: "prompt",
    Operation.EMBEDDINGS: "input",
}

_CHECKS: dict[Operation, dict[str, Check]] = {
    Operation.CHAT: {
        **_SAMPLING,
        "messages": _messages,
        "max_completion_tokens": _integer(1, 2**31),
        "logprobs": _flag,
        "top_logprobs": _integer(0, TOP_LOGPROBS_MAX),
        "response_format": _response_format,
        "tools": _tools,
        "tool_choice": _tool_choice,
    },
    Operation.COMPLETION: {
        **_SAMPLING,
        "prompt": _prompt,
        "logprobs": _integer(0, TOP_LOGPROBS_MAX),
    },
    Operation.EMBEDDINGS: {
        "input": _inputs,
        "encoding_format": _one_of("float", "base64"),
        "dimensions": _integer(1, 2**16),
    },
}
