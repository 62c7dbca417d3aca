"""Values of GDScript's expressions, over the syntax tree; `Script` adds the statements."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tree_sitter import Node

from tests.examples.games.gdscript.objects import (
    Function,
    GodotError,
    Instance,
    Kind,
    Lambda,
    convert,
    get_line,
    get_part,
    get_text,
    is_of,
    read_function,
    read_string,
)
from tests.examples.games.gdscript.world import METHODS

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
    "<=": operator.le, ">=": operator.ge, "+": operator.add, "-": operator.sub,
    "&": operator.and_, ">>": operator.rshift, "*": operator.mul,
    "in": lambda one, many: one in many,
    "%": lambda left, right: left % (tuple(right) if isinstance(right, list) else right),
}  # fmt: skip
_LITERALS = {"true": True, "false": False, "null": None}


class Scope(NamedTuple):
    """Whose code runs, and its local names."""

    owner: Instance
    names: dict[str, Any]


def operate(name: str, left: Any, right: Any, node: Node) -> Any:
    if name not in _OPERATORS:
        raise GodotError(f"line {get_line(node)}: operator {name} is not known here")
    try:
        return _OPERATORS[name](left, right)
    except TypeError as error:
        raise GodotError(f"line {get_line(node)}: {error}") from error


class Expressions:
    """Evaluates expressions. Every call is awaited: which functions wait is Godot's business."""

    def __init__(self, world: Mapping[str, Any]) -> None:
        self.kinds: dict[str, Kind] = {}
        self._world = world

    async def run(
        self, function: Function, owner: Instance, values: list[Any], names: dict[str, Any]
    ) -> Any:
        raise NotImplementedError

    async def make(self, kind: Kind, values: list[Any]) -> Instance:
        """What `new` does: initial values from top to bottom, then `_init`."""
        made = Instance(kind)
        for name, (node, declared) in kind.values.items():
            value = await self.evaluate(node, Scope(made, {}))
            made.members[name] = convert(value, declared, node)
        if "_init" in kind.functions:
            await self.run(kind.functions["_init"], made, values, {})
        return made

    async def evaluate(self, node: Node, scope: Scope) -> Any:
        if node.type in _LITERALS:
            return _LITERALS[node.type]
        how = getattr(self, f"_get_{node.type}", None)
        if how is None:
            raise GodotError(f"line {get_line(node)}: {node.type} is not known here")
        return await how(node, scope)

    async def _list(self, node: Node, scope: Scope) -> list[Any]:
        parts = [part for part in node.named_children if part.type != "comment"]
        return [await self.evaluate(part, scope) for part in parts]

    async def _get_string(self, node: Node, scope: Scope) -> str:
        return read_string(node)

    async def _get_integer(self, node: Node, scope: Scope) -> int:
        return int(get_text(node), 0)

    async def _get_float(self, node: Node, scope: Scope) -> float:
        return float(get_text(node))

    async def _get_array(self, node: Node, scope: Scope) -> list[Any]:
        return await self._list(node, scope)

    async def _get_dictionary(self, node: Node, scope: Scope) -> dict[Any, Any]:
        pairs = [pair for pair in node.named_children if pair.type == "pair"]
        return {
            await self.evaluate(get_part(pair, "left"), scope): await self.evaluate(
                get_part(pair, "value"), scope
            )
            for pair in pairs
        }

    async def _get_parenthesized_expression(self, node: Node, scope: Scope) -> Any:
        return await self.evaluate(node.named_children[0], scope)

    async def _get_lambda(self, node: Node, scope: Scope) -> Lambda:
        return Lambda(read_function(node), scope.owner, dict(scope.names))

    async def _get_unary_operator(self, node: Node, scope: Scope) -> Any:
        value = await self.evaluate(node.named_children[0], scope)
        sign = get_text(node.children[0])
        if sign == "not":
            return not value
        return operate(sign, 0, value, node)

    async def _get_binary_operator(self, node: Node, scope: Scope) -> Any:
        left = await self.evaluate(get_part(node, "left"), scope)
        name, right = get_text(get_part(node, "op")), get_part(node, "right")
        if name == "is":
            return is_of(left, get_text(right), right)
        if name in ("and", "or"):
            decided = bool(left) is (name == "or")
            return bool(left) if decided else bool(await self.evaluate(right, scope))
        return operate(name, left, await self.evaluate(right, scope), node)

    async def _get_conditional_expression(self, node: Node, scope: Scope) -> Any:
        holds = await self.evaluate(get_part(node, "condition"), scope)
        return await self.evaluate(get_part(node, "left" if holds else "right"), scope)

    async def _get_await_expression(self, node: Node, scope: Scope) -> Any:
        value = await self.evaluate(node.named_children[0], scope)
        return await value.wait() if hasattr(value, "wait") else value

    async def _get_identifier(self, node: Node, scope: Scope) -> Any:
        name, owner = get_text(node), scope.owner
        for found in (scope.names, owner.members, self.kinds, self._world):
            if name in found:
                return found[name]
        if owner.kind.outer is not None and name in owner.kind.outer.values:
            return await self.evaluate(owner.kind.outer.values[name][0], scope)  # a constant
        raise GodotError(f"line {get_line(node)}: {name} is not declared")

    async def _get_subscript(self, node: Node, scope: Scope) -> Any:
        value = await self.evaluate(node.named_children[0], scope)
        return self._index(value, (await self._list(get_part(node, "arguments"), scope))[0], node)

    def _index(self, value: Any, key: Any, node: Node) -> Any:
        try:
            return value[key]
        except (TypeError, LookupError) as error:
            raise GodotError(f"line {get_line(node)}: {error!r}") from error

    async def _get_attribute(self, node: Node, scope: Scope) -> Any:
        first, *parts = node.named_children
        value = await self.evaluate(first, scope)
        for part in parts:
            if part.type == "identifier":
                value = self._get_member(value, get_text(part), node)
                continue
            name = get_text(part.named_children[0])
            arguments = await self._list(get_part(part, "arguments"), scope)
            if part.type == "attribute_call":
                value = await self._call_method(value, name, arguments, node)
            else:
                value = self._index(self._get_member(value, name, node), arguments[0], node)
        return value

    def _get_member(self, owner: Any, name: str, node: Node) -> Any:
        if isinstance(owner, dict):
            return self._index(owner, name, node)
        if isinstance(owner, Instance):
            return self._index(owner.members, name, node)
        if owner is None or not hasattr(owner, name):
            raise GodotError(f"line {get_line(node)}: {owner!r} has no {name}")
        return getattr(owner, name)

    async def _call_method(self, owner: Any, name: str, values: list[Any], node: Node) -> Any:
        if isinstance(owner, Kind) and name == "new":
            return await self.make(owner, values)
        if isinstance(owner, Instance) and name in owner.kind.functions:
            return await self.run(owner.kind.functions[name], owner, values, {})
        if isinstance(owner, Lambda):
            if name == "is_valid":
                return True
            return await self.run(owner.function, owner.owner, values, dict(owner.captured))
        if type(owner) in METHODS:
            if name not in METHODS[type(owner)]:
                raise GodotError(f"line {get_line(node)}: {name} is not known here")
            return METHODS[type(owner)][name](owner, *values)
        return self._get_member(owner, name, node)(*values)

    async def _get_call(self, node: Node, scope: Scope) -> Any:
        name = get_text(node.named_children[0])
        values = await self._list(get_part(node, "arguments"), scope)
        functions = scope.owner.kind.functions
        if name in functions:
            return await self.run(functions[name], scope.owner, values, {})
        if name not in self._world:
            raise GodotError(f"line {get_line(node)}: {name} is not known here")
        return self._world[name](*values)
