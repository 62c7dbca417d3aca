"""`hanse audit watch`: audits what a gateway of this home buys, as long as it runs."""

from pathlib import Path
from typing import Any

import click

from hanse.cli.auditing.model_options import FILE, model_options
from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session
from hanse.cli.settings import while_stdin_open_option
from hanse.protocol.errors import RequestError


@command(
    "watch",
    short_help="Audit by itself what a gateway of this home buys.",
    examples=(
        ("Beside hanse gateway start --audit",
         "hanse audit watch --copies ./copies --calibration calibration.json"),
        ("One answer in fifty at least, vouchers signed by the gateway's key",
         "hanse audit watch --signer gateway --copies ./copies --calibration c.json --at-least 2"),
        ("Bring cheats to Disputes, with at most 50 bonded",
         "hanse audit watch --copies ./copies --calibration c.json --challenge auditor "
         "--bond-max 50"),
        ("By the plain model and the key that the copies were made with",
         "hanse audit watch --model base.gguf --copy visby.gguf.copy.json --master master.key "
         "--runtime torch --calibration torch.json"),
        ("What is kept now, then end",
         "hanse audit watch --copies ./copies --calibration c.json --once"),
    ),
)  # fmt: skip
@click.option("--copies", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of providers' copies, each with its .copy.json.")  # fmt: skip
@model_options(needs_model=False, many=True)
@click.option("--calibration", "calibrated", type=FILE, multiple=True, required=True,
              help="Thresholds, one file for each model and quantisation; may be repeated."
              )  # fmt: skip
@click.option("--key", default="user", help="Whose purchases: a user's key of this home.")
@click.option("--signer", metavar="NAME",
              help="Key that signs its vouchers; signs the evidence too. [default: the key]"
              )  # fmt: skip
@click.option("--at-least", type=click.FloatRange(0, 100), default=0.0, metavar="PERCENT",
              help="Of the answers, audited at least; by stake and price it may be more."
              )  # fmt: skip
@click.option("--window", type=click.IntRange(1, 1_048_576), default=100, metavar="REQUESTS",
              help="A provider finishes so many before a finding takes effect.")  # fmt: skip
@click.option("--record-wait-s", type=click.FloatRange(0, 86_400), default=120.0,
              help="For a receipt's record, whose block draws; then a secret of yours does."
              )  # fmt: skip
@click.option("--challenge", metavar="KEY",
              help="Challenge cheats at Disputes, bonded by this key of the home. [default: off]"
              )  # fmt: skip
@click.option("--bond-max", metavar="AMOUNT",
              help="With --challenge: bonded at once at most, panels' fees included.")  # fmt: skip
@click.option("--evidence-url", default="", metavar="URL",
              help="With --challenge: where you publish the folder of evidence for panels."
              )  # fmt: skip
@click.option("--once", is_flag=True, help="End when nothing that is kept can be decided now.")
@click.option("--keyring", is_flag=True, help="Take passwords from the desktop's keyring.")
@while_stdin_open_option
@pass_session
async def watch(session: Session, /, **options: Any) -> None:
    """Draw among the answers that hanse gateway start --audit keeps, and audit what is drawn.

    A block's hash draws once the receipt is recorded; where no record comes, a secret of this home
    does: no provider can foresee either. Each audit leaves signed evidence in HOME/audits/evidence;
    the gateway bars whom it catches within a second. With --challenge a cheat is brought to the
    panel and followed until it is closed. Killed at any moment, it goes on at the next start. With
    --json what happens is one JSON line each on standard error.

    Copies come from a folder, or one by --model; or --model is the plain model, and --copy and
    --master say whose copies of it are audited. An answer is a cheat if it is one by each of the
    provider's copies at hand.
    """
    from hanse.cli.auditing.watch_running import serve

    if (options["challenge"] is None) != (options["bond_max"] is None):
        raise RequestError("usage", "--challenge KEY and --bond-max AMOUNT belong together")
    if options["copies"] is None and options["model"] is None:
        raise RequestError("usage", "say which copies: --copies FOLDER or --model FILE")
    if options["copy_file"] and options["model"] is None:
        raise RequestError("usage", "--copy and --master take the plain model: --model FILE")
    await serve(session, options)
