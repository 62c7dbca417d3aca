"""Schemas that applications write, and schemas that attackers write."""

import json
import time
from typing import Any

import pytest

from hanse.gateway.structured.expansion import (
    EXPANDED_MAX,
    PATTERN_CHARS_MAX,
    PATTERNS_MAX,
    REFERENCES_MAX,
    measure_schema,
)
from hanse.gateway.structured.schema import (
    SCHEMA_BYTES_MAX,
    TEXT_BYTES_MAX,
    Schema,
    compile_schema,
)
from hanse.protocol.errors import RequestError

NPC = {
    "type": "object",
    "properties": {
        "action": {"enum": ["greet", "trade", "flee"]},
        "say": {"type": "string", "maxLength": 80},
        "when": {"type": "string", "format": "date-time"},
    },
    "required": ["action", "say"],
    "additionalProperties": False,
}
TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {}}}}
TREE["$defs"]["node"]["properties"] = {"a": {"$ref": "#/$defs/node"}, "b": {"$ref": "#/$defs/node"}}  # type: ignore[index]

WITHIN_S = 2.0
"""For attacks that would take minutes to ages if a bound were missing."""


def compile_document(document: Any) -> Schema:
    return compile_schema(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"action":"greet","say":"Hello"}', None),
        (' {"action":"greet","say":"Hello","when":"2026-01-01T00:00:00Z"}\n', None),
        ('{"action":"attack","say":"Hello"}', "/action"),
        ('{"action":"greet"}', '"say" is a required property'),
        ('{"action":"greet","say":"Hello","x":1}', "Additional properties"),
        ('{"action":"greet","say":"Hello","when":"soon"}', "/when"),
        ('{"action":"greet","say":"' + "x" * 81 + '"}', "/say"),
        ('```json\n{"action":"greet","say":"Hello"}\n```', "not JSON"),
        ('{"action":"greet","say":"Hel', "not JSON"),
        ("", "not JSON"),
        ('{"action":"greet","say":NaN}', "not JSON"),
        ("[" * 1_000 + "]" * 1_000, "nested"),
        ('"' + "x" * TEXT_BYTES_MAX + '"', "bytes"),
    ],
)
def test_an_answer_is_judged_and_its_fault_is_named(text: str, fault: str | None) -> None:
    found = compile_document(NPC).find_fault(text)
    if fault is None:
        assert found is None
    else:
        assert found is not None
        assert fault in found
        assert len(found) <= 300


def test_a_recursive_schema_judges_trees() -> None:
    schema = compile_document(TREE)
    assert schema.find_fault('{"a":{"b":{"a":{}}}}') is None
    assert schema.find_fault('{"a":{"b":{"a":1}}}') == "the answer does not fit the schema"


def test_a_root_id_only_names_and_a_default_is_kept() -> None:
    named = {"$id": "https://example.com/npc.json", "type": "object", "default": {"action": "wait"}}
    assert compile_document(named).default == b'{"action":"wait"}'
    assert compile_document(NPC).default is None


@pytest.mark.parametrize(
    "reference", ["http://localhost:1/x.json", "file:///etc/passwd", "x#/y", 7]
)
def test_no_reference_leaves_the_schema(reference: Any) -> None:
    with pytest.raises(RequestError, match=r"\$ref leads to"):
        compile_document({"properties": {"a": {"$ref": reference}}})


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"type": "strng"}, "JSON schema cannot be used"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"$schema": "http://example.com/own"}, "JSON schema cannot be used"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "draft-04"),
        ({"items": {"$schema": "http://json-schema.org/draft-04/schema#"}}, "draft-04"),
        ({"$ref": "#/$defs/a/1", "$defs": {"a": [{}]}}, "not there"),
        ({"properties": {"a": {"$id": "http://x"}}}, r"\$id is not taken"),
        ({"$dynamicRef": "#x"}, r"\$dynamicRef is not taken"),
        ({"pattern": "(?=a)b"}, "regex"),
        ({"pattern": r"(a)\1"}, "regex"),
        ({"pattern": "a" * (PATTERN_CHARS_MAX + 1)}, "a pattern has"),
        ({"pattern": "((a{99}){99}){99}"}, "regex"),
        ({"allOf": [{"pattern": str(i)} for i in range(PATTERNS_MAX + 1)]}, "33 patterns"),
        ({"patternProperties": {str(i): {} for i in range(PATTERNS_MAX + 1)}}, "33 patterns"),
        ({"description": "x" * SCHEMA_BYTES_MAX}, "bytes"),
        ([1], "not an object"),
    ],
)
def test_what_cannot_be_bounded_is_refused_by_name(document: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        compile_document(document)
    assert caught.value.param == "response_format.json_schema.schema"


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(RequestError, match="not JSON"):
        compile_schema(b'{"type":')


def test_references_that_double_are_counted_before_they_are_followed() -> None:
    defs: dict[str, Any] = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)
    }
    defs["d40"] = {"type": "object"}
    with pytest.raises(RequestError, match=f"over {EXPANDED_MAX} parts"):
        measure_schema({"$ref": "#/$defs/d0", "$defs": defs})


def double(prefix: str, wrap: Any) -> dict[str, Any]:
    """Twenty definitions that each refer twice to the next."""
    ways = [[{"allOf": [{"$ref": f"{prefix}a{i + 1}"}]}] * 2 for i in range(20)]
    return {f"a{i}": wrap({"anyOf": two}) for i, two in enumerate(ways)} | {"a20": {}}


@pytest.mark.parametrize("prefix", ["#/%24defs/", "#/%24%64efs/", "#%2F$defs/", "#/$defs%2f"])
def test_escaped_references_are_counted_too(prefix: str) -> None:
    one = {"$ref": "#/%24defs/a0", "$defs": {"a0": {"type": "string"}}}
    assert compile_document(one).find_fault("1") is not None
    document = {"$ref": "#/%24defs/a0", "$defs": double(prefix, dict)}
    with pytest.raises(RequestError, match=r"parts|\$ref leads to"):
        measure_schema(document)


def test_an_older_draft_hides_no_subschema_in_its_dependencies() -> None:
    defs = double("#/definitions/", lambda schema: {"dependencies": {"default": schema}})
    draft = "http://json-schema.org/draft-07/schema#"
    with pytest.raises(RequestError, match=f"over {EXPANDED_MAX} parts"):
        measure_schema({"$schema": draft, "$ref": "#/definitions/a0", "definitions": defs})
    assert compile_document({"$schema": draft, "type": "integer"}).find_fault("1") is None


def test_a_long_chain_of_references_ends() -> None:
    defs = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(500)}
    with pytest.raises(RequestError, match=f"over {REFERENCES_MAX} references"):
        measure_schema({"$ref": "#/$defs/d0", "$defs": defs})


def test_properties_may_be_called_like_keywords() -> None:
    names = ("default", "enum", "const", "pattern", "$ref", "$defs", "$id")
    document = {"properties": {name: {"type": "integer"} for name in names}}
    assert measure_schema(document).parts == 1 + len(names)
    assert "/default" in (compile_document(document).find_fault('{"default":"x"}') or "")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"pattern": "^(a+)+$"}, json.dumps("a" * 200_000 + "b")),
        ({"items": {"anyOf": [{"type": "string"}] * 60}}, "[" + "1," * 100_000 + "1]"),
        ({"items": {"enum": [[i] for i in range(5_000)]}}, "[" + "[4999]," * 30_000 + "0]"),
        ({"uniqueItems": True}, json.dumps([{"a": i} for i in range(15_000)])),
        (
            {"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": [x]} for x in "xyz"]},
            '{"a":' * 100 + "1" + "}" * 100,
        ),
        (
            {"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 3, "unevaluatedProperties": False},
            '{"a":' * 100 + '{"b":1}' + "}" * 100,
        ),
    ],
)
def test_no_answer_takes_long_to_judge(document: Any, text: str) -> None:
    schema = compile_document(document)
    began_s = time.process_time()
    schema.find_fault(text)
    assert time.process_time() - began_s < WITHIN_S
