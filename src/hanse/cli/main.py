"""Entry point of `hanse`: the table of commands.

A command is imported when it is used. `hanse up` belongs to the local network and is listed when
that module is there.
"""

import importlib.util

import click

from hanse.cli.framework import LazyGroup

COMMANDS = {
    "up": ("hanse.cli.up:up", "Start a whole network on this machine and buy one answer."),
    "chat": ("hanse.cli.commands.chat:chat", "Ask a model; pay by the token."),
    "offers": ("hanse.cli.commands.offers:offers", "List what is on offer, and from whom."),
    "quote": ("hanse.cli.budgeting.quote:quote", "Price a request before it is made."),
    "match": ("hanse.cli.commands.match:match", "Show who would be asked for a request, and why."),
    "observe": (
        "hanse.cli.auditing.observe:observe",
        "Sign that a provider failed, or how long it took.",
    ),
    "account": ("hanse.cli.commands.account:account", "Deposit, fund, refund, withdraw."),
    "money": ("hanse.cli.commands.money:money", "Show every unit of a wallet, by place."),
    "receipts": (
        "hanse.cli.commands.receipts:receipts",
        "List, prove and verify receipts.",
    ),
    "disputes": (
        "hanse.cli.commands.disputes:disputes",
        "Show and prove what providers cheated in.",
    ),
    "traces": (
        "hanse.cli.commands.traces:traces",
        "List, read, check and forget encrypted traces.",
    ),
    "audit": (
        "hanse.cli.commands.audit:audit",
        "Recompute what was bought; evidence that others can check.",
    ),
    "attest": (
        "hanse.cli.attesting.commands:attest",
        "Verify what runs at a provider, by its hardware's word.",
    ),
    "provider": ("hanse.cli.commands.provider:provider", "Sell a model's answers."),
    "settle": ("hanse.cli.commands.settle:settle", "Claim what users signed for (provider)."),
    "recorder": ("hanse.cli.commands.recorder:recorder", "Record matched receipts on the chain."),
    "gateway": ("hanse.cli.commands.gateway:gateway", "Serve OpenAI's API, pay providers."),
    "zk": (
        "hanse.cli.proving.commands:zk",
        "Prove what a small classifier answers (zero knowledge).",
    ),
    "models": ("hanse.cli.commands.models:models", "Check, show, shrink and copy model files."),
    "top": ("hanse.cli.commands.top:top", "Watch a gateway: requests, spend, limits."),
    "keys": ("hanse.cli.commands.keys:keys", "Create and list keys."),
}
"""Command -> (where it is, its line in the help)."""


def _list_present() -> dict[str, tuple[str, str]]:
    present = dict(COMMANDS)
    if importlib.util.find_spec("hanse.cli.up") is None:
        del present["up"]
    return present


@click.pass_context
def _root(_: click.Context) -> None:
    """Hanse: an open market for AI compute, paid by the token from a smart contract."""


hanse = LazyGroup(
    "hanse",
    callback=_root,
    help=_root.__doc__,
    lazy=_list_present(),
    examples=(
        ("A whole network on this machine: chain, providers, gateway, a cheat", "hanse up"),
        ("What is on offer", "hanse offers"),
        ("Ask a model", 'hanse chat "What is a voucher?"'),
        ("Where every unit of this wallet is", "hanse money"),
        ("The same for a program", "hanse money --json"),
    ),
)
click.version_option(package_name="hanse", message="hanse %(version)s")(hanse)


def main() -> None:
    """Run the command line."""
    hanse.main(prog_name="hanse")
