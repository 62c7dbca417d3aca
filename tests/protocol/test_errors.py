"""One table of codes: complete, valid, and impossible to leave."""

import ast
import http
from pathlib import Path

import pytest

import hanse
from hanse.protocol.errors import (
    ERROR_TABLE,
    HanseError,
    InvariantError,
    RequestError,
    Shortfall,
    TransientError,
    VerificationError,
)

KINDS = {
    "RequestError": RequestError,
    "TransientError": TransientError,
    "VerificationError": VerificationError,
    "InvariantError": InvariantError,
}
OPENAI_TYPES = {
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "insufficient_quota",
    "rate_limit_error",
    "timeout_error",
    "server_error",
}
SOURCES = sorted(Path(hanse.__file__).parent.rglob("*.py"))


def find_raised() -> list[tuple[str, str, str]]:
    """(where, kind, code) of every error that the package builds with a literal code."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in KINDS
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.append((f"{path.name}:{node.lineno}", node.func.id, node.args[0].value))
    return found


@pytest.mark.parametrize("code", ERROR_TABLE)
def test_row_is_valid(code):
    row = ERROR_TABLE[code]
    assert 400 <= http.HTTPStatus(row.status) < 600
    assert row.openai_type in OPENAI_TYPES
    assert 0 < row.exit_code < 126  # above that shells report signals
    assert row.meaning.endswith(".")
    assert code == code.lower()


@pytest.mark.parametrize("kind", [HanseError, *KINDS.values()])
def test_an_unknown_code_cannot_be_raised(kind):
    with pytest.raises(KeyError, match="no_such_code"):
        kind("no_such_code", "a message")


def test_every_code_in_the_source_is_in_the_table():
    raised = find_raised()
    assert len(raised) > 20, "the search found almost nothing: is it broken?"
    assert [item for item in raised if item[2] not in ERROR_TABLE] == []


def test_kind_and_status_say_the_same():
    """RequestError is the caller's (4xx); a VerificationError or InvariantError never is.

    But for one: a chain that is not the deployment file's. It never reaches HTTP.
    """
    wrong = []
    for where, kind, code in find_raised():
        status = ERROR_TABLE[code].status
        fits = {
            "RequestError": 400 <= status < 500,
            "TransientError": status in (408, 409, 429, 502, 503),
            "VerificationError": status == 502 or code == "configuration_invalid",
            "InvariantError": status == 500,
        }[kind]
        if not fits:
            wrong.append(f"{where} {kind}({code}) is {status}")
    assert wrong == []


def test_openai_shape():
    error = RequestError(
        "insufficient_balance", "10 are needed", details={"needed": "10"}, param="model"
    )
    assert error.to_openai() == {
        "error": {
            "message": "10 are needed",
            "type": "insufficient_quota",
            "param": "model",
            "code": "insufficient_balance",
            "hanse": {"needed": "10"},
        }
    }
    assert "hanse" not in RequestError("not_found", "no such path").to_openai()["error"]


@pytest.mark.parametrize(("needed", "there", "missing"), [(10, 4, "6"), (4, 4, "0"), (4, 9, "0")])
def test_shortfall_says_what_is_missing(needed, there, missing):
    details = Shortfall(needed, there, {"reserved": 2**90}).to_details()
    assert details["missing"] == missing
    assert details["reserved"] == str(2**90)
    assert all(isinstance(value, str) for value in details.values())
