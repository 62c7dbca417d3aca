"""A market on a chain of its own for each module of recorder tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.provider.chain_parts import run_market
from tests.recorder.record_parts import World


@pytest.fixture
async def world(tmp_path: Path, anvil_cache: Path) -> AsyncIterator[World]:
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        yield World(market, tmp_path)
