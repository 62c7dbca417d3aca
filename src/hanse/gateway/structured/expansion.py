"""How much a schema comes to, before anything is done with it.

A validator visits a subschema once for every way that leads to it. Thirty definitions that each
refer twice to the next are two lines each and 2**30 visits. So the parts are counted here with
every reference written out, each reference once, in time that grows with the schema's text alone;
a reference to something that is being written out is recursion, and ends the way.

Only references within the schema are known: `#` and `#/...`. What is counted must be what the
library follows, so a reference is decoded as it decodes it, one that leads nowhere is refused here,
and only two drafts are taken: 2020-12, and draft-07, which OpenAI's SDK for JavaScript writes for
zod (its SDK for Python names none, which is 2020-12).
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from hanse.protocol.errors import RequestError

EXPANDED_MAX = 10_000
"""Subschemas with every reference written out; a large one of an application has some hundred."""

REFERENCES_MAX = 64
"""References that lead on to one another; bounds the recursion here and in the library."""

PATTERNS_MAX = 32
"""Regular expressions in one schema; each may take milliseconds to compile."""

PATTERN_CHARS_MAX = 512
"""One regular expression."""

DRAFTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "http://json-schema.org/draft-07/schema",
)
"""What `$schema` may be; in all others some keyword means what is not counted here."""

_MAPS = ("properties", "patternProperties", "dependentSchemas", "dependencies")
_ASIDE = frozenset(("$defs", "definitions", "enum", "const", "default", "examples"))
_REFUSED = ("$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor", "$anchor", "$id")


@dataclass(frozen=True)
class Extent:
    """What a schema comes to.

    Attributes:
        parts: subschemas with every reference written out.
        recursive: whether some part contains itself.
    """

    parts: int
    recursive: bool


def measure_schema(document: dict[str, Any]) -> Extent:
    """Count a schema's parts.

    Raises:
        RequestError: `invalid_request`, beyond a limit of this module, or refers elsewhere.
    """
    _check_patterns(document)
    measure = _Measure(document)
    return Extent(measure.count(document, 0), measure.recursive)


def refuse_schema(reason: str) -> RequestError:
    """The error of a schema that is not taken."""
    return RequestError(
        "invalid_request",
        f"the JSON schema cannot be used: {reason}",
        param="response_format.json_schema.schema",
    )


class _Measure:
    def __init__(self, root: dict[str, Any]) -> None:
        self.recursive = False
        self._root = root
        self._counted: dict[tuple[str, ...], int] = {}
        self._open: set[tuple[str, ...]] = {()}

    def count(self, node: object, depth: int) -> int:
        """The parts of a schema, or of a list of schemas; of anything else there are none."""
        total = 0
        if isinstance(node, list):
            total = sum(self.count(item, depth) for item in node)
        elif isinstance(node, dict):
            total = 1 + sum(self._count_keyword(name, node[name], depth) for name in node)
        if total > EXPANDED_MAX:
            raise refuse_schema(f"with its references written out it has over {EXPANDED_MAX} parts")
        return total

    def _count_keyword(self, name: str, value: object, depth: int) -> int:
        if name in _REFUSED:
            raise refuse_schema(f"{name} is not taken here; use $defs, and $ref to #/$defs/...")
        if name == "$schema" and (not isinstance(value, str) or value.rstrip("#") not in DRAFTS):
            raise refuse_schema(f"$schema is {value!r:.80}, taken are {' and '.join(DRAFTS)}")
        if name == "enum" and isinstance(value, list):
            return sum(isinstance(item, list | dict) for item in value)  # scalars are looked up
        if name in _ASIDE:
            return 0  # data, or counted where it is referred to
        if name == "$ref":
            return self._count_reference(value, depth)
        if name in _MAPS and isinstance(value, dict):
            return self.count(list(value.values()), depth)
        return self.count(value, depth)

    def _count_reference(self, reference: object, depth: int) -> int:
        if not isinstance(reference, str) or (reference != "#" and reference[:2] != "#/"):
            raise refuse_schema(f"$ref leads to {reference!r:.80}, expected #/... within it")
        place = _read_pointer(reference)
        if place in self._open:
            self.recursive = True
            return 1
        known = self._counted.get(place)
        if known is None:
            if depth >= REFERENCES_MAX:
                raise refuse_schema(f"over {REFERENCES_MAX} references lead on to one another")
            self._open.add(place)
            known = self.count(_get_target(self._root, place), depth + 1)
            self._open.discard(place)
            self._counted[place] = known
        return known


def _read_pointer(reference: str) -> tuple[str, ...]:
    """The names of a JSON pointer; as in the library, an escaped slash separates too."""
    parts = unquote(reference[1:], errors="replace").split("/")[1:]
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def _get_target(root: object, place: tuple[str, ...]) -> object:
    node = root
    for name in place:
        if isinstance(node, dict) and name in node:
            node = node[name]
        elif isinstance(node, list) and name in map(str, range(len(node))):
            node = node[int(name)]
        else:
            raise refuse_schema(
                f"$ref leads to {'/'.join(('#', *place))!r:.80}, which is not there"
            )
    return node


def _check_patterns(document: dict[str, Any]) -> None:
    """Every pattern, wherever it stands; texts of data that look like one count too."""
    patterns: list[str] = []
    rest: list[object] = [document]
    while rest:
        node = rest.pop()
        if isinstance(node, list):
            rest += node
        elif isinstance(node, dict):
            rest += node.values()
            if isinstance(node.get("pattern"), str):
                patterns.append(node["pattern"])
            if isinstance(node.get("patternProperties"), dict):
                patterns += node["patternProperties"]
    if len(patterns) > PATTERNS_MAX:
        raise refuse_schema(f"it has {len(patterns)} patterns, at most {PATTERNS_MAX} are taken")
    longest = max(map(len, patterns), default=0)
    if longest > PATTERN_CHARS_MAX:
        raise refuse_schema(f"a pattern has {longest} characters, at most {PATTERN_CHARS_MAX}")
