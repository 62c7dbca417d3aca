"""Moves money for `hanse account`: one transaction each, shown until it is confirmed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hanse.chain import OutboxEntry
from hanse.cli.amounts import AssetUnits
from hanse.cli.buying.wallet import Wallet, open_wallet
from hanse.cli.moments import format_time, format_until
from hanse.cli.network import Network, load_network
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError, Shortfall
from hanse.protocol.limits import SUB_ACCOUNTS_PER_OPEN_MAX
from hanse.protocol.signatures import Address, parse_address

ALL = "all"

Move = Callable[[Wallet, int], Awaitable[OutboxEntry]]


async def show_account(session: Session, key: str) -> None:
    """`hanse account show`."""
    network = load_network(session.home)
    units = network.units
    async with open_wallet(session, network, key) as wallet:
        money = await wallet.read_money()
        native_wei = await wallet.rpc.fetch_balance(wallet.user, block=money.block)
        now_s = (await wallet.rpc.fetch_head()).timestamp_s
        funds = wallet.chain.list_funds()
    held = {p.place: p.amount for p in money.places if p.place in ("wallet", "account")}
    rows = [
        (
            provider,
            signer if signer != money.user else "user",
            units.format_number(of.balance),
            units.format_number(of.pending_refund),
            format_until(of.refund_unlock_s, now_s) if of.pending_refund else "",
            units.format_number(of.claimed),
        )
        for provider, signer, of in funds
    ]
    columns = ("sub-account with", "signer", "holds>", "refund>", "free", "claimed so far>")
    output = session.output
    output.show(
        {
            "user": money.user,
            "block": money.block,
            "wallet": str(held["wallet"]),
            "account": str(held["account"]),
            "native_wei": str(native_wei),
            "sub_accounts": [
                {
                    "provider": provider,
                    "signer": signer,
                    "balance": str(of.balance),
                    "claimed": str(of.claimed),
                    "pending_refund": str(of.pending_refund),
                    "refund_unlock_s": of.refund_unlock_s,
                }
                for provider, signer, of in funds
            ],
        },
        lambda: output.fields(
            (
                ("user", money.user),
                ("wallet", units.format(held["wallet"])),
                ("account", units.format(held["account"])),
                ("for gas", f"{native_wei} wei"),
            )
        ),
    )
    if rows and not output.as_json:
        output.console().print(output.table(columns, rows))


async def move(session: Session, whose: dict[str, Any], name: str, text: str, do: Move) -> None:
    """Deposit, fund or withdraw."""
    network = load_network(session.home)
    async with _open(session, network, whose) as wallet:
        amount = await _read_amount(wallet, network.units, name, text)
        with _wait(session, network, f"{name} {network.units.format(amount)}"):
            entry = await do(wallet, amount)
    _show(session, network.units, name, amount, entry)


async def open_funds(
    session: Session, whose: dict[str, Any], funds: tuple[str, ...], deposit: str
) -> None:
    """Deposit and fund in one transaction."""
    network = load_network(session.home)
    units = network.units
    amounts = _read_funds(session, units, funds)
    amount = units.parse(deposit)
    async with _open(session, network, whose) as wallet:
        text = f"deposit {units.format(amount)}, fund {units.format(sum(amounts.values()))}"
        with _wait(session, network, text):
            entry = await wallet.account.open(amount, amounts)
    more = {"funds": {provider: str(fund) for provider, fund in amounts.items()}}
    _show(session, units, "open", amount, entry, more)


async def refund(
    session: Session, whose: dict[str, Any], provider: str, text: str, what: str
) -> None:
    """Request, claim or cancel a refund."""
    network, address = load_network(session.home), get_provider(session, provider)
    units = network.units
    async with _open(session, network, whose) as wallet:
        amount = await _read_refund(wallet, units, address, text, what)
        with _wait(session, network, f"{what} a refund of {units.format(amount)}"):
            if what == "claim":
                entry = await wallet.account.claim_refund(address)
            elif what == "cancel":
                entry = await wallet.account.cancel_refund(address)
            else:
                entry = await wallet.account.request_refund(address, amount)
        block = await wallet.account.read_block()
        held = await wallet.account.escrow.read_sub_account(
            wallet.user, address, wallet.signer, block=block
        )
        now_s = (await wallet.rpc.fetch_head()).timestamp_s
    more = {
        "provider": address,
        "pending_refund": str(held.refund),
        "refund_unlock_s": held.unlock_time_s,
    }
    _show(session, units, f"refund {what}", amount, entry, more)
    if what == "request":
        until = format_until(held.unlock_time_s, now_s)  # by the chain's clock, which decides
        session.output.note(
            f"{units.format(held.refund)} come free at {format_time(held.unlock_time_s)}, {until}; "
            f"then: hanse account refund {provider} --claim"
        )


def get_provider(session: Session, text: str) -> Address:
    """An address, or the address of a key of this home by its name."""
    if text.startswith("0x"):
        return parse_address(text, "provider")
    return session.get_key_address(text)


def _open(session: Session, network: Network, whose: dict[str, Any]) -> Any:
    return open_wallet(
        session,
        network,
        whose["key"],
        signer=whose["signer"],
        can_send=True,
        use_keyring=whose["keyring"],
    )


@contextmanager
def _wait(session: Session, network: Network, text: str) -> Iterator[None]:
    """Show that a transaction is on its way; say what becomes of it if Ctrl-C ends the wait."""
    blocks = network.deployment.confirmations
    try:
        with session.output.wait(f"{text}: until {blocks} blocks confirm it ..."):
            yield
    except asyncio.CancelledError:
        session.output.note(
            "The transaction may be on its way already: do not repeat it. The next hanse account "
            "command that sends one waits for it first; hanse money shows what came of it."
        )
        raise


async def _read_amount(wallet: Wallet, units: AssetUnits, name: str, text: str) -> int:
    if text != ALL:
        amount = units.parse(text)
    elif name == "deposit":
        amount = await wallet.account.read_wallet()
    else:
        block = await wallet.account.read_block()
        amount = await wallet.account.escrow.read_account(wallet.user, block=block)
    if amount == 0:
        raise RequestError("amount_malformed", f"there is nothing to {name}: the amount is 0")
    await _verify_account_holds(wallet, units, name, amount)
    return amount


async def _verify_account_holds(wallet: Wallet, units: AssetUnits, name: str, amount: int) -> None:
    """Say before any gas is spent what the contract would refuse."""
    if name != "withdraw":
        return
    block = await wallet.account.read_block()
    held = await wallet.account.escrow.read_account(wallet.user, block=block)
    if amount > held:
        raise RequestError(
            "insufficient_balance",
            f"the account holds {units.format(held)}, asked are {units.format(amount)}",
            details=Shortfall(amount, held).to_details(),
        )


async def _read_refund(
    wallet: Wallet, units: AssetUnits, provider: Address, text: str, what: str
) -> int:
    """The refund's amount; a claim before its time is refused here, with the time."""
    money = await wallet.read_money()
    places = {
        place.place: place
        for place in money.places
        if (place.provider, place.signer) == (provider, wallet.signer)
    }
    if not places:
        raise RequestError(
            "sub_account_unknown",
            f"{wallet.user} has no sub-account with {provider} under signer {wallet.signer}",
        )
    waiting = places["refund"]
    if what == "request":
        amount = places["free"].amount if text == ALL else units.parse(text)
        if amount == 0:
            raise RequestError("amount_malformed", "nothing of this sub-account is free")
        return amount
    if waiting.amount == 0:
        raise RequestError("not_found", f"no refund waits with {provider}")
    now_s = (await wallet.rpc.fetch_head()).timestamp_s
    if what == "claim" and waiting.unlock_time_s > now_s:
        raise RequestError(
            "unprocessable",
            f"the refund of {units.format(waiting.amount)} comes free at "
            f"{format_time(waiting.unlock_time_s)}, {format_until(waiting.unlock_time_s, now_s)}",
        )
    return waiting.amount


def _read_funds(session: Session, units: AssetUnits, funds: tuple[str, ...]) -> dict[Address, int]:
    amounts: dict[Address, int] = {}
    for text in funds:
        name, found, amount = text.partition("=")
        if not found:
            raise RequestError("usage", f"{text[:80]!r} is not PROVIDER=AMOUNT")
        provider = get_provider(session, name)
        if provider in amounts:
            raise RequestError("usage", f"{name} is named twice")
        amounts[provider] = units.parse(amount)
    if len(amounts) > SUB_ACCOUNTS_PER_OPEN_MAX:
        raise RequestError(
            "usage",
            f"{len(amounts)} sub-accounts, at most {SUB_ACCOUNTS_PER_OPEN_MAX} in one transaction",
        )
    return amounts


def _show(
    session: Session,
    units: AssetUnits,
    name: str,
    amount: int,
    entry: OutboxEntry,
    more: dict[str, Any] | None = None,
) -> None:
    session.output.show(
        {
            "move": name,
            "amount": str(amount),
            "transaction_hash": entry.transaction_hash,
            "block_number": entry.block_number,
            "gas_used": entry.gas_used,
            **(more or {}),
        },
        lambda: session.output.fields(
            (
                ("done", f"{name} {units.format(amount)}"),
                ("transaction", entry.transaction_hash),
                ("block", f"{entry.block_number}, {entry.gas_used} gas"),
            )
        ),
    )
