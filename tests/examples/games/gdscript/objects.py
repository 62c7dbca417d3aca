"""What a script of GDScript is made of: its syntax tree's parts, classes, objects and callables."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tree_sitter import Node

_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "'": "'", "\\": "\\"}
_TYPES: dict[str, type] = {
    "String": str, "Array": list, "PackedStringArray": list, "PackedByteArray": bytearray,
    "Dictionary": dict, "int": int, "float": float, "bool": bool,
}  # fmt: skip


class GodotError(Exception):
    """Where Godot would stop the script: the line and why."""


class Signal:
    """Connected functions are called in turn."""

    def __init__(self) -> None:
        self.connected: list[Callable[..., Any]] = []

    def connect(self, one: Callable[..., Any]) -> None:
        self.connected.append(one)

    def emit(self, *values: Any) -> None:
        for one in self.connected:
            one(*values)


class Function(NamedTuple):
    """A method or lambda: its parameters (name, type, default) and its body."""

    parameters: list[tuple[str, str | None, Node | None]]
    body: Node


class Kind:
    """A class of the script: its constants and variables (with types), functions and signals."""

    def __init__(self, name: str, body: Node, outer: "Kind | None") -> None:
        self.name, self.outer = name, outer
        self.values: dict[str, tuple[Node, str | None]] = {}
        self.functions: dict[str, Function] = {}
        self.signals: list[str] = []
        for node in body.named_children:
            if node.type in ("variable_statement", "const_statement"):
                self.values[get_name(node)] = (get_part(node, "value"), find_type(node))
            elif node.type == "function_definition":
                self.functions[get_name(node)] = read_function(node)
            elif node.type == "signal_statement":
                self.signals.append(get_name(node))


class Instance:
    """An object of the script."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.members: dict[str, Any] = {name: Signal() for name in kind.signals}

    def set_member(self, name: str, value: Any, node: Node) -> None:
        if name not in self.kind.values:
            raise GodotError(f"line {get_line(node)}: {name} is not declared")
        self.members[name] = convert(value, self.kind.values[name][1], node)


class Lambda(NamedTuple):
    """A callable value: local variables are captured as they were when it was made."""

    function: Function
    owner: Instance
    captured: dict[str, Any]


def get_part(node: Node, field: str) -> Node:
    part = node.child_by_field_name(field)
    assert part is not None, f"line {get_line(node)}: {node.type} has no {field}"
    return part


def get_text(node: Node) -> str:
    assert node.text is not None
    return node.text.decode()


def get_name(node: Node) -> str:
    return get_text(get_part(node, "name"))


def get_line(node: Node) -> int:
    return node.start_point[0] + 1


def find_type(node: Node) -> str | None:
    """The declared type's name; None where it is inferred or there is none."""
    kind = node.child_by_field_name("type")
    return get_text(kind) if kind is not None and kind.type == "type" else None


def read_function(node: Node) -> Function:
    parameters = []
    for one in get_part(node, "parameters").named_children:
        name = get_text(one.named_children[0])
        parameters.append((name, find_type(one), one.child_by_field_name("value")))
    return Function(parameters, get_part(node, "body"))


def read_string(node: Node) -> str:
    def unescape(found: re.Match[str]) -> str:
        if found[1] not in _ESCAPES:
            raise GodotError(f"line {get_line(node)}: invalid escape {found[0]}")
        return _ESCAPES[found[1]]

    return re.sub(r"\\(.)", unescape, get_text(node)[1:-1])


def find_statements(node: Node) -> Iterator[Node]:
    """All statements inside functions."""
    for child in node.named_children:
        if node.type == "body" and child.type != "comment":
            yield child
        yield from find_statements(child)


def is_of(value: Any, kind: str, node: Node) -> bool:
    if kind not in _TYPES:
        raise GodotError(f"line {get_line(node)}: type {kind} is not known here")
    return type(value) is _TYPES[kind]


def convert(value: Any, kind: str | None, node: Node) -> Any:
    """Check a value against a declared type, as Godot does where it is assigned."""
    wanted = _TYPES.get((kind or "").partition("[")[0])
    if wanted is None or type(value) is wanted:
        return value
    if {type(value), wanted} == {int, float}:
        return wanted(value)
    raise GodotError(f"line {get_line(node)}: {type(value).__name__} where {kind} is declared")
