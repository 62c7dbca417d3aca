"""One paid request on a local network, from the deposit to the last unit, told while it happens.

    await play_round(network, api_key, show)

Each step is done by the part that would do it in a real market: the wallet opens sub-accounts, an
unmodified OpenAI client asks the gateway, the broker settles, the refund waits its lock time. What
is shown is read back from the books and the chain, never from what we meant to do; a step that does
not come out right raises.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.markup import escape

from hanse.chain import ChainError, OutboxEntry
from hanse.cli.local.every_unit import account_for, get_provider_name
from hanse.cli.local_network import LOCK_TIME_S, LocalNetwork
from hanse.protocol.errors import InvariantError, TransientError
from hanse.protocol.signatures import Address, Hash32
from hanse.sdk import Hanse, Settings, verify_receipt_file
from hanse.sdk.money import Money, Place
from hanse.settlement.books.voucher_records import StoredReceipt, Verification

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from rich.console import RenderableType

PURSE = 100_000_000
"""What the local user's wallet is given once: 100 whole units of the test asset."""

SUB_ACCOUNT = 5_000_000
"""What each provider's sub-account is filled up to: 5 whole units, some 500,000 short answers."""

RECORD_WAIT_S = 180.0
"""For both sides to submit and for the root to be confirmed: some 10 s on a quiet machine, over a
minute where two cores start several networks at once. Waiting longer costs nothing."""

REFUND_WAIT_S = 60.0
"""For the chain view to show a refund that the broker completed first."""

PROMPT = "In one sentence: what was the Hanseatic League?"


@dataclass
class Round:
    """What one round did, as facts.

    Attributes:
        first_token_s: from the start of the command to the first word of the answer.
        answer: the text.
        transactions: hash by step.
        record: the receipt's place in a root on the chain.
        cheat: what became of the provider that cheats.
        places: every unit of the asset: (holder, place, amount).
        minted: what exists in all, by the asset's own count.
    """

    first_token_s: float = 0.0
    answer: str = ""
    transactions: dict[str, str] = field(default_factory=dict)
    receipt: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    cheat: dict[str, Any] = field(default_factory=dict)
    places: list[tuple[str, str, int]] = field(default_factory=list)
    minted: int = 0


Show = Callable[["str | RenderableType"], None]


async def fund_user(network: LocalNetwork, *others: str) -> str:
    """Fill the user's wallet once, and every provider's sub-account up; `others` are names too.

    Returns the hash of the transaction, empty if nothing was missing.
    """
    async with open_user(network) as hanse:
        money = await hanse.read_money()
        if money.total + money.paid == 0:
            await network.give("user", PURSE)
        names = (*(plan.name for plan in network.plans), *others)
        providers = {network.get_key(name).address: name for name in names}
        free = {p.provider: p.amount for p in _list_free(hanse, money)}
        missing = {
            provider: SUB_ACCOUNT - free.get(provider, 0)
            for provider in providers
            if free.get(provider, 0) < SUB_ACCOUNT // 2
        }
        if not missing:
            return ""
        held = sum(p.amount for p in money.places if p.place == "account")
        deposit = max(0, sum(missing.values()) - held)
        entry = await hanse.account.open(deposit, missing)
        return entry.transaction_hash


def _list_free(hanse: Hanse, money: Money) -> list[Place]:
    """What is free for the gateway's vouchers; the user may have funds of its own beside it."""
    signer = hanse.account.signer
    return [p for p in money.places if p.place == "free" and p.signer == signer]


async def play_round(
    network: LocalNetwork,
    api_key: str,
    model: str,
    *,
    started: float,
    show: Show,
    after_answer: Callable[[], None] = lambda: None,
) -> Round:
    """Buy one answer and follow its money; `after_answer` is called once the answer is there.

    Raises:
        HanseError: a step failed.
        InvariantError: what came out does not add up.
    """
    played = Round()
    show(f"[bold]1. Ask[/]   {PROMPT}\n")
    await _ask(network, api_key, model, played, started, show)
    after_answer()
    async with open_user(network) as hanse:
        stored = await _find_receipt(hanse)
        provider = stored.signed.receipt.provider
        await _show_evidence(network, hanse, stored, played, show)
        await _settle(network, hanse, provider, played, show)
        await _refund(network, hanse, provider, played, show)
        await _record(network, stored, played, show)
    return played


async def show_places(network: LocalNetwork, played: Round, show: Show) -> None:
    """Every unit of the asset that exists, by holder and place; raises unless it adds up."""
    async with open_user(network) as hanse:
        money = await hanse.read_money()
    played.places, played.minted = await account_for(network, money)
    show("\n")
    show(_render(network, played.places, played.minted))


def open_user(network: LocalNetwork) -> AbstractAsyncContextManager[Hanse]:
    """The local user's side: the wallet's key, and the gateway's as signer of its vouchers."""
    return Hanse.open(
        Settings(
            rpc_url=network.rpc_url,
            deployment=network.deployment,
            database=Path(network.session.get_database_path("user")),
            signer=network.get_key("gateway"),
            wallet=network.get_key("user"),
            discover_interval_s=0,
            resume_interval_s=0,
        )
    )


async def _ask(
    network: LocalNetwork, api_key: str, model: str, played: Round, started: float, show: Show
) -> None:
    from openai import APIError, AsyncOpenAI

    try:
        async with AsyncOpenAI(
            base_url=network.gateway_url, api_key=api_key, max_retries=0
        ) as client:
            await _stream(client, model, played, started, show)
    except APIError as error:
        raise TransientError(
            "provider_unreachable",
            f"the gateway answered: {error.message}; see {network.home / 'logs'}",
        ) from None
    if not played.answer:
        raise InvariantError("internal_error", "the answer was empty")
    show(f"\n\n   first word {played.first_token_s:.1f} s after the start of this command\n")


async def _stream(
    client: "AsyncOpenAI", model: str, played: Round, started: float, show: Show
) -> None:
    words: list[str] = []
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=96,
        temperature=0.2,
        seed=7,
        stream=True,
    )
    async for chunk in stream:
        text = chunk.choices[0].delta.content if chunk.choices else None
        if not text:
            continue
        if not words:
            played.first_token_s = time.monotonic() - started
        words.append(text)
        show(escape(text))
    played.answer = "".join(words)


async def _find_receipt(hanse: Hanse) -> StoredReceipt:
    (stored,) = await hanse.get_receipts(limit=1)
    if stored.verification is not Verification.VERIFIED or stored.request_id is None:
        raise InvariantError(
            "internal_error", f"the receipt is {stored.verification}: {stored.reason}"
        )
    return stored


async def _show_evidence(
    network: LocalNetwork, hanse: Hanse, stored: StoredReceipt, played: Round, show: Show
) -> None:
    assert stored.request_id is not None
    document = await hanse.export_receipt(stored.request_id)
    path = network.home / "receipts" / f"{stored.request_id[2:14]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))
    verified = verify_receipt_file(path)  # offline: from the file alone
    played.receipt = document["receipt"]
    voucher, receipt = verified.voucher.voucher, verified.receipt.receipt
    units = network.network.units
    name = get_provider_name(network, receipt.provider)
    show(
        "\n[bold]2. Voucher[/], signed by the gateway's session key\n"
        f"   to {name} {receipt.provider}\n"
        f"   up to {units.format(voucher.cumulative_max)} in all, "
        f"over {voucher.sequence_max} request(s)\n"
        f"   for request {voucher.request_hash}\n"
        f"   signature {_shorten(verified.voucher.signature)}\n"
    )
    usage = receipt.usage
    show(
        "\n[bold]3. Receipt[/], signed by the provider's receipt key\n"
        f"   sequence {receipt.sequence}: {usage.input_tokens} tokens in, "
        f"{usage.cached_tokens} from cache, {usage.output_tokens} out, "
        f"{receipt.finish_reason.name.lower()}\n"
        f"   fee {units.format(receipt.fee)}, cumulative {units.format(receipt.cumulative_fee)}\n"
        f"   response {receipt.response_hash}, equal to what was received\n"
        f"   signature {_shorten(verified.receipt.signature)}\n"
        f"   checked offline: hanse receipts verify {path}\n"
    )


async def _settle(
    network: LocalNetwork, hanse: Hanse, provider: Address, played: Round, show: Show
) -> None:
    due = sum(p.amount for p in (await hanse.read_money()).places if p.place == "accrued")
    name = get_provider_name(network, provider)
    settled = await network.run_command("settle", "--name", name)
    paid = int(settled["paid"])
    if not 0 < paid <= due:
        raise InvariantError("internal_error", f"settled {paid} of {due} due")
    batch = settled["batches"][-1]
    played.transactions["settlement"] = batch["transaction_hash"]
    show(
        f"\n[bold]4. Settlement[/] by {name}: {network.network.units.format(paid)} paid\n"
        f"   transaction {batch['transaction_hash']}, block {batch['block_number']}, "
        f"{batch['gas_used']} gas\n"
    )


async def _refund(
    network: LocalNetwork, hanse: Hanse, served: Address, played: Round, show: Show
) -> None:
    """Take back half of what no provider earned, at one that served nothing where there is one.

    The other half stays, so that the gateway has where to go when the first provider is stopped.
    """
    money = await hanse.read_money()
    honest = {network.get_key(plan.name).address for plan in network.plans}
    free = [p for p in _list_free(hanse, money) if p.amount and p.provider in honest]
    place = ([p for p in free if p.provider != served] or free)[0]
    amount = (place.amount + 1) // 2
    asked = await hanse.account.request_refund(place.provider, amount)
    await network.node.advance_time(LOCK_TIME_S + 1)
    completed = await _complete_refund(hanse, place.provider, asked)
    drawn = await hanse.account.withdraw(amount)
    played.transactions |= {
        "refund_requested": asked.transaction_hash,
        "refund_completed": completed,
        "withdrawn": drawn.transaction_hash,
    }
    show(
        f"\n[bold]5. Refund[/] of {network.network.units.format(amount)} that "
        f"{get_provider_name(network, place.provider)} did not earn\n"
        f"   asked     {asked.transaction_hash}\n"
        f"   completed {completed}, after the lock time of {LOCK_TIME_S // 3600} h\n"
        "   (only a local chain's clock can be moved: this one's was, by that hour)\n"
        f"   withdrawn {drawn.transaction_hash}\n"
    )


async def _complete_refund(hanse: Hanse, provider: Address, asked: OutboxEntry) -> Hash32:
    """Complete the refund, unless the provider's broker was faster; returns the transaction."""
    try:
        return (await hanse.account.claim_refund(provider)).transaction_hash
    except ChainError as error:
        if error.reason != "no refund":
            raise
    deadline_s = time.monotonic() + REFUND_WAIT_S
    while time.monotonic() < deadline_s:
        journal = (await hanse.read_money()).journal
        for entry in journal:
            of_this = entry.name == "RefundClaimed" and entry.provider == provider
            if of_this and entry.block_number > (asked.block_number or 0):
                return entry.transaction_hash
        await asyncio.sleep(0.1)
    raise InvariantError("internal_error", f"no refund waits with {provider}, and none was paid")


async def _record(network: LocalNetwork, stored: StoredReceipt, played: Round, show: Show) -> None:
    """The inclusion proof of the receipt, in the user's books by now, and the root on the chain."""
    request_id = str(stored.request_id)
    wait = ("--wait", str(int(RECORD_WAIT_S)))
    document = await network.run_command("receipts", "prove", request_id, *wait)
    path = network.home / "receipts" / f"{request_id[2:14]}-record.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))
    checked = await network.run_command("receipts", "verify", str(path), "--chain")
    proof = document["proof"]
    commit = proof["commit"]
    if checked["on_chain"] is not True or checked["root"] != commit["root"]:
        raise InvariantError("internal_error", f"the root {commit['root']} is not on the chain")
    played.record = proof
    played.transactions["recorded"] = proof["transaction_hash"]
    show(
        "\n[bold]6. Record[/]: both sides submitted the receipt, and the recorder's root has it\n"
        f"   root {commit['root']}\n"
        f"   commit {commit['number']} of {proof['recorder']} over {commit['count']} receipt(s), "
        f"place {proof['index']}\n"
        f"   transaction {proof['transaction_hash']}, block {proof['block_number']}\n"
        f"   checked against the chain: hanse receipts verify {path} --chain\n"
    )


def _render(
    network: LocalNetwork, rows: list[tuple[str, str, int]], minted: int
) -> "RenderableType":
    units = network.network.units
    return network.session.output.table(
        ("holder", "place", f"{units.symbol}>"),
        [(who, place, units.format_number(amount)) for who, place, amount in rows if amount],
        title="Where every unit is",
        footer=("all that was ever minted", "", units.format_number(minted)),
    )


def _shorten(signature: str) -> str:
    return f"{signature[:14]}...{signature[-8:]}"


def create_api_key_path(home: Path) -> Path:
    """Where the local application's API key lies (mode 0600)."""
    return home / "api-key"


async def get_api_key(network: LocalNetwork) -> str:
    """The local application's API key, issued on first use."""
    path = create_api_key_path(network.home)
    if not path.exists():
        made = await network.run_command(
            "gateway", "keys", "create", f"local-{secrets.token_hex(2)}"
        )
        path.touch(mode=0o600)
        path.write_text(made["api_key"])
    return path.read_text().strip()
