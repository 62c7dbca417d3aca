"""The diagram of docs/architecture.md is the import graph, neither more nor less."""

import re
import tomllib

import grimp

from tests.house.repository import ROOT, get_blocks

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def get_arrows() -> set[tuple[str, str]]:
    """The diagram's arrows: `a --> b & c`."""
    (diagram,) = get_blocks(PAGE, "mermaid")
    arrows = set()
    for line in diagram.splitlines():
        found = re.fullmatch(r"\s*([\w &]+) --> ([\w &]+)", line)
        if found:
            ends = [[name.strip() for name in side.split("&")] for side in found.groups()]
            arrows |= {(start, end) for start in ends[0] for end in ends[1]}
    return arrows


def get_imports() -> set[tuple[str, str]]:
    """Which folder of the package imports which, the arrows to `protocol` left out."""
    graph = grimp.build_graph("hanse", cache_dir=None)
    pairs = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            start, end = ((name.split(".") + [""])[1] for name in (importer, imported))
            if start and end and start != end:
                pairs.add((start, end))
    return {(start, end) for start, end in pairs if end != "protocol"}


def test_the_diagram_is_read():
    """Else the comparisons below would compare nothing."""
    assert len(get_arrows()) > 10
    assert ("gateway", "sdk") in get_arrows()


def test_every_import_between_folders_is_an_arrow():
    assert sorted(get_imports() - get_arrows()) == [], "draw these in docs/architecture.md"


def test_every_arrow_is_an_import():
    assert sorted(get_arrows() - get_imports()) == [], "take these out of docs/architecture.md"


def test_every_arrow_points_down_the_layers():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    depth = {name: i for i, row in enumerate(layers) for name in re.findall(r"\w+", row)}
    assert [arrow for arrow in get_arrows() if depth[arrow[0]] >= depth[arrow[1]]] == []


def test_the_layers_on_the_page_are_those_that_are_enforced():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    enforced = [re.sub(r"[()]", "", row) for row in contracts["contracts"][0]["layers"]]
    assert "\n".join(enforced) + "\n" in get_blocks(PAGE, "text")
