"""`hanse account`: wallet <-> account <-> sub-account."""

from typing import Any

import click

from hanse.cli.framework import group, option_block, pass_session
from hanse.cli.session import Session

_ADDRESS_HELP = "PROVIDER is an address, or the name of a key of this home."


@group(
    "account",
    short_help="Deposit, fund, refund, withdraw.",
    examples=(
        ("What there is", "hanse account show"),
        ("Begin: 20 in, 5 of them for one provider", "hanse account open --deposit 20 0xAb12...=5"),
        ("Ask 3 back from it", "hanse account refund 0xAb12... 3"),
        ("Take it out", "hanse account withdraw all"),
    ),
)
def account() -> None:
    """Move money between wallet, account and sub-accounts.

    wallet <-> account is at once; account -> sub-account too. Back from a sub-account takes the
    lock time, so that the provider can claim what was signed to it first. Every command that sends
    a transaction waits until it is confirmed and prints its hash.
    """


_options = option_block(
    click.option("--key", default="user", help="Whose money: a key of this home."),
    click.option("--signer", help="Who signs the vouchers: a key or address. [default: user]"),
    click.option("--keyring", is_flag=True, help="Take the password from the keyring."),
)
"""Whose money, under which signer."""


@account.command_of(
    "show",
    short_help="Show wallet, account and sub-accounts.",
    examples=(("Balances, without a password", "hanse account show"),),
)
@click.option("--key", default="user", help="Whose money: a key of this home.")
@pass_session
async def show(session: Session, /, key: str) -> None:
    """Show what wallet, account and every sub-account hold on the chain.

    `hanse money` also shows what is reserved and accrued, and where it came from.
    """
    from hanse.cli.buying.moves import show_account

    await show_account(session, key)


@account.command_of(
    "deposit",
    short_help="Wallet -> account.",
    examples=(("20 whole units", "hanse account deposit 20"),),
)
@click.argument("amount")
@_options
@pass_session
async def deposit(session: Session, /, amount: str, **whose: Any) -> None:
    """Move AMOUNT from the wallet to the account, with a permit: one transaction."""
    from hanse.cli.buying.moves import move

    await move(
        session, whose, "deposit", amount, lambda wallet, units: wallet.account.deposit(units)
    )


@account.command_of(
    "open",
    short_help="Deposit and fund sub-accounts in one transaction.",
    examples=(
        ("20 in, 5 for one provider", "hanse account open --deposit 20 0xAb12...=5"),
        ("Two providers for a gateway's key", "hanse account open 0xAb=5 0xCd=5 --signer gateway"),
    ),
)
@click.argument("funds", nargs=-1, required=True, metavar="PROVIDER=AMOUNT...")
@click.option("--deposit", default="0", help="From the wallet first; 0 uses what the account has.")
@_options
@pass_session
async def open_sub_accounts(
    session: Session, /, funds: tuple[str, ...], deposit: str, **whose: Any
) -> None:
    """Deposit, and set AMOUNT aside for each PROVIDER, at most 20 of them."""
    from hanse.cli.buying.moves import open_funds

    await open_funds(session, whose, funds, deposit)


@account.command_of(
    "fund",
    short_help="Account -> sub-account.",
    examples=(
        ("5 more for one provider", "hanse account fund 0xAb12... 5"),
        (
            "For requests that the gateway's key signs",
            "hanse account fund 0xAb12... 5 --signer gateway",
        ),
    ),
)
@click.argument("provider")
@click.argument("amount")
@_options
@pass_session
async def fund(session: Session, /, provider: str, amount: str, **whose: Any) -> None:
    """Set AMOUNT aside for PROVIDER; a refund that waits is taken back first."""
    from hanse.cli.buying.moves import get_provider, move

    address = get_provider(session, provider)
    await move(
        session, whose, "fund", amount, lambda wallet, units: wallet.account.fund(address, units)
    )


@account.command_of(
    "refund",
    short_help="Sub-account -> account, after the lock time.",
    examples=(
        ("Ask for all that is free", "hanse account refund 0xAb12..."),
        ("Ask for 3", "hanse account refund 0xAb12... 3"),
        ("Once the lock time has passed", "hanse account refund 0xAb12... --claim"),
        ("Leave it there after all", "hanse account refund 0xAb12... --cancel"),
    ),
)
@click.argument("provider")
@click.argument("amount", default="all")
@click.option("--claim", is_flag=True, help="Complete a refund whose time has come.")
@click.option("--cancel", is_flag=True, help="Take a waiting refund back.")
@_options
@pass_session
async def refund(
    session: Session, /, provider: str, amount: str, claim: bool, cancel: bool, **whose: Any
) -> None:
    """Ask for AMOUNT (all that is free by default) back from PROVIDER.

    It comes free after the lock time; the command says when. Then anyone may complete it, and the
    provider's broker usually does; --claim does it yourself. Asking for more restarts the wait.
    """
    from hanse.cli.buying.moves import refund as do

    if claim and cancel:
        raise click.UsageError("--claim and --cancel exclude each other")
    if (claim or cancel) and amount != "all":
        raise click.UsageError("--claim and --cancel take the whole refund: leave AMOUNT out")
    what = "claim" if claim else "cancel" if cancel else "request"
    await do(session, whose, provider, amount, what)


@account.command_of(
    "withdraw",
    short_help="Account -> wallet.",
    examples=(
        ("15 whole units", "hanse account withdraw 15"),
        ("All that is free", "hanse account withdraw all"),
    ),
)
@click.argument("amount")
@_options
@pass_session
async def withdraw(session: Session, /, amount: str, **whose: Any) -> None:
    """Move AMOUNT, or all, from the account to the wallet."""
    from hanse.cli.buying.moves import move

    await move(
        session, whose, "withdraw", amount, lambda wallet, units: wallet.account.withdraw(units)
    )
