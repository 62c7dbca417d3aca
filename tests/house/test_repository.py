"""Rules about files: nothing of this machine in them, none too long, no folder too full."""

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement

from tests.house.repository import ROOT, SRC, get_files, get_modules, get_texts

LINES_MAX = 300
LONGER = {
    "chain/index.py": (350, "one reader of a node, with all its doubts about what it is told"),
    "chain/localnode/node.py": (400, "one process's whole life: found, started, kept, stopped"),
    "chain/outbox/outbox.py": (420, "the outbox's state machine, read as one"),
    "chain/rpc.py": (420, "one method for each JSON-RPC call, in one shape"),
    "cli/first_round.py": (400, "one story told in order: deposit to last unit"),
    "cli/local_network.py": (450, "one network put together in order"),
    "engines/echo_engine.py": (350, "a fake of all three operations, both ways"),
    "engines/llama_engine.py": (400, "one engine is one file"),
    "engines/parameters.py": (450, "a table of OpenAI's fields"),
    "gateway/resilience/answer.py": (360, "one answer's whole life through its parts"),
    "market/board.py": (370, "a row's whole life on the board"),
    "market/matching.py": (400, "every limit beside its sentence"),
    "provider/lifecycle.py": (360, "one process put together in order, and its end"),
    "sdk/client.py": (540, "the one public face of the user's side"),
    "sdk/purchase/buyer.py": (470, "one purchase from choice to receipt"),
    "sdk/purchase/resume.py": (450, "the resume handshake's cases beside one another"),
    "settlement/books/receipt_book.py": (
        480,
        "every write of the provider's book, in one place",
    ),
    "settlement/books/voucher_book.py": (350, "every write of the user's book"),
}
"""Modules above LINES_MAX: how long each may be, and why it stays in one piece."""

MODULES_MAX = 12
FULLER = {
    "chain": (13, "one typed face a contract, beside what speaks to the node"),
    "cli": (15, "what all commands share; a folder for the local network is due"),
    "cli/commands": (17, "one file a command or group of commands"),
    "protocol": (13, "the rules that everything imports, one concept each"),
    "provider": (18, "small modules round one application"),
}
"""Folders with more modules than MODULES_MAX: how many, and why. `__init__` does not count."""

# written in pieces, so that this file passes its own check
REGISTRIES = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"))]
REGISTRIES += [".".join(parts) for parts in (("npmjs", "org"), ("npmjs", "com"), ("crates", "io"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def get_machine_words() -> list[str]:
    """This machine's paths, and the hosts of the registries that it is set up with."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = listed + " ".join(
        value for name, value in os.environ.items() if re.search(r"index_url|registry", name, re.I)
    )
    hosts = {urlsplit(url).hostname for url in re.findall(r"https?://[^\s'\"]+", settings)}
    hosts -= {None, "localhost", "127.0.0.1"}
    return [f"{ROOT}/", f"{Path.home()}/", *REGISTRIES, *sorted(hosts)]


def test_no_file_names_this_machine_or_a_registry():
    words = get_machine_words()
    found = [
        f"{name}: {word}" for name, text in get_texts() for word in words if word and word in text
    ]
    assert found == []


def count_lines() -> dict[str, int]:
    return {p.relative_to(SRC).as_posix(): p.read_text().count("\n") for p in get_modules()}


def count_modules() -> dict[str, int]:
    named = [path for path in get_modules() if not path.stem.startswith("__")]
    return Counter(path.parent.relative_to(SRC).as_posix() for path in named)


@pytest.mark.parametrize(
    ("sizes", "most", "exceptions"),
    [
        pytest.param(count_lines(), LINES_MAX, LONGER, id="lines of a module"),
        pytest.param(count_modules(), MODULES_MAX, FULLER, id="modules of a folder"),
    ],
)
def test_modules_are_short_and_folders_small(sizes, most, exceptions):
    too_large = {
        name: size for name, size in sizes.items() if size > exceptions.get(name, (most, ""))[0]
    }
    assert too_large == {}, "divide it by concept, or note here why it stays in one piece"
    no_longer_needed = [name for name in exceptions if sizes.get(name, 0) <= most]
    assert no_longer_needed == []


@pytest.mark.parametrize("word", ["utils", "common", "helpers", "manager", "misc"])
def test_names_that_say_nothing(word):
    assert [str(path) for path in get_files() if word in path.stem.split("_")] == []


def test_modules_open_with_a_docstring():
    bare = [p for p in get_modules() if not p.read_text().lstrip().startswith(('"""', 'r"""'))]
    assert bare == []


def test_no_key_and_no_state_is_committed():
    names = [path.relative_to(ROOT).as_posix() for path in get_files()]
    pattern = re.compile(r"(^|/)(\.env|.*\.(pem|key|sqlite3?|db|gguf|log))$")
    assert [name for name in names if pattern.search(name)] == []


def get_requirements() -> list[Requirement]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    groups.append(PROJECT["build-system"]["requires"])
    found = [Requirement(text) for group in groups for text in group]
    return [requirement for requirement in found if requirement.name != "hanse"]


@pytest.mark.parametrize("requirement", get_requirements(), ids=str)
def test_every_dependency_is_pinned_to_a_version_that_is_allowed(requirement):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    version = pins[re.sub(r"[-_.]+", "-", requirement.name).lower()]
    assert requirement.specifier.contains(version)


def test_every_dependency_says_why_it_is_there():
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("\ndependencies = [", 1)[1].split("\n]", 1)[0]
    assert [line for line in block.strip().splitlines() if "#" not in line] == []


def test_make_lists_every_command():
    """A target without help is internal, and then no page may name it."""
    shown = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE))
    assert {"up", "test", "check", "format", "bench-gas", "bench-path", "clean"} <= listed
    pages = " ".join(text for _, text in get_texts(".md"))
    named = set(re.findall(r"`(?:ONCE=1 )?make (?:-s )?([a-z-]+)", pages))
    assert named - listed == set()


def test_ci_runs_what_make_check_runs():
    text = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text
    assert re.search(r"^exec make check </dev/null$", text, re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
