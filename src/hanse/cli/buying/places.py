"""Shows where money is: a table of places that adds up, then each place in words.

Used by `hanse money` and `hanse provider money`; the words are `hanse.settlement.money`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hanse.cli.amounts import AssetUnits
from hanse.cli.moments import format_time, format_until
from hanse.cli.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hanse.settlement.money.places import Place

ORIGINS_SHOWN_MAX = 3
"""Transactions that a place is explained with; `--json` has all of them."""


def show_places(
    output: Output,
    units: AssetUnits,
    places: Sequence["Place"],
    *,
    document: Callable[[], dict[str, Any]],
    title: str,
    names: Mapping[str, str],
    now_s: int,
    complete: Callable[[str], str] = str,
) -> None:
    """Show the places' table and words, or the document.

    Args:
        output: where to.
        units: of the asset.
        places: what to show.
        document: for `--json`.
        title: of the table.
        names: of signers that need no mention, or a shorter one.
        now_s: the chain's clock.
        complete: gives a command what it needs besides, such as ` --key NAME`.
    """
    rows = [
        (
            place.place,
            _describe_owner(place, names),
            units.format_number(place.amount),
            f"{format_time(place.unlock_time_s)}, {format_until(place.unlock_time_s, now_s)}"
            if place.unlock_time_s
            else "",
            place.transaction_hash or _describe_before(place),
        )
        for place in places
    ]
    columns = ("place", "provider", f"{units.symbol}>", "free at", "transaction")
    total = sum(place.amount for place in places)
    footer = ("sum", "", units.format_number(total), "", "")

    # a column that says nothing about anything is left out
    kept = [at for at in range(len(columns)) if any(row[at] for row in rows)]

    def pick(cells: Sequence[str]) -> tuple[str, ...]:
        return tuple(cells[at] for at in kept)

    def render() -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        words = [Text(_explain(place, names, units, complete)) for place in places if place.amount]
        table = output.table(
            pick(columns), [pick(row) for row in rows], footer=pick(footer), title=title
        )
        return Group(table, Text(""), *words)

    output.show(document(), render)


def _explain(
    place: "Place", names: Mapping[str, str], units: AssetUnits, complete: Callable[[str], str]
) -> str:
    owner = _describe_owner(place, names)
    head = f"{place.place} {units.format(place.amount)}{f' with {owner}' if owner else ''}"
    lines = [f"{head}\n  why    {place.why}", f"  until  {place.until}"]
    if place.command:
        lines.append(f"  to do  {complete(place.command)}")
    shown = place.origins[:ORIGINS_SHOWN_MAX]
    if len(place.origins) > 1 or not place.transaction_hash:
        for origin in shown:
            where = (
                f"{origin.event} {origin.transaction_hash}"
                if origin.transaction_hash
                else f"before block {origin.block_number}"
            )
            lines.append(f"  from   {units.format_number(origin.amount)}: {where}")
        if more := len(place.origins) - len(shown):
            lines.append(f"  from   {more} more; --json has them")
    return "\n".join(lines)


def _describe_owner(place: "Place", names: Mapping[str, str]) -> str:
    if not place.signer or names.get(place.signer) == "":
        return place.provider
    return f"{place.provider} by signer {names.get(place.signer, place.signer)}"


def _describe_before(place: "Place") -> str:
    """Of a place that only holds what was there before we read the chain."""
    blocks = [origin.block_number for origin in place.origins]
    return f"before block {blocks[0]}" if blocks else ""
