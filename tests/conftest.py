"""Fixtures that several folders share. Keep it lean: what one folder needs stays in that folder."""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from hanse.chain import LocalNode
from tests.store.postgres_server import PostgresServer

# Its 200 ms an example are no promise of ours, and pass on a machine that is busy with others.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
# For tools/mutation.py, which runs a test thousands of times and does not read what it says.
settings.register_profile(
    "mutation", max_examples=25, derandomize=True, phases=(Phase.explicit, Phase.generate)
)


@pytest.fixture(scope="session")
def anvil_cache() -> Path:
    """Where anvil is installed once for all test runs of this checkout."""
    home = os.environ.get("HANSE_HOME")
    return Path(home) if home else Path(__file__).parents[1] / ".hanse"


@pytest.fixture(scope="session")
def anvil(anvil_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of one real EVM node for the whole session (chain id 31337).

    It mines each transaction at once and then, every 20 ms, empty blocks until that is confirmed.
    Tests share the chain: take keys of your own and fund them with `anvil_setBalance`.
    """
    node = LocalNode(tmp_path_factory.mktemp("anvil"), cache_folder=anvil_cache, block_time_s=0.02)
    with asyncio.Runner() as runner:
        url = runner.run(node.start())
        with _background(runner):
            yield url
        runner.run(node.stop())


class _background:  # noqa: N801 (reads as a statement)
    """Keeps a runner's loop turning in a thread, so that the node's pulse goes on during tests."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._loop = runner.get_loop()

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def pytest_configure() -> None:
    """What the processes of tests inherit.

    A shell starts what goes on in the background deaf to Ctrl-C, and every child stays so. Some
    machines forbid Python to keep what it compiled: each of several hundred processes would compile
    everything again.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting makes half a million objects that stay: look among them for garbage at its end.

    Looking took a third of its time, in each worker, and a quarter of a second whenever tests did.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


LONGEST = (
    "tests/network/test_kills",
    "tests/network/test_up",
    "tests/gateway/test_gateway_fuzz",
    "tests/contracts/test_ledger_equals",
    "tests/network/test_hosted",
    "tests/examples/test_verify_receipts",
    "tests/network/test_money",
    "tests/chaos",
    "tests/network",
    "tests/engines/test_contract",
    "tests/engines/test_llama",
    "tests/gateway/test_gateway_real_models",
    "tests/recorder",
    "tests/provider",
)
"""Files that take twenty seconds or more, and folders of them; small ones fill up the end. Those
that wait for processes and those that keep a processor busy stand in turns."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that all workers end together (see `make test`)."""

    def get_turn(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((turn for turn, part in enumerate(LONGEST) if part in path), len(LONGEST))

    items.sort(key=get_turn)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the session; it starts with the first test that needs it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty store of each kind in turn; it may be opened as often as a test likes."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite3'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()
