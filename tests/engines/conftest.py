import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from hanse.engines import Engine, open_engine
from hanse.engines.echo_engine import EchoEngine
from hanse.engines.llama_engine import LlamaEngine
from tests.engines.openai_front import UPSTREAM_KEY, UPSTREAM_MODEL, make_front, serve

# Kept between runs, as requantising takes 5 s; test_gguf_files does it on a file of its own.
MODELS_DIR = Path(__file__).parents[2] / ".cache" / "models"


async def wait_until(condition: Callable[[], Awaitable[bool]], limit_s: float) -> float:
    """Seconds until the condition held; fails after the limit."""
    start = time.monotonic()
    while not await condition():
        assert time.monotonic() - start < limit_s, f"not within {limit_s} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - start


def open_llama(**settings: object) -> LlamaEngine:
    engine = open_engine("llama", {"cache_dir": str(MODELS_DIR), "threads": 2, **settings})
    assert isinstance(engine, LlamaEngine)
    return engine


def open_upstream(base_url: str, key_file: Path, **settings: object) -> Engine:
    key_file.write_text(UPSTREAM_KEY + "\n")
    key_file.chmod(0o600)
    return open_engine(
        "upstream",
        {
            "base_url": base_url,
            "model": "offered-name",
            "upstream_model": UPSTREAM_MODEL,
            "key_file": str(key_file),
            "operations": ["chat/completions", "completions", "embeddings"],
            **settings,
        },
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def llama() -> AsyncIterator[LlamaEngine]:
    engine = open_llama(grammar=True)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def llama_anew() -> AsyncIterator[LlamaEngine]:
    """One slot that reads every prompt anew, so that equal requests are worked out bit for bit.

    What is left of a cached prompt is read in smaller steps than a new one, whose products round
    otherwise: even at temperature 0 a later token may then differ.
    """
    engine = open_llama(grammar=True, parallel=1, shared_cache=False, embeddings=False)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def echo() -> AsyncIterator[EchoEngine]:
    engine = open_engine("echo", {"token_delay_s": 0.002})
    assert isinstance(engine, EchoEngine)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstream_echo(
    echo: EchoEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Engine]:
    async with serve(make_front(echo)) as url:
        engine = open_upstream(
            *(url, tmp_path_factory.mktemp("key") / "key"), output_tokens_max=1_024, choices_max=4
        )
        await engine.start()
        yield engine
        await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstream_llama(
    llama: LlamaEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Engine]:
    async with serve(make_front(llama)) as url:
        engine = open_upstream(
            url,
            tmp_path_factory.mktemp("key") / "key",
            grammar=True,
            tools=False,
            output_tokens_max=2_048,
            embedding_dimensions=576,
            choices_max=4,
        )
        await engine.start()
        yield engine
        await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstream_llama_anew(
    llama_anew: LlamaEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Engine]:
    async with serve(make_front(llama_anew)) as url:
        key_file = tmp_path_factory.mktemp("key") / "key"
        engine = open_upstream(url, key_file, grammar=True, output_tokens_max=2_048)
        await engine.start()
        yield engine
        await engine.close()


@pytest.fixture(scope="session", params=["echo", "upstream_echo", "llama", "upstream_llama"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", params=["llama", "upstream_llama"])
def real_engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)


@pytest.fixture(
    scope="session", params=["echo", "upstream_echo", "llama_anew", "upstream_llama_anew"]
)
def repeatable_engine(request: pytest.FixtureRequest) -> Engine:
    """For tests that hold two answers to the same request equal."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", params=["llama_anew", "upstream_llama_anew"])
def repeatable_real_engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)
