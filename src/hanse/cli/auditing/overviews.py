"""Commands over many files: evidence summed up, records drawn."""

from pathlib import Path

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session


@command(
    "report",
    short_help="Sum up evidence files by provider.",
    examples=(
        ("A folder of them", "hanse audit report ./evidence"),
        ("For a program", "hanse audit report ./evidence --json"),
    ),
)
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@pass_session
def report(session: Session, /, paths: tuple[Path, ...]) -> None:
    """Check evidence files (or folders of them) and count verdicts by provider.

    "by chance" is how probable so many findings of sampling are with an honest provider: one proves
    nothing, many do. The last column bounds the share of cheats, if audits were drawn at random.
    """
    from hanse.cli.auditing.files import sum_up

    document, output = sum_up(paths), session.output
    columns = ("provider", "audits>", "honest>", "cheat>", "inconclusive>", "sampling>",
               "by chance>", "at most>")  # fmt: skip
    rows = [
        (one["provider"], one["audits"], one["honest"], one["cheat"], one["inconclusive"],
         one["detected_by_sampling"], f"{one['sampling_by_chance']:.1e}",
         f"{one['cheat_rate_at_most']:.2%}")
        for one in document["providers"]
    ]  # fmt: skip
    for one in document["refused"]:
        output.note(f"{one['file']} does not count: {one['reason']}")
    output.show(document, lambda: output.table(columns, rows))


@command(
    "draw",
    short_help="Which recorded receipts are drawn for an audit.",
    examples=(
        ("Of a provider with a stake of 500", "hanse audit draw ./records --stake 500"),
        ("For a program", "hanse audit draw ./records --stake 500 --json | jq '.draws[].draw'"),
    ),
)
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--stake", required=True, metavar="AMOUNT", help="What the provider could lose.")
@click.option("--window", type=click.IntRange(1, 1_048_576), default=100, metavar="REQUESTS",
              help="It finishes so many before a finding takes effect. [default: 100]")  # fmt: skip
@pass_session
async def draw(session: Session, /, paths: tuple[Path, ...], stake: str, window: int) -> None:
    """Draw record files (hanse receipts prove) by the chain's blocks after their commits.

    Everyone with the same records and figures draws the same. The proposer of a deciding block
    knows its hash first: see docs/verification/audits.md.
    """
    from hanse.cli.auditing.drawing import draw_records, drawn_to_document
    from hanse.cli.network import load_network

    units = load_network(session.home).units
    drawn = await draw_records(session, paths, units.parse(stake), window)
    document = {"draws": [drawn_to_document(record, one) for record, one in drawn]}
    columns = ("request", "provider", "rate>", "block>", "draw")
    rows = [
        (one["request_id"], one["provider"], f"{one['rate']:.2%}", one["deciding_block"],
         one["draw"] if one["deterred"] else f"{one['draw']}, no rate deters this stake")
        for one in document["draws"]
    ]  # fmt: skip
    session.output.show(document, lambda: session.output.table(columns, rows))
