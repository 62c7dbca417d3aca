"""Commands over many answers: evidence summed up, records drawn, honest noise measured."""

from pathlib import Path
from typing import Any

import click

from hanse.cli.auditing.model_options import CONTEXT, FILE, model_options
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
    nothing, many do. "at most" bounds the share of cheats, if audits were drawn at random. Broken
    promises are bills without their commitment or above it, each proven by its own signatures.
    """
    from hanse.auditor.files import sum_up

    document, output = sum_up(paths), session.output
    columns = ("provider", "audits>", "honest>", "cheat>", "inconclusive>", "sampling>",
               "by chance>", "at most>", "broken promises>")  # fmt: skip
    rows = [
        (one["provider"], one["audits"], one["honest"], one["cheat"], one["inconclusive"],
         one["detected_by_sampling"], f"{one['sampling_by_chance']:.1e}",
         f"{one['cheat_rate_at_most']:.2%}", one["uncommitted"] + one["overbilled"])
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

    Everyone with the same records and figures draws the same. Rates count the fees of the window as
    kept by the provider, so that one whose stake is below them is deterred by no rate. The proposer
    of a deciding block knows its hash first: see docs/verification/audits.md.
    """
    from hanse.auditor.drawing import draw_records, drawn_to_document
    from hanse.cli.network import load_network

    network = load_network(session.home)
    drawn = await draw_records(
        network.rpc_url, network.deployment, paths, network.units.parse(stake), window
    )
    document = {"draws": [drawn_to_document(record, one) for record, one in drawn]}
    columns = ("request", "provider", "rate>", "block>", "draw")
    rows = [
        (one["request_id"], one["provider"], f"{one['rate']:.2%}", one["deciding_block"],
         one["draw"] if one["deterred"] else f"{one['draw']}, no rate deters this stake")
        for one in document["draws"]
    ]  # fmt: skip
    session.output.show(document, lambda: session.output.table(columns, rows))


@command(
    "calibrate",
    short_help="Measure honest noise and write the thresholds it justifies.",
    examples=(
        ("Quickly: 59 answers carry the quantile 0.95",
         "hanse audit calibrate --model copy.gguf --answers 80 --quantile 0.95 -o quick.json"),
        ("Against torch, under two loads",
         "hanse audit calibrate --model copy.gguf --runtime torch --load 1x1 --load 2x8 "
         "--answers 400 -o torch.json"),
        ("A copy in vLLM, which runs there",
         "hanse audit calibrate --model copy.gguf --upstream http://127.0.0.1:8000/v1 "
         "--upstream-model m --served-copy copy.copy.json --served-by 'vllm 0.32.0 H100 bf16' "
         "--load 1x8 -o vllm.json"),
    ),
)  # fmt: skip
@model_options(needs_model=True)
@CONTEXT
@click.option("--served", metavar="FILE", help="File that serves. [default: the model]")
@click.option("--upstream", metavar="URL", help="A server that serves the copy, such as vLLM.")
@click.option("--upstream-model", metavar="NAME", help="The copy's name there.")
@click.option("--served-copy", type=FILE, metavar="FILE.copy.json", help="Its description.")
@click.option("--served-by", metavar="TEXT", help="What runs there, for the document.")
@click.option("--manifest", metavar="ROOT", help="Manifest root. [default: the copy's]")
@click.option("--answers", type=click.IntRange(1, 1_000_000), default=300,
              help="Honest answers to measure. [default: 300]")  # fmt: skip
@click.option("--tokens", type=click.IntRange(4, 1_024), default=64,
              help="Of one answer. [default: 64]")  # fmt: skip
@click.option("--prompt-tokens", type=click.IntRange(0, 1_000_000), default=512,
              help="Of every fourth question's prompt, about; audits of longer ones are not "
                   "covered. [default: 512]")  # fmt: skip
@click.option("--load", "loads", multiple=True, metavar="THREADSxCONCURRENT",
              help="How answers are served, again for more. [default: 1x1, 2x4]")  # fmt: skip
@click.option("--quantile", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              default=0.99, help="Share of honest answers below. [default: 0.99]")  # fmt: skip
@click.option("--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              default=0.95, help="How sure that is to be. [default: 0.95]")  # fmt: skip
@click.option("--output", "-o", "target", type=FILE, required=True, help="File to write.")
@pass_session
async def calibrate(session: Session, /, **options: Any) -> None:
    """Serve honest answers, run them through the auditing runtime, and write thresholds.

    Bounds are order statistics: a quantile that so few answers do not carry is refused before
    anything is measured. Takes about a second an answer on two cores with a model of 135M.
    """
    from hanse.cli.auditing.calibration_runs import make, plan

    order = plan(options)
    document, rows = await make(session, order)
    session.output.show(document, lambda: session.output.fields(rows))
