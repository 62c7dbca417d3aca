"""What one chat completion asks for: a schema, a default, and what follows a wrong answer.

    response_format: {"type": "json_schema", "json_schema": {"schema": ...}}     in the body
    hanse-default: {"action": "wait"}              JSON that is delivered when no answer fits; else
                                                   the schema's own `default` at its root, if any
    hanse-structured: repair | elsewhere | stream  words, separated by commas

`repair` shows the model its answer and what is wrong with it, `elsewhere` asks another provider;
`stream` gives up the judgement before delivery for an early first token.

Source: OpenAI's API reference, `response_format`; docs/gateway/structured.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from hanse.gateway.structured.contents import Gathering
from hanse.gateway.structured.schema import Schema, compile_schema
from hanse.protocol.errors import RequestError

NAME_HEADER = b"hanse-structured"
DEFAULT_HEADER = b"hanse-default"

REPAIR, ELSEWHERE, STREAM = "repair", "elsewhere", "stream"
AFTERWARDS = (REPAIR, ELSEWHERE)
"""What may follow a wrong answer, once."""


class _JsonSchema(msgspec.Struct):
    # `schema` may be left out by OpenAI's rules; then there is nothing to hold an answer against
    schema: msgspec.Raw = msgspec.Raw(b"")


class _Format(msgspec.Struct):
    type: str = ""
    json_schema: _JsonSchema | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    model: str = ""
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    response_format: _Format | None = None
    max_tokens: msgspec.Raw = msgspec.Raw(b"")
    max_completion_tokens: msgspec.Raw = msgspec.Raw(b"")

    @property
    def is_limited(self) -> bool:
        """Whether the request itself says how long an answer may be."""
        limits = (self.max_tokens, self.max_completion_tokens)
        return any(bytes(limit) not in (b"", b"null") for limit in limits)


@dataclass(frozen=True, slots=True)
class Demand:
    """What an answer must be, and what is done when it is not.

    Attributes:
        schema: what every choice must fit.
        default: JSON that fits and is delivered when no answer does; None if none was declared.
        afterwards: one of `AFTERWARDS`.
        held: whether nothing is delivered before it was judged.
        model: as asked for, for a completion of the gateway's own.
        stream: whether a stream was asked for.
        usage: whether that stream is to carry its usage.
        is_limited: whether the request says how long an answer may be, so that no provider's may be
            longer.
    """

    schema: Schema
    default: bytes | None
    afterwards: str
    held: bool
    model: str
    stream: bool
    usage: bool
    is_limited: bool = False

    def is_cut_again(self, gathering: Gathering) -> bool:
        """Whether a second attempt would be cut where this answer was: it has no more tokens.

        That of another provider has, if only the offer's own limit cut the first.
        """
        if self.afterwards != REPAIR and not self.is_limited:
            return False
        return any(
            choice.is_cut and choice.is_answer and self.schema.find_fault(choice.text) is not None
            for choice in gathering.choices.values()
        )

    def find_fault(self, gathering: Gathering) -> str | None:
        """What is wrong with an answer; None if every choice fits, calls a tool or refuses."""
        if gathering.broken or not gathering.choices:
            return "the answer broke off"
        for choice in gathering.choices.values():
            fault = self.schema.find_fault(choice.text) if choice.is_answer else None
            if fault is not None:
                return f"{fault}; it was cut at max_tokens" if choice.is_cut else fault
        return None


def find_demand(
    body: bytes, wishes: Mapping[bytes, bytes], afterwards: str, *, has_format: bool = True
) -> Demand | None:
    """What a chat completion's body and headers ask for; None if it names no schema.

    Args:
        body: the request, already known to be JSON of the right shape.
        wishes: its `hanse-...` headers by lower-case name.
        afterwards: the gateway's setting, where the request does not choose.
        has_format: whether the body names a `response_format`; True if nobody has looked.

    Raises:
        RequestError: `invalid_request`: schema, default or header cannot be used; the header that
            chooses is held to its words without a schema, too.
    """
    words = _read_words(wishes[NAME_HEADER]) if NAME_HEADER in wishes else []
    if not has_format:
        return None
    try:
        asked = _DECODE(body)
    except msgspec.ValidationError as error:
        raise RequestError(
            "invalid_request", f"response_format: {error}", param="response_format"
        ) from None
    shape = asked.response_format
    if shape is None or shape.type != "json_schema" or shape.json_schema is None:
        return None
    text = bytes(shape.json_schema.schema)
    if text in (b"", b"null"):
        return None
    schema = compile_schema(text)
    options = asked.stream_options
    return Demand(
        schema=schema,
        default=_get_default(schema, wishes.get(DEFAULT_HEADER)),
        afterwards=next((word for word in words if word in AFTERWARDS), afterwards),
        held=not (asked.stream and STREAM in words),
        model=asked.model,
        stream=bool(asked.stream),
        usage=bool(options and options.include_usage),
        is_limited=asked.is_limited,
    )


_DECODE = msgspec.json.Decoder(_Body).decode


def _read_words(header: bytes) -> list[str]:
    words = [word.strip() for word in header.decode("latin-1").lower().split(",") if word.strip()]
    for word in words:
        if word not in (*AFTERWARDS, STREAM):
            raise RequestError(
                "invalid_request",
                f"hanse-structured says {word!r:.40}, expected repair, elsewhere or stream",
                param="hanse-structured",
            )
    return words


def _get_default(schema: Schema, given: bytes | None) -> bytes | None:
    default = schema.default if given is None else given
    if default is None:
        return None
    fault = schema.find_fault(default)
    if fault is not None:
        raise RequestError(
            "invalid_request",
            f"the default does not fit the schema: {fault}",
            param="hanse-default",
        )
    return default
