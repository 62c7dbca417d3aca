"""A chain of one's own: anvil found or installed (`anvil_binary`), started and kept (`node`)."""

from hanse.chain.localnode.anvil_binary import ANVIL_VERSION, get_anvil
from hanse.chain.localnode.node import CHAIN_ID_DEFAULT, LocalNode

__all__ = ["LocalNode", "CHAIN_ID_DEFAULT", "get_anvil", "ANVIL_VERSION"]
