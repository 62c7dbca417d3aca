"""The ERC-20 asset with types.

Any ERC-20 has these, but for `mint` (test asset only) and the nonces of permits.

asset = Asset(rpc, deployment.asset)
held = await asset.read_balance(user, block=confirmed)
"""

from hanse.chain.chain_types import BlockNumber, Call
from hanse.chain.contract import Contract
from hanse.chain.rpc import Rpc
from hanse.contracts.artifacts import load_artifact


class Asset:
    """An ERC-20 at an address, through one node. Amounts are base units."""

    def __init__(self, rpc: Rpc, address: str) -> None:
        self.contract = Contract(rpc, load_artifact("TestAsset"), address)
        self.address = self.contract.address

    async def read_balance(self, owner: str, *, block: BlockNumber) -> int:
        """What the address itself holds."""
        (found,) = await self.contract.read("balanceOf", owner, block=block)
        return int(found)

    async def read_allowance(self, owner: str, spender: str, *, block: BlockNumber) -> int:
        """What `spender` may still take from `owner`."""
        (found,) = await self.contract.read("allowance", owner, spender, block=block)
        return int(found)

    async def read_nonce(self, owner: str, *, block: BlockNumber) -> int:
        """The nonce of the owner's next permit."""
        (found,) = await self.contract.read("nonces", owner, block=block)
        return int(found)

    async def read_decimals(self, *, block: BlockNumber) -> int:
        """Decimal places that people see."""
        (found,) = await self.contract.read("decimals", block=block)
        return int(found)

    async def read_symbol(self, *, block: BlockNumber) -> str:
        """How people abbreviate it."""
        (found,) = await self.contract.read("symbol", block=block)
        return str(found)

    async def read_name(self, *, block: BlockNumber) -> str:
        """The name, which is part of the permit's domain."""
        (found,) = await self.contract.read("name", block=block)
        return str(found)

    def approve(self, spender: str, amount: int) -> Call:
        """Let `spender` take up to `amount`."""
        return self.contract.build("approve", spender, amount, label=f"approve {amount}")

    def transfer(self, receiver: str, amount: int) -> Call:
        """Wallet -> wallet."""
        return self.contract.build("transfer", receiver, amount, label=f"transfer {amount}")

    def mint(self, receiver: str, amount: int) -> Call:
        """Make test asset out of nothing; only the test asset can, and so it is worth nothing."""
        return self.contract.build("mint", receiver, amount, label=f"mint {amount} of test asset")
