"""Every check is needed: taken out of a copy of the verifier, a spoilt attestation gets by.

A check is an `if` that ends in `raise`, a call whose result nobody takes (`verify_roles(...)`), or
a row of the table of refusals. Each is removed in turn from a copy of the code under another name,
and the cases are run until one is not refused with its own code any more. The few checks that no
case can tell are listed with the reason.
"""

import ast
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import hanse.verification.attestation as verifier
from hanse.protocol.errors import HanseError
from tests.verification.attestation.cases import Case, list_cases
from tests.verification.attestation.made_attestations import Made, make_bundle, make_gpu_policy, run

FOLDER = Path(verifier.__file__).parent
ORIGINAL, COPY = "hanse.verification.attestation", "removed_checks"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))


@dataclass(frozen=True)
class Check:
    """A place in a module: the number of its statement, in the order of `ast.walk`."""

    module: str
    number: int
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.module}: {self.text.splitlines()[0][:90]}"


def is_check(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.body[-1], ast.Raise) and not node.orelse
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    called = node.value.func
    name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
    return name.lstrip("_").startswith(("verify", "check", "expect", "redeem"))


def list_checks() -> list[Check]:
    found = []
    for module in MODULES:
        tree = ast.parse((FOLDER / f"{module}.py").read_text())
        for number, node in enumerate(ast.walk(tree)):
            if is_check(node):
                found.append(Check(module, number, node.lineno, ast.unparse(node)))
    return found


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the verifier under another name, with one statement taken out."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        if name != COPY and not name.startswith(COPY + "."):
            return None
        is_package = name == COPY
        return importlib.machinery.ModuleSpec(name, self, is_package=is_package)

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        stem = module.__name__.removeprefix(COPY).lstrip(".") or "__init__"
        tree = read_copy(stem)
        if stem == self.check.module:
            tree = remove(stem, self.check.number)
        exec(compile(tree, f"{COPY}/{stem}.py", "exec"), module.__dict__)


@cache
def read_copy(stem: str) -> ast.Module:
    return ast.parse((FOLDER / f"{stem}.py").read_text().replace(ORIGINAL, COPY))


def remove(stem: str, number: int) -> ast.Module:
    tree = ast.parse((FOLDER / f"{stem}.py").read_text().replace(ORIGINAL, COPY))
    node = list(ast.walk(tree))[number]
    for parent in ast.walk(tree):
        for body in (getattr(parent, "body", None), getattr(parent, "orelse", None)):
            if isinstance(body, list) and node in body:
                body[body.index(node)] = ast.copy_location(ast.Pass(), node)
    return tree


def load_without(check: Check) -> types.ModuleType:
    for name in [name for name in sys.modules if name == COPY or name.startswith(COPY + ".")]:
        del sys.modules[name]
    finder = Finder(check)
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(COPY)
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == COPY]:
            del sys.modules[name]


@cache
def build_cases() -> list[tuple[Case, Made, tuple[bytes, bytes]]]:
    return [(case, made, made.build()) for case in list_cases() for made in [case.make()]]


def get_outcome(module: types.ModuleType, made: Made, built: tuple[bytes, bytes]) -> str:
    try:
        run(module, made, built)
    except HanseError as error:
        return error.code
    except Exception as error:
        return type(error).__name__
    return "verified"


def iterate_likely_first(check: Check) -> Iterator[tuple[Case, Made, tuple[bytes, bytes]]]:
    """Cases whose code stands near the check: nearly always the first of them tells."""
    near = (FOLDER / f"{check.module}.py").read_text()
    cases = build_cases()
    yield from (row for row in cases if row[0].code.removeprefix("attestation_gpu_") in check.text)
    yield from (row for row in cases if row[0].code in near)
    yield from cases


NOT_TOLD = {
    "evidence: if is_nested_too_deep(body):": "guards a recursion limit that others have raised",
    "gpus: if is_nested_too_deep(data):": "the same",
    "gpus: if is_nested_too_deep(raw):": "the same",
    "nonces: if len(self._issued) >= NONCES_MAX:": "tried in test_nonces",
    "witness: if seal is not SEAL:": "tried in test_witness",
}
"""Checks that no case can tell from their absence, with the reason."""


def test_the_list_of_exceptions_is_not_out_of_date():
    assert set(NOT_TOLD) <= {str(check) for check in list_checks()}


@pytest.mark.parametrize(
    "check", [check for check in list_checks() if str(check) not in NOT_TOLD], ids=str
)
def test_without_a_check_a_spoilt_attestation_gets_by(check):
    module = load_without(check)
    told = next(
        (
            case.name
            for case, made, built in iterate_likely_first(check)
            if get_outcome(module, made, built) != case.code
        ),
        None,
    )
    assert told is not None, f"line {check.line}: no case needs this check"


def test_the_copy_verifies_what_the_original_does():
    """Else every mutant would be told by accident."""
    good = Made(gpu=make_bundle(), policy=make_gpu_policy())
    module = load_without(Check("none", -1, 0, ""))
    assert module.verify_attestation is not verifier.verify_attestation
    assert get_outcome(module, good, good.build()) == "verified"
    assert all(get_outcome(module, made, built) == case.code for case, made, built in build_cases())
