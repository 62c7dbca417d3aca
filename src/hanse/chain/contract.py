"""One deployed contract: calls to send, views at a stated block, logs to events.

    escrow = Contract(rpc, load_artifact("Escrow"), address)
    (free,) = await escrow.read("accounts", user, block=confirmed)
    call = escrow.build("deposit", amount, label="deposit 12 to Escrow")

The typed faces (`escrow`, `registry`, `asset`) stand on this; use them where they have what you
need.
"""

from typing import Any

from hanse.chain.chain_types import BlockNumber, Call, ChainError, Event, Log
from hanse.chain.rpc import Rpc
from hanse.contracts.artifacts import Artifact
from hanse.protocol.signatures import parse_address


class Contract:
    """An artefact at an address, seen through one node."""

    def __init__(self, rpc: Rpc, artifact: Artifact, address: str) -> None:
        self.rpc = rpc
        self.artifact = artifact
        self.address = parse_address(address)  # lower case, as logs have it

    async def read(
        self, function: str, *arguments: Any, block: BlockNumber, sender: str | None = None
    ) -> tuple[Any, ...]:
        """What a view returns on the state after `block`, one item an output.

        Raises:
            ChainError: it reverted, or there is no such contract at this block.
        """
        call = self.build(function, *arguments)
        data = await self.rpc.call(call, block=block, sender=sender)
        if not data and self.artifact.functions[function].outputs:
            raise ChainError(
                f"no {self.artifact.name} answers at {self.address} in block {block};"
                " check the deployment",
                reason="no contract at the address",
            )
        return self.artifact.decode_output(function, data)

    def build(self, function: str, *arguments: Any, label: str = "", value: int = 0) -> Call:
        """The call, ready for an outbox."""
        return Call(
            to=self.address,
            data=self.artifact.encode_call(function, *arguments),
            value=value,
            label=label or f"{self.artifact.name}.{function}",
        )

    def find_event(self, log: Log, timestamp_s: int) -> Event | None:
        """The log as an event; None if it is another contract's or not in the ABI."""
        if log.address != self.address or not log.topics:
            return None
        if self.artifact.find_event(log.topics[0]) is None:
            return None
        name, fields = self.artifact.decode_log(log.topics, log.data)
        return Event(
            contract=self.artifact.name,
            name=name,
            fields=fields,
            address=log.address,
            block_number=log.block_number,
            block_hash=log.block_hash,
            timestamp_s=timestamp_s,
            transaction_hash=log.transaction_hash,
            log_index=log.log_index,
        )
