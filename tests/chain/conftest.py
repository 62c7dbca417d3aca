"""A private anvil for tests that reorganise, rewind or stop the chain."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hanse.chain import LocalNode, Rpc


@pytest.fixture
async def node(anvil_cache: Path, tmp_path: Path) -> AsyncIterator[LocalNode]:
    """A chain of this test's own; mines each transaction at once and nothing else."""
    node = LocalNode(tmp_path / "chain", cache_folder=anvil_cache)
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
async def rpc(node: LocalNode) -> AsyncIterator[Rpc]:
    async with Rpc.connect(node.url) as rpc:
        yield rpc
