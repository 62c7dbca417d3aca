"""`hanse up`: a whole network on this machine, and one paid answer, shown to its settlement."""

import asyncio
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.output import Output, clean
from hanse.cli.session import LOCAL_PASSWORD, Session

if TYPE_CHECKING:
    from hanse.cli.first_round import Round, Show
    from hanse.cli.local_network import ChildProcess, LocalNetwork, ProviderPlan
    from hanse.protocol.signatures import Hash32

GATEWAY_PORT = 8440
"""Where applications find the local gateway; another one is taken, and said, if it is in use."""

MODEL = "smollm2-135m-instruct"


@command(
    "up",
    short_help="Start a whole network on this machine and buy one answer.",
    examples=(
        ("Start, buy one answer, stay until Ctrl-C", "hanse up"),
        ("Only the round; non-zero if any step failed", "hanse up --once"),
        ("A second network beside the first", "hanse up --home /tmp/other --port 8450"),
    ),
)
@click.option("--once", is_flag=True, help="Stop after the round instead of staying.")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=GATEWAY_PORT,
    show_default=True,
    help="The gateway's port; a free one is taken if it is in use.",
)
@pass_session
async def up(session: Session, /, once: bool, port: int) -> None:
    """Start chain, contracts, a recorder, two providers and a gateway; buy one real answer.

    Then a third provider, made to cheat, sells one: the user's own audit catches it, the gateway
    bars it, a panel of auditors judges, and its stake is slashed. Afterwards it stays out.

    Everything is real but the money: a local chain (anvil), the contracts, a language model in each
    provider's engine, an unmodified OpenAI client. The asset is a test asset. State stays in the
    home folder; the next start resumes it.
    """
    from hanse.cli.local_network import LocalNetwork

    started = time.monotonic()
    steps = Steps(session)
    network = LocalNetwork(session.home, _get_plans(), gateway_port=port, say=steps.say)
    async with contextlib.AsyncExitStack() as stack:
        with steps.step("local chain and contracts"):
            await stack.enter_async_context(network)
        with steps.step("recorder"):
            await network.start_recorder()
        await _prepare_model(session, steps)
        with steps.step("two providers, the model loaded in each"):
            await network.start_providers()
        played = await _play(session, network, steps, started)
        _show_end(session, network, played, once)
        if not once:
            await _stay(network, session.output)
            session.output.note("\nstopping ...")
    session.output.note("Stopped. The state is kept: the next start resumes it.")


class Steps:
    """Says what is being done and how long it took.

    A live line on a terminal, plain lines in a pipe.
    """

    def __init__(self, session: Session) -> None:
        self._output = session.output
        self._status: Any = None

    def say(self, text: str) -> None:
        """A line on what takes time within a step."""
        if self._status is not None:
            self._status.update(f"{text} ...")
        else:
            self._output.note(f"  {text} ...")

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One step, timed."""
        started = time.monotonic()
        with self._output.wait(f"{what} ...") as status:
            self._status = status if hasattr(status, "update") else None
            try:
                yield
            finally:
                self._status = None
        self._output.note(f"{time.monotonic() - started:6.1f} s  {what}")


def _get_plans() -> "list[ProviderPlan]":
    """Two providers with the same model, for chat and embeddings; the second asks twice as much."""
    from hanse.cli.local_network import ProviderPlan

    settings = {"parallel": "2", "context_tokens": "2048"}
    return [
        ProviderPlan("lubeck", "0.15", "0.60", engine_settings=settings, embeddings_price="0.02"),
        ProviderPlan("hamburg", "0.30", "1.20", engine_settings=settings, embeddings_price="0.04"),
    ]


async def _prepare_model(session: Session, steps: Steps) -> None:
    """Requantise the packaged model once, with a bar; from then on it is in the cache."""
    from hanse.engines.gguf_files import find_packaged_model, prepare_q4_0

    source = find_packaged_model()
    if not sys.stderr.isatty() or session.output.as_json:
        with steps.step("model, requantised once"):
            await asyncio.to_thread(prepare_q4_0, source, session.home / "cache")
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = session.output.console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("model: SmolLM2-135M to Q4_0, once", total=1.0)

        def progress(what: str, part: float | None) -> None:
            bar.update(task, description=f"model: {what}", completed=part or 0.0)

        await asyncio.to_thread(prepare_q4_0, source, session.home / "cache", progress)


async def _play(session: Session, network: "LocalNetwork", steps: Steps, started: float) -> "Round":
    from hanse.cli.first_round import fund_user, get_api_key, play_round, show_places
    from hanse.cli.local.cast import CHEAT, is_condemned
    from hanse.cli.local.cheat_round import play_cheat, show_out
    from hanse.cli.local.panel import hasten
    from hanse.cli.local.preparing import prepare_cheat

    is_out = await is_condemned(network)
    with steps.step("sub-accounts of the user, one transaction"):
        opened = await fund_user(network)
    with steps.step("gateway"):
        api_key = await get_api_key(network)
        await network.start_gateway("--audit")
    show = _make_show(session)
    preparing: list[asyncio.Task[frozenset[Hash32]]] = []
    known: frozenset[Hash32] = frozenset()

    def prepare() -> None:
        if not is_out:
            preparing.append(asyncio.create_task(prepare_cheat(network, MODEL)))

    try:
        played = await play_round(
            network, api_key, MODEL, started=started, show=show, after_answer=prepare
        )
        if preparing:
            with steps.step("a third provider, which cheats, and three auditors"):
                known = await preparing[0]
                is_out = await is_condemned(network)  # by what an earlier start had left open
    finally:
        for task in preparing:
            task.cancel()
    if opened:
        played.transactions["opened"] = opened
    if is_out:
        show_out(network, played.cheat, show)
    else:
        async with hasten(network):
            await fund_user(network, CHEAT)
            await play_cheat(network, api_key, MODEL, known, played.cheat, show)
        for name in ("watcher", CHEAT):  # neither has anything to do any more
            await network.stop_process(name)
    await show_places(network, played, show)
    return played


def _make_show(session: Session) -> "Show":
    console = session.output.console()
    console.print() if not session.output.as_json else None

    def show(what: Any) -> None:
        if session.output.as_json:
            return
        # words of the answer come one by one; everything else ends its own lines
        if isinstance(what, str):
            console.print(clean(what), end="", highlight=False, soft_wrap=True)
        else:
            console.print(what, highlight=False, soft_wrap=True)

    return show


def _show_end(session: Session, network: "LocalNetwork", played: "Round", once: bool) -> None:
    document = {
        "first_token_s": round(played.first_token_s, 2),
        "answer": played.answer,
        "receipt": played.receipt,
        "record": played.record,
        "transactions": played.transactions,
        "cheat": played.cheat,
        "places": [
            {"holder": holder, "place": place, "amount": str(amount)}
            for holder, place, amount in played.places
        ],
        "minted": str(played.minted),
        "gateway": network.gateway_url,
    }
    session.output.show(document, lambda: None if once else _describe_use(network))


def _describe_use(network: "LocalNetwork") -> str:
    from hanse.cli.first_round import create_api_key_path

    key, home = create_api_key_path(network.home), network.home
    message = '{"role": "user", "content": "Hello!"}'
    body = f'{{"model": "{MODEL}", "messages": [{message}], "max_tokens": 64}}'
    texts = f'{{"model": "{MODEL}", "input": ["Hello!", "Moin!"]}}'
    headers = f"-H \"Authorization: Bearer $(cat {key})\" -H 'Content-Type: application/json'"
    # a name that the shell finds, also in a checkout whose environment is not active
    program = "hanse" if shutil.which("hanse") else sys.argv[0]
    variables = f"HANSE_HOME={home} HANSE_PASSWORD_FILE={home / LOCAL_PASSWORD}"
    return (
        f"\nThe network is up. Ask it yourself, from another terminal:\n\n"
        f"  curl {network.gateway_url}/chat/completions {headers} -d '{body}'\n"
        f"  curl {network.gateway_url}/embeddings {headers} -d '{texts}'\n\n"
        f"Or with the commands, which find network and keys here:\n\n"
        f"  export {variables}\n"
        f'  {program} chat --signer gateway --max-tokens 60 "Hello!"\n'
        f"  {program} money\n\n"
        f"  logs: {home / 'logs'}    stop: Ctrl-C\n"
    )


async def _stay(network: "LocalNetwork", output: Output) -> None:
    """Until Ctrl-C, SIGTERM, or the end of the gateway or of the last provider.

    A market outlives one of its providers: its end is told (with `--json` as a line on standard
    error), and whoever asks goes to the other.

    Raises:
        TransientError: nothing can be bought here any more.
    """
    from hanse.protocol.errors import TransientError

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waits = {
        asyncio.create_task(child.process.wait()): child for child in network.processes.values()
    }
    stopped = asyncio.create_task(stop.wait())
    try:
        while True:
            done, _ = await asyncio.wait([stopped, *waits], return_when=asyncio.FIRST_COMPLETED)
            if stopped in done:
                return
            ended = [waits.pop(task) for task in list(waits) if task in done]
            said = ", ".join(
                f"{child.name} ended with {child.process.returncode} (log: {child.log_path})"
                for child in ended
            )
            left = [child.name for child in waits.values()]
            if "gateway" not in left or not {*left} - {"gateway", "recorder"}:
                raise TransientError(
                    "engine_unavailable", f"{said}; the network was stopped, `hanse up` resumes it"
                )
            output.event(
                {"ended": [_describe_end(child) for child in ended], "left": left},
                f"{said}; {', '.join(left)} go on. To have it back: Ctrl-C, then hanse up",
            )
    finally:
        for task in (stopped, *waits):
            task.cancel()


def _describe_end(child: "ChildProcess") -> dict[str, Any]:
    code, log = child.process.returncode, str(child.log_path)
    return {"process": child.name, "exit_code": code, "log": log}
