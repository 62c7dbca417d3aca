"""What a request asks for, as far as choosing and paying depend on it.

The body is decoded into these few fields only (about 2 us for a small one) and sent as it came, but
that a stream which is paid for is always asked to state its usage: a bill that nothing contradicts
is worth little. Whoever did not ask for it does not see it (`Ask.hides_usage`). Both sides read the
same fields by the same rule, so their maximum fees agree.

Source: OpenAI's API reference; `docs/protocol.md`, section "Maximum fee".
"""

from typing import Any

import msgspec

from hanse.market import RequestShape
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.protocol.nesting import NESTING_MAX, is_nested_too_deep
from hanse.protocol.wire import OPERATIONS_BY_PATH
from hanse.protocol.wire.forms import get_body_type, read_form

AFFINITY_BYTES_MAX = 64 * 1024
"""Of a body's messages or prompt: within these its first message is looked for. A longer one is
known by its first bytes, which are the persona or the document that all its requests begin with."""

_BEGINNING_BYTES = 1_024


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n: int | None = None
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    user: msgspec.Raw = msgspec.Raw()
    prompt_cache_key: msgspec.Raw = msgspec.Raw()
    stream_options: msgspec.Raw = msgspec.Raw()


_ASKED = b'"stream_options":{"include_usage":true},'

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPTIONS = msgspec.json.Decoder(dict[str, Any] | None)
_DECODER = msgspec.json.Decoder(_Body)
_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])
_MESSAGE = msgspec.json.Decoder(msgspec.Raw)


class Ask(msgspec.Struct, frozen=True):
    """One request before anybody was chosen for it.

    `output_tokens` is the most of one choice, None if the body does not say. `beginning` is what
    the prompt begins with, and `session` what OpenAI's fields name to be kept together.
    `asks_usage` says that a stream is asked to state its usage, `hides_usage` that the caller did
    not ask for it. `body_type` is the body's content type.
    """

    path: str
    body: bytes
    service_type: str
    model: str
    is_stream: bool
    output_tokens: int | None
    choices: int
    beginning: bytes = b""
    session: bytes = b""
    asks_usage: bool = False
    hides_usage: bool = False
    body_type: str = "application/json"

    def get_shape(self, session: str = "") -> RequestShape:
        """What choosing a provider needs of it; `session` is the caller's own name for one."""
        named = session.encode() or self.session
        return RequestShape(
            self.service_type,
            self.model,
            len(self.body),
            self.output_tokens,
            self.choices,
            named or self.beginning,
            bool(named),
        )


def read_ask(path: str, body: bytes, *, is_paid: bool = True) -> Ask:
    """Read what the body asks for.

    Args:
        path: of the operation.
        body: as the caller wrote it.
        is_paid: whether a stream is asked to state its usage, asked for or not.

    Raises:
        RequestError: `not_found` for an unknown path, `request_too_large`, `invalid_request`.
    """
    operation = OPERATIONS_BY_PATH.get(path)
    if operation is None:
        known = ", ".join(OPERATIONS_BY_PATH)
        raise RequestError("not_found", f"no operation {path!r:.100}; there are {known}")
    if len(body) > REQUEST_BODY_BYTES_MAX:
        raise RequestError(
            "request_too_large",
            f"the body has {len(body)} bytes, at most {REQUEST_BODY_BYTES_MAX} are taken",
        )
    if operation.takes_form:
        model = read_form(body).fields.get("model")
        if model is None:
            raise RequestError("invalid_request", "the form names no model", param="model")
        kind = get_body_type(path, body)
        return Ask(path, body, operation.service_type, model, False, None, 1, body_type=kind)
    if is_nested_too_deep(body):
        raise RequestError("invalid_request", f"the body has more than {NESTING_MAX} levels")
    try:
        fields = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("invalid_request", f"the body: {error}"[:300]) from None
    limit = fields.max_completion_tokens
    if limit is None:
        limit = fields.max_tokens
    choices = 1 if fields.n is None else fields.n
    if (limit is not None and limit < 1) or choices < 1:
        raise RequestError("invalid_request", "max_tokens and n must be at least 1")
    is_stream = bool(fields.stream) and operation.is_written
    asks_usage = hides_usage = False
    if is_stream and is_paid:
        asked = _ask_for_usage(body, bytes(fields.stream_options))
        asks_usage, hides_usage, body = asked is not None, asked != body, asked or body
    return Ask(
        path,
        body,
        operation.service_type,
        fields.model,
        is_stream,
        limit,
        choices,
        _get_beginning(bytes(fields.messages), bytes(fields.prompt)),
        _get_text(fields.prompt_cache_key) or _get_text(fields.user),
        asks_usage,
        hides_usage and asks_usage,
    )


def _ask_for_usage(body: bytes, options: bytes) -> bytes | None:
    """The body that asks for a stream's usage; None if it cannot."""
    if not options:
        at = body.index(b"{") + 1
        asked = body[:at] + _ASKED + body[at:]
    else:
        try:
            known = _OPTIONS.decode(options) or {}
        except msgspec.DecodeError:  # the broker says what is wrong with it
            return None
        if known.get("include_usage") is True:
            return body
        wanted = msgspec.json.encode(known | {"include_usage": True})
        fields = _FIELDS.decode(body) | {"stream_options": msgspec.Raw(wanted)}
        asked = msgspec.json.encode(fields)
    return asked if len(asked) <= REQUEST_BODY_BYTES_MAX else None


def _get_beginning(messages: bytes, prompt: bytes) -> bytes:
    """The first message, or what a prompt begins with: what a provider may have in its cache."""
    if not messages:
        return prompt[:_BEGINNING_BYTES]
    if len(messages) > AFFINITY_BYTES_MAX:
        return messages[:_BEGINNING_BYTES]
    if messages.startswith(b"[{"):
        try:  # up to its first bracket: no object begins with another whole one
            return bytes(_MESSAGE.decode(messages[1 : messages.find(b"}") + 1]))
        except msgspec.DecodeError:
            pass  # a bracket in its text, or a message of parts
    try:
        found = _MESSAGES.decode(messages)
    except msgspec.DecodeError:  # the broker says what is wrong with it
        return b""
    return bytes(found[0]) if found else b""


def _get_text(field: msgspec.Raw) -> bytes:
    """A text field's JSON; nothing for other kinds, which the broker refuses."""
    raw = bytes(field)
    return raw if len(raw) > 2 and raw[:1] == b'"' else b""
