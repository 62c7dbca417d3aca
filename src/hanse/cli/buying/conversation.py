"""The conversation of `hanse chat`: one answer, or a series at a terminal.

Ctrl-C during an answer hangs up and waits for the receipt of what had been delivered, so that the
charge can be told. At the prompt of a conversation Ctrl-C or Ctrl-D ends it.
"""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import click

from hanse.cli.buying.moves import get_provider
from hanse.cli.buying.wallet import get_settings
from hanse.cli.network import Network, load_network
from hanse.cli.session import Session
from hanse.cli.tracing.encryption import keep_traces_of_user
from hanse.market import Needs
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.wire import receipt_to_json
from hanse.sdk import Hanse
from hanse.sdk.completion import CompletionStream
from hanse.sdk.purchase.answer import Answer

CHARGE_WAIT_S = 15.0
"""After Ctrl-C: brokers notice within a second, and resume asks again for about ten."""

RECEIPTS_SEARCHED = 50
"""Newest receipts among which a cut answer's is looked for; it is among the first."""


class InterruptedAnswerError(Exception):
    """The person pressed Ctrl-C during an answer."""


@dataclass
class Turn:
    """One question and what came of it."""

    answer: Answer
    text: str = ""
    receipt: SignedReceipt | None = None
    verification: str = ""
    is_cut: bool = False


@dataclass
class Conversation:
    """What goes with every question."""

    session: Session
    network: Network
    hanse: Hanse
    model: str
    needs: Needs
    parameters: dict[str, Any]
    messages: list[dict[str, str]] = field(default_factory=list)

    async def ask(self, text: str) -> Turn:
        """Ask one question and stream its answer.

        Raises:
            HanseError: nobody serves it, money is short, or what came does not verify.
        """
        self.messages.append({"role": "user", "content": text})
        body = {
            "model": self.model,
            "messages": self.messages,
            "stream": True,
            **self.parameters,
        }
        answer = await self.hanse.request("/v1/chat/completions", body, self.needs)
        turn = Turn(answer)
        try:
            await _stop_on_interrupt(self._receive(turn))
        except InterruptedAnswerError:
            turn.is_cut = True
        finally:
            await answer.close()
        if answer.receipt is not None:
            turn.receipt = answer.receipt.signed
            turn.verification = answer.receipt.verification.value
        elif turn.is_cut:
            await self._find_charge(turn)
        self.messages.append({"role": "assistant", "content": turn.text})
        return turn

    def show(self, turn: Turn) -> None:
        """Say who served it and what it cost."""
        units, receipt = self.network.units, turn.receipt
        if receipt is None:
            charge = (
                "no receipt yet; at most "
                f"{units.format(turn.answer.voucher.request.maximum_fee)}, see: hanse receipts list"
            )
        else:
            usage = receipt.receipt.usage
            charge = (
                f"{usage.input_tokens + usage.cached_tokens} tokens in, "
                f"{usage.output_tokens} out, {units.format(receipt.receipt.fee)}"
            )
        cut = "stopped; " if turn.is_cut else ""
        self.session.output.write("" if turn.text.endswith("\n") else "\n")
        self.session.output.note(f"{cut}{self.model} by {turn.answer.provider}: {charge}")

    def to_document(self, turn: Turn) -> dict[str, Any]:
        """One answer as a JSON document."""
        return {
            "text": turn.text,
            "model": self.model,
            "provider": turn.answer.provider,
            "request_id": turn.answer.request_id,
            "maximum_fee": str(turn.answer.voucher.request.maximum_fee),
            "fee": str(turn.receipt.receipt.fee) if turn.receipt else None,
            "is_cut": turn.is_cut,
            "verification": turn.verification,
            "receipt": receipt_to_json(turn.receipt) if turn.receipt else None,
        }

    async def _receive(self, turn: Turn) -> None:
        async for text in CompletionStream(turn.answer).texts():
            turn.text += text
            self.session.output.write(text)

    async def _find_charge(self, turn: Turn) -> None:
        self.session.output.note("\nstopping; asking what was delivered ...")
        try:
            async with asyncio.timeout(CHARGE_WAIT_S):
                await self.hanse.wait_idle()
        except TimeoutError:
            return
        for stored in await self.hanse.get_receipts(limit=RECEIPTS_SEARCHED):
            if stored.request_id == turn.answer.request_id:
                turn.receipt, turn.verification = stored.signed, stored.verification.value


async def converse(session: Session, text: str | None, options: dict[str, Any]) -> None:
    """Answer one text, or talk until the input ends.

    Raises:
        KeyboardInterrupt: the one answer was stopped; its charge has been told.
        HanseError: see `Conversation.ask`.
    """
    network = load_network(session.home)
    settings = get_settings(
        session,
        network,
        options["key"],
        signer=options["signer"],
        use_keyring=options["keyring"],
    )
    settings = keep_traces_of_user(session, options, settings)
    async with contextlib.AsyncExitStack() as stack:
        with session.output.wait("asking chain and brokers ..."):
            hanse = await stack.enter_async_context(Hanse.open(settings))
        talk = Conversation(
            session,
            network,
            hanse,
            options["model"] or _choose_model(hanse),
            _get_needs(session, network, options),
            _get_parameters(options),
        )
        if options["system"]:
            talk.messages.append({"role": "system", "content": options["system"]})
        if text is None:
            await _talk(talk)
            return
        turn = await talk.ask(text)
        talk.show(turn)
        session.output.show(talk.to_document(turn), lambda: None)
    if turn.is_cut:
        raise KeyboardInterrupt


async def _talk(talk: Conversation) -> None:
    talk.session.output.note(f"{talk.model}; Ctrl-C stops an answer, Ctrl-D ends.")
    while True:
        line = await _read_line()
        if line is None:
            return
        if line.strip():
            talk.show(await talk.ask(line))


async def _read_line() -> str | None:
    """A line of standard input, None at its end."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str] = loop.create_future()

    def hand_over(line: str) -> None:
        if not found.done():
            found.set_result(line)

    def read() -> None:
        line = sys.stdin.readline()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(hand_over, line)

    sys.stderr.write("> ")
    sys.stderr.flush()
    # a daemon, since a thread of the loop's own would keep Ctrl-C waiting for the next line
    threading.Thread(target=read, daemon=True).start()
    line = await found
    return line.rstrip("\n") if line else None


async def _stop_on_interrupt(work: Awaitable[None]) -> None:
    """Run the work; Ctrl-C cancels it alone, so that what it cost can still be asked."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not interrupted:
            task.cancel()
            raise
        raise InterruptedAnswerError from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def _choose_model(hanse: Hanse) -> str:
    models = sorted(
        {
            found.listed.offer.model
            for found in hanse.get_offers()
            if found.listed.offer.service_type == "chat"
        }
    )
    if not models:
        raise RequestError("model_not_found", "no provider offers a chat model")
    if len(models) > 1:
        raise click.UsageError(f"Choose a model with -m: {', '.join(models)}")
    return models[0]


def _get_needs(session: Session, network: Network, options: dict[str, Any]) -> Needs:
    max_fee = options["max_fee"]
    return Needs(
        max_fee=network.units.parse(max_fee) if max_fee is not None else None,
        providers=frozenset(get_provider(session, text) for text in options["provider"]),
    )


def _get_parameters(options: dict[str, Any]) -> dict[str, Any]:
    names = {"max_tokens": "max_completion_tokens", "temperature": "temperature", "seed": "seed"}
    return {name: options[key] for key, name in names.items() if options[key] is not None}
