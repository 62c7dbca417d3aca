"""Running the command line in one process, with a home folder of its own."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hanse.cli.main import hanse

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


@pytest.fixture
def home(tmp_path: Path) -> Path:
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
