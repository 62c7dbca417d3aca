"""What a command shows: tables for people, or one JSON document for programs.

Results go to standard output, everything else (progress, notes, errors) to standard error, so that
a pipe gets the result alone. With `--json` there is exactly one document on standard output and no
notes at all; what happens later to a command that stays is one JSON line each on standard error.
Colour is left to rich, which respects NO_COLOR and pipes.

Answers, names and messages are strangers' words. `clean` takes out of them what a terminal would
obey: escape sequences that write the clipboard, retitle or repaint the screen, or that turn text
around so that it reads as something else. Pipes get it cleaned too, since a log is read at a
terminal one day; `--json` keeps every character, escaped.

    output.show({"address": address}, lambda: output.table(("address",), [(address,)]))
    output.note("waiting for 2 confirmations ...")
"""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from hanse.protocol.errors import InvariantError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_COLUMNS = 240
"""Width of tables that no terminal bounds: two addresses, a hash and some figures in one line."""

UNBOUNDED_COLUMNS = 10_000
"""Wider than any table, to ask how wide one would like to be."""


_KEPT = frozenset("\n\t")
_OBEYED = ("Cc", "Cs")  # control characters (C0, DEL, C1), halves of surrogate pairs
_TURNING = frozenset(
    chr(code) for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
)
"""Characters that turn the direction of what follows."""


def clean(text: str) -> str:
    """The text with U+FFFD in place of every character that a terminal obeys."""
    if text.isprintable() and text.isascii():
        return text
    return "".join("\ufffd" if _is_obeyed(character) else character for character in text)


def _is_obeyed(character: str) -> bool:
    if character in _KEPT:
        return False
    return character in _TURNING or unicodedata.category(character) in _OBEYED


def encode_document(document: dict[str, Any], indent: int | None = None) -> str:
    """JSON in which characters that a terminal obeys are escaped, and other scripts are not."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    if text.isprintable() and text.isascii():
        return text
    return "".join(f"\\u{ord(c):04x}" if _is_obeyed(c) else c for c in text)


class Output:
    """Where one command writes.

    Attributes:
        as_json: whether the result is a JSON document.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._shown = False
        self._has_spoken = False

    @property
    def shown(self) -> bool:
        """Whether the JSON document was written."""
        return self._shown

    def show(self, document: dict[str, Any], render: Callable[[], "RenderableType | None"]) -> None:
        """Write the result.

        Args:
            document: the JSON document; amounts in it are decimal strings of base units.
            render: makes what people read; called only without `--json`. None prints nothing.

        Raises:
            InvariantError: a second document would go to standard output.
        """
        self._has_spoken = True
        if not self.as_json:
            shown = render()
            if isinstance(shown, str):
                self.write(shown + "\n")  # as it is: rich would read brackets as markup
            elif shown is not None:
                self.console().print(shown, highlight=False)
            return
        if self._shown:
            raise InvariantError("internal_error", "a command wrote two JSON documents")
        self._shown = True
        indent = 2 if sys.stdout.isatty() else None
        sys.stdout.write(encode_document(document, indent) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say on standard error what is happening; silent with `--json`."""
        if not self.as_json:
            self.console(stderr=True).print(clean(text), style="dim", markup=False, highlight=False)

    def event(self, document: dict[str, Any], text: str) -> None:
        """Say what happened to a command that stays: as a note, or with `--json` as a JSON line."""
        if self.as_json:
            sys.stderr.write(encode_document(document) + "\n")
            sys.stderr.flush()
        else:
            self.note(text)

    def note_silence(self, text: str) -> None:
        """A note for a person who waits at a terminal and has read nothing of this command yet."""
        if not self._has_spoken and sys.stderr.isatty():
            self.note(text)

    def write(self, text: str) -> None:
        """Write a piece of streamed text at once; silent with `--json`."""
        self._has_spoken = True
        if not self.as_json:
            sys.stdout.write(clean(text))
            sys.stdout.flush()

    def wait(self, text: str) -> AbstractContextManager[object]:
        """A spinner on standard error while something takes its time; a plain note in a pipe."""
        if self.as_json:
            return nullcontext()
        if not sys.stderr.isatty():
            self.note(text)
            return nullcontext()
        return self.console(stderr=True).status(text)

    def console(self, *, stderr: bool = False) -> "Console":
        """A rich console on the stream as it is now."""
        self._has_spoken = True
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        width = None if stream.isatty() else PIPE_COLUMNS
        return Console(file=stream, width=width)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        title: str | None = None,
        footer: Sequence[str] | None = None,
    ) -> "RenderableType":
        """A table; a column whose name ends in ">" is numbers, aligned to the right.

        Where the terminal is too narrow for whole addresses and hashes, every row becomes a block
        of names and values instead: what is broken over lines cannot be copied.
        """
        from rich.table import Table
        from rich.text import Text

        texts = [[clean(str(cell)) for cell in row] for row in rows]
        table = Table(title=title, title_justify="left", show_footer=footer is not None)
        for index, name in enumerate(columns):
            table.add_column(
                name.removesuffix(">"),
                justify="right" if name.endswith(">") else "left",
                overflow="fold",
                footer=Text(footer[index]) if footer else "",
            )
        for row in texts:
            table.add_row(*(Text(cell) for cell in row))
        console = self.console()
        unbounded = console.options.update(width=UNBOUNDED_COLUMNS)
        if console.measure(table, options=unbounded).maximum <= console.width:
            return table
        return self._blocks(columns, [*texts, *([list(footer)] if footer else [])], title)

    def _blocks(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None
    ) -> "RenderableType":
        """What is in a table too wide for the terminal, one block a row, without empty cells."""
        from rich.console import Group
        from rich.text import Text

        names = [name.removesuffix(">") for name in columns]
        blocks: list[RenderableType] = [Text(title, style="italic")] if title else []
        for row in rows:
            if blocks:
                blocks.append(Text(""))
            blocks.append(self.fields(pair for pair in zip(names, row, strict=True) if pair[1]))
        return Group(*blocks)

    def fields(self, pairs: Iterable[tuple[str, object]]) -> "RenderableType":
        """Names and values below one another, without lines."""
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(Text(name), Text(clean(str(value))))
        return grid
