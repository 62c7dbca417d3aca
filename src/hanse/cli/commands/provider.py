"""`hanse provider`: sell a model's answers."""

from pathlib import Path
from typing import Any

import click

from hanse.cli.cheating.names import cheat_options
from hanse.cli.framework import group, pass_session
from hanse.cli.selling.selling_options import selling_options
from hanse.cli.session import Session


@group(
    "provider",
    short_help="Sell a model's answers.",
    examples=(
        ("Offer the packaged model", "hanse provider start --output-price 0.60 --register"),
        ("Is all well, and if nobody asks, why", "hanse provider status"),
        ("What was earned, and where it is", "hanse provider money"),
    ),
)
def provider() -> None:
    """Run a broker in front of an engine: admit by voucher, meter, sign, settle."""


@provider.command_of(
    "start",
    short_help="Register, publish an offer, serve until stopped.",
    has_settings=True,
    examples=(
        (
            "The packaged model at 0.15 in, 0.60 out a million tokens",
            "hanse provider start --input-price 0.15 --output-price 0.60 --register",
        ),
        (
            "Any OpenAI-compatible server, such as vLLM",
            "hanse provider start --engine upstream --model qwen3-8b "
            "--upstream-url http://127.0.0.1:8000/v1 --output-price 0.40",
        ),
        (
            "Answers, and vectors at 0.02 a million tokens, from one engine",
            "hanse provider start --output-price 0.60 --embeddings-price 0.02 --register",
        ),
        ("Settings from a file, another port", "hanse provider start --config p.toml --port 8802"),
    ),
)
@click.option("--name", default="provider", help="Whose keys and books: NAME, NAME-receipt.")
@click.option("--keyring", is_flag=True, help="Take passwords from the desktop's keyring.")
@click.option(
    "--engine",
    default="llama",
    help="llama, upstream, whisper, hibari, echo (a fake), or a module's name.",
)
@click.option("--model", default="", help="Name to offer. [default: the engine's own]")
@click.option("--threads", type=click.IntRange(1, 1_024), help="Threads of the engine (llama).")
@click.option("--upstream-url", help="Base URL with the version (upstream), .../v1.")
@click.option("--upstream-key-env", help="Environment variable that holds its API key (upstream).")
@click.option(
    "--engine-setting",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other setting of the engine; may be repeated.",
)
@click.option("--input-price", default="0.15", help="Price of a million input tokens.")
@click.option("--cached-price", help="Price of a million cached ones. [default: the input price]")
@click.option("--output-price", default="0.60", help="Price of a million output tokens.")
@click.option(
    "--embeddings-price", help="Sell vectors too, at this price of a million input tokens."
)
@click.option(
    "--embeddings-model", default="", help="Name to offer them under. [default: the model's]"
)
@click.option("--service-id", type=click.IntRange(1), default=1, help="Number in the Registry.")
@click.option(
    "--attest",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Offer as class tee; FILE says where this machine's quotes come from.",
)
@cheat_options
@selling_options
@pass_session
async def start(session: Session, /, **options: Any) -> None:
    """Serve a model until Ctrl-C.

    Starts the engine, registers with a stake if that was never done (it asks first), publishes the
    signed offer, then serves. When nobody asks for anything it says why that may be. Ctrl-C or
    SIGTERM finishes the requests at work before it ends.
    """
    from hanse.cli.selling.broker import serve

    await serve(session, options)


@provider.command_of(
    "status",
    short_help="Stake, offers, earnings, and why an idle provider is idle.",
    examples=(
        ("Of this home's provider", "hanse provider status"),
        ("For a monitor", "hanse provider status --json"),
    ),
)
@click.option("--name", default="provider", help="Whose keys and books: NAME, NAME-receipt.")
@pass_session
async def status(session: Session, /, name: str) -> None:
    """Show what the chain, the broker and the books say of this provider.

    Needs no password; the broker may be running or not.
    """
    from hanse.cli.selling.provider_status import show_status

    await show_status(session, name)


@provider.command_of(
    "money",
    short_help="Every unit of this provider: where, why, what would free it.",
    examples=(
        ("What was earned, and where it is", "hanse provider money"),
        ("For a monitor: is anything overdue", "hanse provider money --json | jq .alarms"),
    ),
)
@click.option("--name", default="provider", help="Whose keys and books: NAME, NAME-receipt.")
@pass_session
async def money(session: Session, /, name: str) -> None:
    """Show where this provider's money is: why it is there, until when, and what would free it.

    \b
    wallet     held by the owner's address itself
    stake      in the Registry
    sent       claimed by a settlement that is on its way
    claimable  earned, and held by users' sub-accounts
    uncovered  earned, but the sub-accounts hold less

    What was earned is what was settled and the last three. A settlement or a refund that is overdue
    is an alarm. Needs no password; the broker may be running or not.
    """  # noqa: D301 - click's mark for lines that must not be joined
    from hanse.cli.selling.provider_money import show_money

    await show_money(session, name)


@provider.command_of(
    "unbond",
    short_help="Leave the market and take the stake back.",
    examples=(
        ("Begin: from now on nobody can fund it", "hanse provider unbond"),
        ("Once the unbonding time has passed", "hanse provider unbond --finish"),
        ("Stay after all", "hanse provider unbond --cancel"),
    ),
)
@click.option("--name", default="provider", help="Whose stake: the key NAME.")
@click.option("--finish", is_flag=True, help="Pay the stake out; its time must have passed.")
@click.option("--cancel", is_flag=True, help="Stay: the stake stands again at once.")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@pass_session
async def unbond(session: Session, /, name: str, finish: bool, cancel: bool, keyring: bool) -> None:
    """Take the stake back: announce it, wait the unbonding time, then --finish.

    What was signed to the provider can be claimed all the while, and after.
    """
    from hanse.cli.selling.unbonding import unbond as do

    if finish and cancel:
        raise click.UsageError("--finish and --cancel exclude each other")
    what = "finish" if finish else "cancel" if cancel else "begin"
    await do(session, name, what, use_keyring=keyring)
