"""Running the command line in one process, with a home folder of its own or a market's."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hanse.cli.main import hanse
from hanse.contracts.deployment import Terms
from tests.cli.local_market import TERMS, Market, open_market

PASSWORD = "a password of the tests"


@dataclass(frozen=True)
class Ran:
    """What one command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        """Standard error as the one JSON document that it must be."""
        return json.loads(self.stderr)["error"]


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def terms() -> Terms:
    """Of the module's market; a module that needs others has a fixture of its own."""
    return TERMS


@pytest.fixture(scope="module")
def market(anvil: str, tmp_path_factory: pytest.TempPathFactory, terms: Terms) -> Iterator[Market]:
    """One market for all tests of a module."""
    with open_market(tmp_path_factory.mktemp("market"), anvil, terms) as opened:
        yield opened


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The home folder of `run`: the market's in a test that has one."""
    if "market" in request.fixturenames:
        found: Path = request.getfixturevalue("market").home
        return found
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Run:
    """Run `hanse ARGUMENTS...` in-process."""

    def invoke(*arguments: str, stdin: str | None = None, **environment: str) -> Ran:
        variables: dict[str, str | None] = {
            "HANSE_HOME": str(home),
            "HANSE_PASSWORD": PASSWORD,
            "HANSE_PASSWORD_FILE": None,
            "HANSE_DEBUG": None,
            **environment,
        }
        result = CliRunner().invoke(
            hanse, list(arguments), input=stdin, env=variables, prog_name="hanse"
        )
        return Ran(result.exit_code, result.stdout, result.stderr)

    return invoke
