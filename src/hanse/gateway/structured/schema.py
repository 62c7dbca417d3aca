"""A stranger's JSON schema, made into a validator that cannot be used as a weapon.

Validators follow references, run regular expressions and visit every branch, so a schema is a
program that somebody else wrote. What keeps its cost within bounds:

- no reference leaves the schema: `$ref` is `#` or `#/...`, retrieval is off in the library;
- patterns run on automata in linear time and bounded memory, without backtracking or lookaround;
- the size of the schema, the number of its patterns, and what it comes to with every reference
  written out are limited, and the last times the answer's length as well;
- recursive schemas are judged by the library's remembering mode. Their errors are not worded, as
  wording visits every path.

    schema = compile_schema(b'{"type": "object"}')
    schema.find_fault('{"a": 1}')             # None: it fits

Source: JSON Schema 2020-12, core section 8.2 (references); timings in docs/gateway/structured.md.
"""

from typing import Any

import jsonschema_rs
import msgspec

from hanse.gateway.structured.expansion import Extent, measure_schema, refuse_schema
from hanse.protocol.errors import InvariantError
from hanse.protocol.nesting import is_nested_too_deep

SCHEMA_BYTES_MAX = 64 * 1024
"""One schema as JSON; those of applications have some hundred bytes, OpenAI's limit allows 120 kB.
"""

PATTERN_STATES_BYTES_MAX = 64 * 1024
"""Memory of one compiled expression: what bounds the time a character takes."""

TEXT_BYTES_MAX = 256 * 1024
"""One answer that is to fit; about 60,000 tokens."""

WORK_MAX = 20_000_000
"""Subschemas times bytes of the answer; about a second at worst."""

WORDED_WORK_MAX = 200_000
"""Likewise, up to which a fault is put into words: each branch that fails copies the answer."""

FAULT_CHARS_MAX = 300
"""What is said of a wrong answer, to the model that shall mend it."""

CACHE_MAX = 256
"""Compiled schemas kept; a game asks with the same few all day."""

_PATTERN_OPTIONS = jsonschema_rs.RegexOptions(
    size_limit=PATTERN_STATES_BYTES_MAX, dfa_size_limit=PATTERN_STATES_BYTES_MAX
)


class Schema:
    """A compiled schema. Make it with `compile_schema`.

    Attributes:
        default: the schema's own `default` at its root as JSON, None if it has none.
    """

    def __init__(self, document: dict[str, Any], extent: Extent) -> None:
        self._extent = extent
        self._validator = jsonschema_rs.validator_for(
            document,
            offline=True,
            pattern_options=_PATTERN_OPTIONS,
            validate_formats=True,
            # the default would compile what the answer says with no limit of ours
            formats={"regex": lambda _: True},
        )
        self.default: bytes | None = None
        if "default" in document:
            self.default = msgspec.json.encode(document["default"])

    def find_fault(self, text: str | bytes) -> str | None:
        """What is wrong with an answer, for the model that shall mend it; None if it fits.

        It may quote the answer, so it belongs in no log and no metric.
        """
        data = text.encode() if isinstance(text, str) else text
        if len(data) > TEXT_BYTES_MAX:
            return f"the answer has {len(data)} bytes, at most {TEXT_BYTES_MAX} are taken"
        if self._extent.parts * len(data) > WORK_MAX:
            return f"the answer's {len(data)} bytes are too many for a schema of this size"
        if is_nested_too_deep(data):
            return "the answer is nested too deeply"
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f"the answer is not JSON: {error}"[:FAULT_CHARS_MAX]
        if self._validator.is_valid(value):
            return None
        if self._extent.recursive or self._extent.parts * len(data) > WORDED_WORK_MAX:
            return "the answer does not fit the schema"
        return self._word(value)

    def _word(self, value: object) -> str:
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            place = "".join(f"/{part}" for part in error.instance_path) or "the answer"
            return f"{place}: {error.message}"[:FAULT_CHARS_MAX]
        raise InvariantError("internal_error", "a validator judges one answer in two ways")


def compile_schema(text: bytes) -> Schema:
    """The validator of a schema, from the cache if it was asked for before.

    Raises:
        RequestError: `invalid_request`; it is no JSON schema, or beyond a limit of this module.
    """
    known = _CACHE.get(text)
    if known is None:
        known = _compile(text)
        if len(_CACHE) >= CACHE_MAX:
            del _CACHE[next(iter(_CACHE))]
        _CACHE[text] = known
    return known


_CACHE: dict[bytes, Schema] = {}


def _compile(text: bytes) -> Schema:
    if len(text) > SCHEMA_BYTES_MAX:
        raise refuse_schema(f"it has {len(text)} bytes, at most {SCHEMA_BYTES_MAX} are taken")
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refuse_schema(f"it is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise refuse_schema("it is not an object")
    document.pop("$id", None)  # at the root it only names the schema
    try:
        return Schema(document, measure_schema(document))
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        reason = getattr(error, "message", "") or str(error)
        raise refuse_schema(reason.partition("\n")[0][:FAULT_CHARS_MAX]) from None
