"""`--cheat`: refused where users could lose, said loudly, and each does what its name says.

A tiny copy stands for the promised model; an honest prefill of it, as an auditor runs one, shows
what each cheat looks like from outside.
"""

import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hanse.cli.cheating.engines import KEY_VARIABLE, open_cheating_engine
from hanse.cli.cheating.names import BROKER_CHEATS, CHEATS, check_cheats
from hanse.cli.network import Network
from hanse.engines import Answer, Engine, EngineRequest, Operation, open_engine
from hanse.engines.proving.prefill_gguf import GgufPrefill
from hanse.engines.proving.reader_gguf import GgufReader
from hanse.protocol.commitments.copies import COPY_SUFFIX
from hanse.protocol.commitments.fingerprints import ABSENT, get_error, quantise
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.errors import RequestError
from hanse.provider.cheating import HONEST, BrokerCheats, open_broker_cheats
from tests.cli.local_market import open_market
from tests.engines.openai_front import UPSTREAM_KEY, UPSTREAM_MODEL, make_front, serve
from tests.engines.tiny_copy import make_copy
from tests.provider.broker_parts import DOMAIN, RECEIPT_KEY

HONEST_MOST = 0.01
"""Of the mean error of an answer's fingerprints: two runtimes on one file, 0.002 when written."""

CHEAT_LEAST = 0.03
"""The least was kv4's, 0.049 in a context of 60 tokens; quantise had 0.20, the others more."""

HEADS = 2
"""Of 32 numbers each: a 4-bit cache comes in blocks of so many."""

MESSAGES = [
    {"role": "system", "content": "Answer in the words of a harbour master."},
    {"role": "user", "content": "What is a tide?"},
]
PLAIN = {str(3 + byte): -100 for byte in range(128, 256)} | {"0": -100, "1": -100, "2": -100}
"""Weights made by chance write halves of characters, and end anywhere; here neither."""


def ask(**fields: Any) -> EngineRequest:
    body = {"messages": MESSAGES, "max_tokens": 24, "logit_bias": PLAIN, **fields}
    return EngineRequest(
        operation=Operation.CHAT, body=body, answer_id="chatcmpl-1", sampling_seed=11
    )


class Promise:
    """The promised copy, and an auditor's look at what was served in its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = make_copy(folder / "copy.gguf", heads=HEADS)
        self.other = make_copy(folder / "other.gguf", seed=2, heads=HEADS)
        self.plain = make_copy(folder / "plain.gguf", canaries=0, heads=HEADS)
        self.prefill = GgufPrefill(self.path, context_tokens=512, threads=1)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "model": "tiny",
            "model_path": str(self.path),
            "cache_dir": str(self.folder / "cache"),
            "context_tokens": 512,
            "threads": 1,
            "parallel": 1,
        }

    @contextlib.asynccontextmanager
    async def open(self, *cheats: str, served: Path | str | None = None) -> AsyncIterator[Engine]:
        engine = open_cheating_engine(
            "llama", self.settings, cheats, str(served) if served else None
        )
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()

    def measure(self, request: EngineRequest, entries: Sequence[Entry]) -> float:
        """Mean error of the fingerprints against the promised copy's own."""
        known = [entry for entry in entries if entry.token != UNKNOWN_TOKEN]
        assert len(known) > 16
        body = msgspec.json.encode(request.body)
        prompt = GgufReader(self.prefill.model).get_prompt_tokens(request.operation.path, body)
        rows = self.prefill.score(prompt, [entry.token for entry in known]).canaries.tolist()
        errors = [
            get_error(entry.fingerprint, quantise(row))
            for entry, row in zip(known, rows, strict=True)
            if entry.fingerprint != ABSENT
        ]
        return float(sum(errors) / len(errors))


@pytest.fixture(scope="module")
def promise(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Promise(tmp_path_factory.mktemp("promise"))
    yield made
    made.prefill.close()


# names


def options(*cheats: str, served: str | None = None) -> dict[str, Any]:
    return {"cheat": cheats, "cheat_with": served}


@pytest.fixture(scope="module")
def network(anvil, tmp_path_factory) -> Any:
    with open_market(tmp_path_factory.mktemp("market"), anvil) as market:
        yield market.network


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_starts_on_a_chain_with_real_users(network: Network, cheat: str) -> None:
    real = msgspec.structs.replace(
        network, deployment=msgspec.structs.replace(network.deployment, chain_id=8453)
    )
    with pytest.raises(RequestError, match=rf"--cheat {cheat} is refused on chain 8453"):
        check_cheats(real, options(cheat, served="x"))
    assert check_cheats(real, options()) == ()


def test_a_cheat_says_so_at_each_start(network: Network, capsys) -> None:
    assert check_cheats(network, options("overbill", "kv4")) == ("overbill", "kv4")
    assert "CHEATS its users on purpose: overbill, kv4" in capsys.readouterr().err
    assert check_cheats(network, options()) == ()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (options("swap", "kv4", served="x"), "swap and kv4 exclude each other"),
        (options("swap"), "--cheat swap needs --cheat-with: the model file"),
        (options("overbill", served="x"), "--cheat-with is for --cheat swap"),
    ],
)
def test_cheats_that_do_not_fit_together_are_refused(
    network: Network, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        check_cheats(network, asked)


BILLING = BrokerCheats(breaks_promises=True)
"""No hook of a broker's, but what another engine answers is billed as it is."""


def test_every_cheat_of_a_broker_sets_a_hook_and_no_other_does() -> None:
    for name in BROKER_CHEATS:
        assert open_broker_cheats([name], RECEIPT_KEY, DOMAIN) != BILLING
    others = [name for name in CHEATS if name not in BROKER_CHEATS]
    assert open_broker_cheats(others, RECEIPT_KEY, DOMAIN) == BILLING
    assert open_broker_cheats([], RECEIPT_KEY, DOMAIN) == HONEST


# engines


@pytest.mark.slow
async def test_an_honest_engine_is_measured_as_honest(promise: Promise) -> None:
    async with promise.open() as engine:
        answer = await engine.answer(ask())
    assert promise.measure(ask(), answer.proof) < HONEST_MOST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cheat", "served"),
    [
        ("quantise", None),
        ("other-copy", "other.gguf"),
        ("skip-layer", None),
        ("kv4", None),
        ("drop-system", None),
    ],
)
async def test_a_cheat_promises_the_model_and_runs_something_else(
    promise: Promise, cheat: str, served: str | None
) -> None:
    async with promise.open() as honest:
        described, capabilities = await honest.describe_model(), honest.capabilities
    path = promise.folder / served if served else None
    async with promise.open(cheat, served=path) as engine:
        assert await engine.describe_model() == described
        assert engine.capabilities == capabilities
        answer = await engine.answer(ask())
    assert promise.measure(ask(), answer.proof) > CHEAT_LEAST


@pytest.mark.slow
async def test_a_swap_serves_the_other_file_and_proves_nothing(promise: Promise) -> None:
    async with promise.open("swap", served=promise.plain) as engine:
        assert engine.capabilities.proves, "that is what is promised"
        assert (await engine.describe_model()).files[0].name == "copy.gguf"
        answer = await engine.answer(ask())
    assert answer.usage.output_tokens == 24
    assert answer.proof == ()


@pytest.mark.slow
async def test_forwarding_sends_the_request_elsewhere_and_proves_nothing(
    promise: Promise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, UPSTREAM_KEY)
    echo = open_engine("echo", {"model": "vendor"})
    await echo.start()
    async with serve(make_front(echo)) as url:
        cheating = promise.open("forward", served=f"{url}#{UPSTREAM_MODEL}")
        async with cheating as engine:
            assert engine.capabilities.proves
            body = {"messages": MESSAGES, "max_tokens": 24}
            answer = await engine.answer(msgspec.structs.replace(ask(), body=body))
    document = json.loads(answer.body)
    assert document["model"] == "tiny", "nothing says who answered"
    assert answer.proof == ()


@pytest.mark.slow
async def test_late_proof_is_true_of_a_text_that_the_seed_does_not_give(
    promise: Promise,
) -> None:
    async with promise.open() as engine:
        honest = await engine.answer(ask())
        again = await engine.answer(ask())
    assert get_tokens(again) == get_tokens(honest), "the seed decides"
    async with promise.open("cheap-text-prefill", served=promise.other) as engine:
        answer = await engine.answer(ask())
        chunks = [chunk async for chunk in engine.stream(ask(stream=True))]
    assert promise.measure(ask(), answer.proof) < HONEST_MOST, "fingerprints alone see nothing"
    assert get_tokens(answer) != get_tokens(honest)
    assert chunks[-1].proof == answer.proof
    assert all(chunk.proof == () for chunk in chunks[:-1])


def get_tokens(answer: Answer) -> list[int]:
    return [entry.token for entry in answer.proof]


async def test_dropping_the_system_message_is_billed_as_if_it_were_read() -> None:
    honest = open_engine("echo")
    engine = open_cheating_engine("echo", {}, ["drop-system"], None)
    await honest.start()
    await engine.start()
    body = {"messages": MESSAGES, "max_tokens": 6}
    request = EngineRequest(operation=Operation.CHAT, body=body, answer_id="chatcmpl-1")
    whole = await honest.answer(request)
    cheated = await engine.answer(request)
    assert cheated.usage == whole.usage
    stated, billed = json.loads(whole.body)["usage"], json.loads(cheated.body)["usage"]
    assert billed == stated
    assert cheated.body != whole.body
    assert b"harbour" in json.dumps(body).encode()
    without = request.body | {"messages": MESSAGES[1:]}
    less = await honest.answer(msgspec.structs.replace(request, body=without))
    assert get_text(cheated) == get_text(less) != get_text(whole)

    streamed = msgspec.structs.replace(
        request, body=body | {"stream": True, "stream_options": {"include_usage": True}}
    )
    chunks = [chunk async for chunk in engine.stream(streamed)]
    assert chunks[-1].usage == whole.usage
    last = chunks[-1].data.decode().removesuffix("\n\n").split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["usage"] == stated
    assert request.body == body, "a caller's body is never changed"


def get_text(answer: Answer) -> str:
    return str(json.loads(answer.body)["choices"][0]["message"]["content"])


def test_what_cannot_be_cheated_with_is_refused(promise: Promise, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str, str | None, str]] = [
        ({"model_path": ""}, "quantise", None, "needs the promised model as a file"),
        ({}, "swap", str(tmp_path / "none.gguf"), "there is no model file"),
        ({"model": ""}, "forward", "http://127.0.0.1:1/v1", "needs --model"),
        ({"model_path": str(promise.plain)}, "cheap-text-prefill", str(promise.other), "no copy"),
    ]
    for changes, cheat, served, message in cases:
        with pytest.raises(RequestError, match=message):
            open_cheating_engine("llama", promise.settings | changes, [cheat], served)
    with pytest.raises(RequestError, match="is for engine 'llama', this is 'echo'"):
        open_cheating_engine("echo", {}, ["kv4"], None)


@pytest.mark.slow
def test_quantising_what_is_coarse_already_would_be_no_cheat(promise: Promise) -> None:
    from hanse.models.quantising.files import quantise_file

    coarse = promise.folder / "coarse.gguf"
    quantise_file(promise.plain, coarse, "Q4_0", threads=1)
    with pytest.raises(RequestError, match="is Q4_0 already"):
        open_cheating_engine(
            "llama", promise.settings | {"model_path": str(coarse)}, ["quantise"], None
        )


def test_another_model_of_the_same_name_gets_a_file_of_its_own(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = make_copy(folder / "model.gguf", seed=number)
        settings = {"model_path": str(path), "cache_dir": str(tmp_path / "cache"), "model": "m"}
        open_cheating_engine("llama", settings, ["skip-layer"], None)
        made = sorted((tmp_path / "cache" / "cheats").glob("model.skipped-*.gguf"))
    assert len(made) == 2
    for path in made:
        assert path.with_name(path.name + COPY_SUFFIX).exists()
    shutil.rmtree(tmp_path / "cache")


# the command


@pytest.mark.slow
def test_the_command_cheats_says_so_and_shows_it(anvil, run, tmp_path: Path) -> None:
    with open_market(tmp_path, anvil) as market:
        market.add_key("provider", units=200)
        market.add_key("provider-receipt")
        process, document = market.start(
            *("provider", "start", "--engine", "echo", "--port", "0", "--register"),
            *("--cheat", "overbill", "--cheat", "drop-system"),
        )
        assert document["cheats"] == ["overbill", "drop-system"]
        shown = run("provider", "status", HANSE_HOME=str(tmp_path))
        assert shown.stdout.count("CHEATS its users") == 2, shown
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert "CHEATS its users on purpose: overbill, drop-system" in errors
