"""What belongs to the repository, and the pieces of its pages that tests read."""

import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "hanse"


@cache
def get_files() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return tuple(sorted(path for path in paths if path.is_file()))


def get_texts(*suffixes: str) -> list[tuple[str, str]]:
    """(path from the root, text) of every text file, or of those with these suffixes."""
    found = []
    for path in get_files():
        if suffixes and path.suffix not in suffixes:
            continue
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text()))
        except UnicodeDecodeError:
            continue
    return found


def get_modules() -> list[Path]:
    """Every Python module of the package."""
    return [path for path in get_files() if path.suffix == ".py" and SRC in path.parents]


def get_blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of one language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def get_table(text: str, heading: str) -> list[list[str]]:
    """The rows of the first Markdown table below a heading."""
    section = text.split(heading, 1)[1]
    rows = re.findall(r"^\|(.+)\|$", section.split("\n\n#", 1)[0], re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]
