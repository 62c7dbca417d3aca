"""Tables: addresses stay whole, so that they can be copied, however narrow the terminal is."""

import pytest
from rich.console import Console

from hanse.cli.output import Output

PROVIDER = "0x" + "ab" * 20
REQUEST = "0x" + "cd" * 32


class OutputOfWidth(Output):
    """Output on a terminal of so many columns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def console(self, *, stderr: bool = False) -> Console:
        return Console(width=self.width, file=super().console(stderr=stderr).file)


def show_table(width: int) -> None:
    output = OutputOfWidth(width)
    rows = [(PROVIDER, REQUEST, "7"), (PROVIDER, "", "5")]
    columns, footer = ("provider", "request", "fee>"), ("sum", "", "12")
    output.show({}, lambda: output.table(columns, rows, title="the title", footer=footer))


@pytest.mark.parametrize("width", [80, 100, 200])
def test_addresses_and_hashes_are_never_broken_over_lines(capsys, width):
    show_table(width)
    shown = capsys.readouterr().out
    assert shown.count(PROVIDER) == 2
    assert shown.count(REQUEST) == 1
    assert max(map(len, shown.splitlines())) <= width


def test_a_narrow_terminal_shows_what_the_table_would(capsys):
    show_table(80)
    words = capsys.readouterr().out.split()
    assert words[:2] == ["the", "title"]
    assert words[2:] == [
        *("provider", PROVIDER, "request", REQUEST, "fee", "7"),
        *("provider", PROVIDER, "fee", "5"),
        *("provider", "sum", "fee", "12"),
    ]


def test_a_wide_terminal_shows_one_line_a_row(capsys):
    show_table(200)
    assert sum(PROVIDER in line for line in capsys.readouterr().out.splitlines()) == 2
