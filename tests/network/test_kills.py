"""Kill -9 of broker, gateway and application at many points of a streamed request.

After each kill what was killed is started again; then both books and the chain must tell the same
story: nothing is open, the charge is the delivered prefix or 0, no unit is lost, and the next
request is served.
"""

import asyncio
import contextlib
import itertools
import json
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hanse.cli.control import ask_control
from hanse.cli.first_round import open_user
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import FinishReason
from tests.network.books import (
    ProviderSide,
    read_provider,
    read_units,
    wait_agreed,
)
from tests.network.market import (
    ROOT,
    TOKEN_DELAY_S,
    TOKENS,
    Market,
    buy_again,
    stream_words,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

SELLERS = ("wismar", "rostock")
STREAM_S = TOKENS * TOKEN_DELAY_S
POINTS = 10
"""Moments of each sweep: from the request's sending on, over the stream, to after its end."""

AFTER_END = -1.0
MOMENTS_S = [round(STREAM_S * point / (POINTS - 2), 3) for point in range(POINTS - 1)] + [AFTER_END]

GATEWAY_OPTIONS = ("--turns-max", "0", "--market-wait-s", "0")
"""A gateway that takes no answer to a second provider: each kill is one provider's alone. How it
goes on elsewhere is tested beside it, in tests/gateway/faults."""

_numbers = itertools.count(1)


@dataclass
class Purchase:
    """One streamed request whose path somebody is killed on."""

    model: str
    prompt: str
    before: ProviderSide
    words: list[str] = field(default_factory=list)
    outcome: str = ""


def begin_purchase(market: Market, name: str) -> tuple[Purchase, "asyncio.Task[str]"]:
    """A request with words that no other request has, so that its answer can be told."""
    number = next(_numbers)
    purchase = Purchase(
        market.get_plan(name).model,
        " ".join(f"r{number}w{index}" for index in range(TOKENS)),
        read_provider(market, name),
    )
    answer = stream_words(market.client, purchase.model, purchase.prompt, purchase.words)
    return purchase, asyncio.create_task(answer)


def find_receipt(after: ProviderSide, purchase: Purchase) -> Any | None:
    """What was receipted since the purchase began: its receipt, or None if never admitted."""
    new = after.receipts[purchase.before.sequence :]
    assert len(new) <= 1
    return new[0] if new else None


async def wait_moment(moment_s: float, *answers: "asyncio.Task[str]") -> None:
    """A sweep's points are moments in time; only its last one is an event."""
    if moment_s == AFTER_END:
        await asyncio.wait(answers)
    else:
        await asyncio.sleep(moment_s)


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Several victims at a time; the first failure stops the others."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


async def fetch_words(market: Market, name: str, receipt: Any) -> list[str]:
    """The words of the answer that the receipt is for, as the broker keeps it for the payer."""
    request_id = read_provider(market, name).get_request_id(receipt)
    async with open_user(market.network) as hanse:
        kept = await hanse.fetch_answer(request_id)
    assert (kept.is_whole, kept.is_verified) == (True, True)
    return get_words(kept.body)


def get_words(body: bytes) -> list[str]:
    words = []
    for frame in body.split(b"\n\n"):
        if frame.startswith(b"data: {"):
            for choice in json.loads(frame[6:])["choices"]:
                words += choice["delta"].get("content", "").split()
    return words


async def verify_purchase(market: Market, name: str, purchase: Purchase) -> str:
    """The charge is what was delivered, or 0; says which."""
    receipt = find_receipt(await wait_agreed(market, name), purchase)
    got = purchase.words
    if receipt is None:
        assert got == []
        return "never admitted"
    if receipt.fee == 0:
        assert receipt.finish_reason in (FinishReason.ERROR, FinishReason.CANCELLED)
        assert receipt.usage.output_tokens == 0
        assert "end" not in purchase.outcome or len(got) == TOKENS
        return "nothing"
    delivered = await fetch_words(market, name, receipt)
    assert set(delivered) <= set(purchase.prompt.split())
    assert receipt.usage.output_tokens == len(delivered)
    assert got == delivered[: len(got)]
    if purchase.outcome == "ended":
        assert got == delivered
    if receipt.finish_reason is FinishReason.CANCELLED:
        return "prefix"
    assert len(delivered) == TOKENS
    return "whole"


# the broker


UNSEEN = {"never admitted", "nothing"}
"""No byte has left: whether the voucher is on disk yet is the store's affair, and nobody's loss."""

STEPS = [
    ("admitting", {"never admitted"}),  # before the voucher is in the book
    ("admitted", UNSEEN),  # after it, before the engine begins
    ("frame:1", {"nothing"}),  # the first frame is with the network
    (f"frame:{TOKENS // 2}", {"nothing"}),  # mid-stream
    (f"frame:{TOKENS}", {"nothing"}),  # every word is out
    ("finishing", {"nothing"}),  # and the receipt about to be stored
    ("finished", {"whole"}),  # it is stored, and the end is not sent
]


async def test_broker_killed_at_every_step(market):
    """Exactly there, in the process itself; another process of the user's side resumes."""

    async def kill_at(name: str, steps: list[tuple[str, set[str]]]) -> None:
        for failpoint, charged in steps:
            dying = await market.start_crashing(name, failpoint)
            purchase = await buy_until_dead(market, name, dying)
            await market.restart_provider(name)
            async with open_user(market.network):  # asks for what is missing, as it opens
                found = await verify_purchase(market, name, purchase)
                assert found in charged, failpoint
        await buy_again(market, market.get_plan(name).model)

    await together(kill_at("wismar", STEPS[::2]), kill_at("rostock", STEPS[1::2]))
    await read_units(market)


async def buy_until_dead(market, name, dying):
    """A gateway that has just met a dead broker asks it again after a pause: keep asking."""

    async def is_dead() -> Purchase | None:
        purchase, answer = begin_purchase(market, name)
        purchase.outcome = await answer
        if not purchase.words and dying.process.returncode is None:
            assert purchase.outcome in ("cut", "refused")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(dying.process.wait(), 0.1)
        else:
            await asyncio.wait_for(dying.process.wait(), 10)
        return None if dying.process.returncode is None else purchase

    purchase = await until(is_dead, 60, f"{name} kills itself")
    assert dying.process.returncode == -signal.SIGKILL
    # a gateway that has every token which was asked for ends the answer itself
    assert purchase.outcome in ("cut", "refused") or len(purchase.words) == TOKENS, purchase
    return purchase


async def test_broker_killed_at_any_moment(market):
    """A sweep over the stream's time with the real command; the gateway finds out by itself."""
    seen = []

    async def sweep(name: str, moments: list[float]) -> None:
        for moment_s in moments:
            await buy_again(market, market.get_plan(name).model)
            await wait_agreed(market, name)
            purchase, answer = begin_purchase(market, name)
            await wait_moment(moment_s, answer)
            await market.end(name)
            purchase.outcome = await answer
            await market.restart_provider(name)
            seen.append((moment_s, purchase.outcome, await verify_purchase(market, name, purchase)))
        await buy_again(market, market.get_plan(name).model)

    await together(sweep("wismar", MOMENTS_S[::2]), sweep("rostock", MOMENTS_S[1::2]))
    assert len(seen) == POINTS
    # a dead broker's streams cost nothing, unless their receipt was stored: never a prefix
    assert {charged for _, _, charged in seen} <= {"never admitted", "nothing", "whole"}, seen
    assert "nothing" in {charged for _, _, charged in seen}, seen
    await read_units(market)


# the gateway


async def test_gateway_killed_at_any_moment(market):
    """Two streams from two providers at each kill; the broker receipts what it had handed over."""
    seen = []
    for moment_s in MOMENTS_S:
        begun = {name: begin_purchase(market, name) for name in SELLERS}
        await wait_moment(moment_s, *(answer for _, answer in begun.values()))
        await market.end("gateway")
        for name in SELLERS:
            purchase, answer = begun[name]
            purchase.outcome = await answer
        await market.restart_gateway(*GATEWAY_OPTIONS)
        for name in SELLERS:
            purchase, _ = begun[name]
            charged = await verify_purchase(market, name, purchase)
            seen.append((moment_s, purchase.outcome, charged))
    for name in SELLERS:
        await buy_again(market, market.get_plan(name).model)
        await wait_agreed(market, name)
    assert {"prefix", "whole"} <= {charged for _, _, charged in seen}, seen
    await read_units(market)


# the application


async def test_application_killed_at_any_word(market, tmp_path):
    """What it had written down is a prefix of what was receipted, and nothing else is charged."""
    name = "wismar"
    chosen = market.get_plan(name)
    # five times slower than elsewhere: the streams must overlap on a busy machine too
    settings = {**chosen.engine_settings, "token_delay_s": str(5 * TOKEN_DELAY_S)}
    await market.end(name)
    await market.network.start_provider(replace(chosen, engine_settings=settings))
    await buy_again(market, chosen.model)
    before = await wait_agreed(market, name)
    victims = [
        await start_recorder(market, name, tmp_path / f"words{count}", count)
        for count in (0, 0, 1, 2, 4, 6, 8, 10, 12, 14, TOKENS)
    ]
    await asyncio.gather(*(victim.run() for victim in victims))

    after = await wait_agreed(market, name)
    answers, gone = [], 0
    for receipt in after.receipts[before.sequence :]:
        if receipt.usage.output_tokens:
            try:
                answers.append(await fetch_words(market, name, receipt))
            except HanseError as error:
                # On a busy machine some end before others begin, whose vouchers acknowledge them.
                if "it was acknowledged" not in error.message:
                    raise
                gone += 1
    assert len(answers) > 4, "too few of the streams overlapped to say anything"
    lengths, unmatched = set(), gone
    for victim in victims:
        mine = [words for words in answers if set(words) <= set(victim.prompt.split())]
        assert len(mine) <= 1
        recorded = victim.read_words()
        assert len(recorded) >= victim.kill_after
        if recorded and not mine:
            unmatched -= 1
            assert unmatched >= 0, "words were delivered that nobody receipted"
            continue
        assert recorded == (mine[0][: len(recorded)] if mine else [])
        lengths.add(len(mine[0]) if mine else 0)
    assert len(lengths) > 3, f"the kills did not spread over the stream: {lengths}"
    receipted = sum(r.usage.output_tokens for r in after.receipts[before.sequence :])
    read = sum(len(words) for words in answers)
    assert receipted == read or (gone and receipted > read)
    await market.restart_provider(name)
    await buy_again(market, market.get_plan(name).model)
    await read_units(market)


@dataclass
class Recorder:
    """A process with an OpenAI client, killed once it has written so many words down."""

    process: asyncio.subprocess.Process
    prompt: str
    path: Path
    kill_after: int

    async def run(self) -> None:
        self.process.stdin.write(b"go\n")
        with contextlib.suppress(ConnectionError):
            await self.process.stdin.drain()
        await until(lambda: len(self.read_words()) >= self.kill_after, 60, f"{self.path.name}")
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def read_words(self) -> list[str]:
        lines = self.path.read_text().split("\n") if self.path.exists() else [""]
        return lines[:-1]  # the last one has not been written to its end


async def start_recorder(market: Market, name: str, path: Path, kill_after: int) -> Recorder:
    number = next(_numbers)
    prompt = " ".join(f"r{number}w{index}" for index in range(TOKENS))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.network.recording_client"),
        *(market.network.gateway_url, market.get_plan(name).model, str(path), prompt),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    process.stdin.write(market.api_key.encode() + b"\n")
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
    return Recorder(process, prompt, path, kill_after)


# settlement


async def test_broker_killed_while_it_settles(market):
    """At each step, at many moments, and when its transaction is in a block: paid once, all."""

    async def settle_through(name: str, moments: list[float], steps: list[str]) -> None:
        model = market.get_plan(name).model
        for step in steps:
            await market.end(name)
            dying = await market.start_crashing(name, step)
            await buy_again(market, model)
            with pytest.raises(HanseError):
                await market.network.run_command("settle", "--name", name)
            assert await asyncio.wait_for(dying.process.wait(), 30) == -signal.SIGKILL
            await verify_claimed(market, name)
        await market.restart_provider(name)
        for moment_s in moments:
            await buy_again(market, model)
            settling = ask_to_settle(market, name)
            await asyncio.sleep(moment_s)
            await restart_and_verify(market, name, settling)

        await buy_again(market, model)
        claimed = (await read_units(market)).claimed[name]
        settling = ask_to_settle(market, name)

        async def is_in_a_block() -> bool:
            return (await read_units(market)).claimed[name] > claimed

        await until(is_in_a_block, 30, f"the settlement of {name} is in a block")
        await restart_and_verify(market, name, settling)

        owed = (await wait_agreed(market, name)).fees
        await market.network.run_command("settle", "--name", name)
        units = await read_units(market)
        assert units.provider_wallets[name] == units.claimed[name] == owed
        again = await market.network.run_command("settle", "--name", name)
        assert again == {"batches": [], "paid": "0"}

    await together(
        settle_through("wismar", [0.0, 0.1, 0.3, 0.6], ["settling"]),
        settle_through("rostock", [0.05, 0.2, 0.4], ["settle_enqueued", "settle_confirmed"]),
    )
    money = await market.network.run_command("money")
    assert money["differences"] == []


def ask_to_settle(market: Market, name: str) -> "asyncio.Task[Any]":
    """What `hanse settle` asks of a running broker, without the command's own start."""
    return asyncio.create_task(ask_control(market.network.home / name, {"do": "settle"}))


async def restart_and_verify(market: Market, name: str, settling: "asyncio.Task[Any]") -> None:
    await market.end(name)
    with contextlib.suppress(HanseError):  # it may have ended before the kill
        await settling
    await market.restart_provider(name)
    await verify_claimed(market, name)


async def verify_claimed(market: Market, name: str) -> None:
    """Never more than what was receipted, and every unit is somewhere."""
    units = await read_units(market)
    assert units.claimed[name] <= read_provider(market, name).fees
