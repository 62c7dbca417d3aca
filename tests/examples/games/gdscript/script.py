"""Runs the part of GDScript 4 that the Godot client is written in, where there is no Godot.

    script = Script(source, make_world(clock))
    npc = await script.make_main()
    end = await script.call(npc, "speak", "Who are you?")

No package registry brings a Godot 4 runtime here, and a client that is parsed only may do anything.
So the tests walk the syntax tree (tree-sitter's) of the client's own code. It is our reading of the
language ("GDScript reference" at docs.godotengine.org), not Godot: types that Godot infers before
it runs are not checked. What is not written here ends with its line instead of being guessed.
"""

from collections.abc import Mapping
from typing import Any

import tree_sitter_gdscript
from tree_sitter import Language, Node, Parser

from tests.examples.games.gdscript.expressions import Expressions, Scope, operate
from tests.examples.games.gdscript.objects import (
    Function,
    GodotError,
    Instance,
    Kind,
    convert,
    find_statements,
    find_type,
    get_line,
    get_name,
    get_part,
    get_text,
)

_NOTHING = object()  # what a statement gives that is no `return`


class Script(Expressions):
    """A file of GDScript.

    Attributes:
        lines: first lines of all statements inside functions.
        run_lines: those of them that have run.
    """

    def __init__(self, source: str, world: Mapping[str, Any]) -> None:
        super().__init__(world)
        root = Parser(Language(tree_sitter_gdscript.language())).parse(source.encode()).root_node
        if root.has_error:
            raise GodotError("this is not GDScript")
        named = next(node for node in root.named_children if node.type == "class_name_statement")
        self._main = Kind(get_name(named), root, None)
        self.kinds[self._main.name] = self._main
        for node in root.named_children:
            if node.type == "class_definition":
                name = get_name(node)
                self.kinds[name] = Kind(name, get_part(node, "body"), self._main)
        self.lines = {get_line(node) for node in find_statements(root)}
        self.run_lines: set[int] = set()

    async def make_main(self) -> Instance:
        return await self.make(self._main, [])

    async def call(self, owner: Instance, name: str, *values: Any) -> Any:
        return await self.run(owner.kind.functions[name], owner, list(values), {})

    async def run(
        self, function: Function, owner: Instance, values: list[Any], names: dict[str, Any]
    ) -> Any:
        scope, given = Scope(owner, names), list(values)
        for name, kind, default in function.parameters:
            if given:
                value = given.pop(0)
            elif default is not None:
                value = await self.evaluate(default, scope)
            else:
                raise GodotError(f"line {get_line(function.body)}: no argument {name}")
            names[name] = convert(value, kind, function.body)
        if given:
            raise GodotError(f"line {get_line(function.body)}: too many arguments")
        returned = await self._run_body(function.body, scope)
        return None if returned is _NOTHING else returned

    async def _run_body(self, body: Node, scope: Scope) -> Any:
        for node in body.named_children:
            if node.type == "comment":
                continue
            self.run_lines.add(get_line(node))
            how = getattr(self, f"_run_{node.type}", None)
            if how is None:
                raise GodotError(f"line {get_line(node)}: {node.type} is not known here")
            returned = await how(node, scope)
            if returned is not _NOTHING:
                return returned
        return _NOTHING

    async def _run_pass_statement(self, node: Node, scope: Scope) -> Any:
        return _NOTHING

    async def _run_return_statement(self, node: Node, scope: Scope) -> Any:
        found = node.named_children
        return await self.evaluate(found[0], scope) if found else None

    async def _run_variable_statement(self, node: Node, scope: Scope) -> Any:
        value = await self.evaluate(get_part(node, "value"), scope)
        scope.names[get_name(node)] = convert(value, find_type(node), node)
        return _NOTHING

    async def _run_expression_statement(self, node: Node, scope: Scope) -> Any:
        inner = node.named_children[0]
        if inner.type not in ("assignment", "augmented_assignment"):
            await self.evaluate(inner, scope)
            return _NOTHING
        left = get_part(inner, "left")
        value = await self.evaluate(get_part(inner, "right"), scope)
        if inner.type == "augmented_assignment":
            name = get_text(get_part(inner, "op"))[:-1]
            value = operate(name, await self.evaluate(left, scope), value, inner)
        await self._assign(left, value, scope)
        return _NOTHING

    async def _assign(self, left: Node, value: Any, scope: Scope) -> None:
        parts = left.named_children
        if left.type == "identifier" and get_text(left) in scope.names:
            scope.names[get_text(left)] = value
        elif left.type == "identifier":
            scope.owner.set_member(get_text(left), value, left)
        elif left.type == "subscript":
            key = await self.evaluate(get_part(left, "arguments").named_children[0], scope)
            (await self.evaluate(parts[0], scope))[key] = value
        elif left.type == "attribute" and [part.type for part in parts] == ["identifier"] * 2:
            owner = await self.evaluate(parts[0], scope)
            assert isinstance(owner, Instance)
            owner.set_member(get_text(parts[1]), value, left)
        else:
            raise GodotError(f"line {get_line(left)}: this assignment is not known here")

    async def _run_if_statement(self, node: Node, scope: Scope) -> Any:
        for branch in [node, *node.children_by_field_name("alternative")]:
            condition = branch.child_by_field_name("condition")
            if condition is None or await self.evaluate(condition, scope):
                return await self._run_body(get_part(branch, "body"), scope)
        return _NOTHING

    async def _run_while_statement(self, node: Node, scope: Scope) -> Any:
        while await self.evaluate(get_part(node, "condition"), scope):
            returned = await self._run_body(get_part(node, "body"), scope)
            if returned is not _NOTHING:
                return returned
        return _NOTHING

    async def _run_for_statement(self, node: Node, scope: Scope) -> Any:
        for one in list(await self.evaluate(get_part(node, "right"), scope)):
            scope.names[get_text(get_part(node, "left"))] = one
            returned = await self._run_body(get_part(node, "body"), scope)
            if returned is not _NOTHING:
                return returned
        return _NOTHING

    async def _run_match_statement(self, node: Node, scope: Scope) -> Any:
        value = await self.evaluate(get_part(node, "value"), scope)
        for section in get_part(node, "body").named_children:
            *patterns, body = section.named_children
            for pattern in patterns:
                if get_text(pattern) == "_" or value == await self.evaluate(pattern, scope):
                    return await self._run_body(body, scope)
        return _NOTHING
