"""The pages: links lead somewhere, generated ones are up to date, examples run, words are ours."""

import io
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tests.house.repository import (
    ROOT,
    SRC,
    get_blocks,
    get_files,
    get_modules,
    get_table,
    get_texts,
)
from tools.generate import PAGES

MARKDOWN = get_texts(".md")
RUN = re.compile(r"<!-- run -->\n+```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(language, code, id=f"{name}-{number}")
    for name, text in MARKDOWN
    for number, (language, code) in enumerate(RUN.findall(text), 1)
]


def strip_code(text: str) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def get_anchors(text: str) -> set[str]:
    """The anchors that a forge gives to a page's headings."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in headings}


@pytest.mark.parametrize(("name", "text"), MARKDOWN, ids=[name for name, _ in MARKDOWN])
def test_relative_links_lead_somewhere(name, text):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", strip_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists() or (anchor and anchor not in get_anchors(file.read_text())):
            broken.append(target)
    assert broken == []


def test_links_are_found():
    assert sum(len(re.findall(r"\]\(([^)\s]+)\)", strip_code(text))) for _, text in MARKDOWN) > 20


def test_modules_that_the_architecture_names_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`(\w+/[\w/]+(?:\.\w+|/))`", text)
    assert len(named) > 40
    places = (ROOT / "src" / "hanse", ROOT)
    assert [name for name in named if not any((at / name).exists() for at in places)] == []


def test_every_folder_has_its_line_on_the_maps():
    """A folder that neither the front page nor the architecture names is found by nobody."""
    inside = {path.relative_to(SRC).parts[0] for path in get_modules() if path.parent != SRC}
    table = get_table((ROOT / "docs" / "architecture.md").read_text(), "## Folders")
    assert {row[0].strip("`") for row in table} == inside
    (tree,) = get_blocks((ROOT / "README.md").read_text().split("## What is where")[1], "")
    assert set(re.findall(r"^  (\w+)/", tree, re.MULTILINE)) == inside
    beside = {path.relative_to(ROOT).parts[0] for path in get_files() if path.suffix == ".py"}
    assert set(re.findall(r"^(\w+)/", tree, re.MULTILINE)) >= beside - {"src"}


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_up_to_date(name):
    assert (ROOT / name).read_text() == PAGES[name](), "run `make generate`"


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_example_runs(language, code, tmp_path):
    """Examples marked `<!-- run -->`, as a reader would run them, in an empty folder."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["HANSE_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-ec", code]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_there_are_examples_that_run():
    assert EXAMPLES


def get_refused_words() -> dict[str, str]:
    """Word -> what to say instead; the `code` words of the glossary's last column."""
    rows = get_table((ROOT / "docs" / "glossary.md").read_text(), "# Glossary")
    return {word: row[0] for row in rows for word in re.findall(r"`(\w+)`", row[-1])}


def get_words(source: str) -> set[str]:
    """The words inside a module's names: `pay_ticketNow` holds pay, ticket, now."""
    names = {
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.NAME
    }
    pieces = (piece for name in names for piece in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name))
    return {piece.lower() for piece in pieces}


def test_the_code_uses_the_glossarys_words():
    refused = get_refused_words()
    assert len(refused) > 8
    found = [
        f"{path.relative_to(ROOT)}: {word} (say: {refused[word]})"
        for path in get_modules()
        for word in sorted(get_words(path.read_text()) & set(refused))
    ]
    assert found == []


def test_words_inside_names_are_found():
    assert get_words("def pay_ticketNow(aCheque): pass") >= {"ticket", "cheque"}


def test_the_map_names_every_page():
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    linked = set(re.findall(r"\]\(([\w./-]+\.md)\)", (ROOT / "docs" / "README.md").read_text()))
    alone = {page for page in pages if not page.startswith(("decisions/0", "README"))}
    assert sorted(alone - linked) == []


def test_decisions_are_numbered_and_listed():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    numbers = [int(name[:4]) for name in records]
    assert len(set(numbers)) == len(numbers), f"two records share a number: {records}"
    assert [name for name in records if f"({name})" not in index] == []
    for name in records:
        title = (folder / name).read_text().split("\n", 1)[0]
        assert re.match(rf"# 0*{int(name[:4])}[.:] ", title), f"{name} opens with {title!r}"
