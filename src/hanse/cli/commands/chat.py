"""`hanse chat`: ask a model, paid by the token."""

import sys
from typing import Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session
from hanse.cli.settings import traces_options


@command(
    "chat",
    short_help="Ask a model; pay by the token.",
    examples=(
        ("Ask", 'hanse chat "What is a voucher?"'),
        ("A named model, at most 0.01 for it", 'hanse chat -m qwen3-8b --max-fee 0.01 "Hello"'),
        ("About a file", 'cat notes.txt | hanse chat --system "Summarise this."'),
        ("A conversation", "hanse chat"),
        ("For a program", 'hanse chat --json "Hello" | jq -r .text'),
    ),
)
@click.argument("text", nargs=-1)
@click.option("-m", "--model", help="Which model. [default: the only one on offer]")
@click.option("--system", help="Instructions that go before the conversation.")
@click.option("--max-tokens", type=click.IntRange(1), help="Most tokens of one answer.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 is the likeliest answer.")
@click.option("--seed", type=int, help="The same answer again, where the engine can.")
@click.option("--max-fee", help="Most that one answer may cost.")
@click.option("--provider", multiple=True, help="Only from this address or key; may be repeated.")
@click.option("--key", default="user", help="Who pays: a key of this home.")
@click.option("--signer", help="Key that signs the vouchers. [default: the user's]")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@traces_options
@pass_session
async def chat(session: Session, /, text: tuple[str, ...], **options: Any) -> None:
    """Ask TEXT, or standard input, or at a terminal have a conversation.

    The answer streams; then come the provider, the tokens and the fee. Ctrl-C stops the answer: the
    tokens that were delivered are paid, and the command says how much that was.
    """
    from hanse.cli.buying.conversation import converse

    asked = " ".join(text) if text else None
    if asked is None and not sys.stdin.isatty():
        asked = sys.stdin.read()
    if asked is not None and not asked.strip():
        raise click.UsageError("There is nothing to ask: give TEXT or standard input.")
    if asked is None and session.output.as_json:
        raise click.UsageError("--json needs TEXT or standard input.")
    await converse(session, asked, options)
