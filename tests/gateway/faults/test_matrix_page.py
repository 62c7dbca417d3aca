"""The fault matrix on the page is the one that the tests measure."""

from tests.gateway.faults.matrix import ROWS
from tests.house.repository import ROOT, get_table

PAGE = ROOT / "docs" / "gateway" / "staying-up.md"


def test_the_page_shows_what_is_measured():
    shown = [row[:3] for row in get_table(PAGE.read_text(), "## The fault matrix")]
    assert shown == [[row.fault, row.saw, row.paid] for row in ROWS]
