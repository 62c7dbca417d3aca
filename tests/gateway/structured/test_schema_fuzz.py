"""Thousands of odd schemas and answers: each is refused by name or judged, and nothing breaks."""

import json
import random
from typing import Any

import pytest

from hanse.gateway.structured.schema import compile_schema
from hanse.protocol.errors import RequestError

SCHEMAS = 1_500
DEPTH_MAX = 4
KEYWORDS = (
    "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum",
    "exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems",
    "uniqueItems", "maxContains", "minContains", "maxProperties", "minProperties", "required",
    "dependentRequired", "properties", "patternProperties", "additionalProperties", "items",
    "prefixItems", "contains", "propertyNames", "allOf", "anyOf", "oneOf", "not", "if", "then",
    "else", "$ref", "$defs", "format", "unevaluatedItems", "unevaluatedProperties",
    "dependentSchemas", "contentEncoding", "contentMediaType", "contentSchema", "$schema",
    "default", "dependencies", "additionalItems", "$vocabulary", "definitions", "$id",
    "$anchor",
)  # fmt: skip
NAMES = ("a", "b", "", "$ref", "é", "x/y", "~")
SCALARS = (
    *(0, 1, -1, 1.5, 0.1, 1e300, -1e-300, 10**30, 2**63, 2**64, -(2**63) - 1, True, False, None),
    *("", "a", "string", "object", "array", "integer", "number", "\ud7ff"),
    *("#", "#/", "#/$defs/a", "#/a/0", "^a+$", "[", "(?i)x", "\\d", "(?=a)"),
    *("date-time", "regex", "uri", "email", "uuid", "ipv6", "idn-hostname", "base64"),
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)


def make_value(chance: random.Random, depth: int) -> Any:
    shape = chance.random()
    if depth >= DEPTH_MAX or shape > 0.6:
        return chance.choice(SCALARS)
    if shape < 0.35:
        return make_schema(chance, depth + 1)
    inner = [make_value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return inner if shape < 0.5 else {chance.choice(NAMES): value for value in inner}


def make_schema(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    count = chance.randint(0, 4)
    return {chance.choice(KEYWORDS): make_value(chance, depth) for _ in range(count)}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_odd_schemas_are_refused_or_judge(seed: int) -> None:
    chance = random.Random(seed)
    judged = refused = 0
    for _ in range(SCHEMAS):
        text = json.dumps(make_schema(chance)).encode()
        try:
            schema = compile_schema(text)
        except RequestError:
            refused += 1
            continue
        for _ in range(2):
            fault = schema.find_fault(json.dumps(make_value(chance, 1)))
            assert fault is None or 0 < len(fault) <= 300
            judged += 1
    assert judged > 100
    assert refused > 100
