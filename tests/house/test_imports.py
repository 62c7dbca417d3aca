"""The import contract of pyproject.toml holds, covers every folder, and catches what it forbids."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.repository import ROOT, SRC, get_modules

LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
NEVER_SEE_THE_CHAIN = {"engines", "training", "models", "verification"}
USERS_SIDE = {"sdk", "gateway", "web"}


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the repository's contracts over a package in `source`."""
    return subprocess.run(
        [LINT_IMPORTS, "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package that a test may spoil."""
    shutil.copytree(SRC, tmp_path / "hanse", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_contracts_hold():
    result = lint(ROOT / "src")
    assert result.returncode == 0, result.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("store/planted.py", "import hanse.settlement", "Arrows point down"),
        ("settlement/planted.py", "import hanse.market", "Arrows point down"),
        ("chain/planted.py", "import hanse.store", "Arrows point down"),
        ("gateway/planted.py", "import hanse.provider", "Arrows point down"),
        ("gateway/planted.py", "import hanse.auditor.reputation", "Arrows point down"),
        ("auditor/planted.py", "import click", "Only commands print"),
        (
            "auditor/reputation/planted.py",
            "def lazily():\n    import hanse.auditor.opened_model",
            "Reputations load no model",
        ),
        ("protocol/planted.py", "import asyncio", "The protocol does no I/O"),
        ("protocol/planted.py", "import time", "The protocol does no I/O"),
        ("engines/planted.py", "import hanse.chain", "Engines never see the chain"),
        ("provider/planted.py", "import hanse.sdk", "The two sides meet only on the wire"),
        (
            "gateway/planted.py",
            "def lazily():\n    import hanse.engines",
            "The user's side never loads a model",
        ),
        (
            "sdk/planted.py",
            "def lazily():\n    import torch",
            "The user's side never loads a model",
        ),
    ],
)
def test_a_planted_violation_is_caught(copy, module, line, contract):
    (copy / "hanse" / module).write_text(line + "\n")
    result = lint(copy)
    assert result.returncode == 1
    broken = [row for row in result.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(row.startswith(contract) for row in broken), result.stdout


def test_a_folder_that_nobody_declared_fails(copy):
    (copy / "hanse" / "plugins").mkdir()
    (copy / "hanse" / "plugins" / "__init__.py").write_text('"""Undeclared."""\n')
    result = lint(copy)
    assert result.returncode == 1
    assert "plugins" in result.stdout


def test_contracts_about_kinds_of_folders_name_every_folder_of_that_kind():
    """`forbidden` contracts list folders by name: a new one must not be forgotten."""
    present = {path.relative_to(SRC).parts[0] for path in get_modules()}
    sources = {c["name"]: {s.split(".")[1] for s in c.get("source_modules", [])} for c in CONTRACTS}
    assert sources["Engines never see the chain"] == NEVER_SEE_THE_CHAIN & present
    assert sources["The user's side never loads a model"] == USERS_SIDE & present
