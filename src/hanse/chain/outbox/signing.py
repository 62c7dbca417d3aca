"""From a call to signed bytes: gas, fee, balance, signature. Stores and sends nothing.

Every question to the node names the head that the caller's step began with.
"""

from dataclasses import replace

from hanse.chain.chain_types import Call, ChainError, Header
from hanse.chain.outbox.fees import Fee, FeePolicy, find_fee
from hanse.chain.outbox.transactions import Transaction, sign_transaction
from hanse.chain.rpc import Rpc
from hanse.chain.storage import Attempt, OutboxEntry, TransactionState
from hanse.protocol.signatures import DigestSigner


class Signer:
    """Signs for one key on one chain."""

    def __init__(self, rpc: Rpc, key: DigestSigner, chain_id: int, policy: FeePolicy) -> None:
        self._rpc = rpc
        self._key = key
        self._chain_id = chain_id
        self._policy = policy

    async def find_fee(self, head: Header, fee_cap_wei: int = 0) -> Fee | None:
        """What a first attempt should offer now; None while the market is above the cap."""
        tip = self._policy.tip_wei
        if tip is None:
            tip = await self._rpc.fetch_priority_fee()
        return find_fee(self._policy.capped(fee_cap_wei), head.base_fee_wei, tip)

    async def fetch_gas_limit(self, call: Call, head: Header) -> int:
        """The call's own limit, or an estimate and a margin; ChainError if it would revert."""
        if call.gas_limit:
            return call.gas_limit
        gas = await self._rpc.estimate_gas(call, sender=self._key.address, block=head.number)
        return gas + -(-gas * self._policy.gas_margin_percent // 100)

    async def verify_balance(self, call: Call, gas_limit: int, fee: Fee, head: Header) -> None:
        """Raise ChainError, naming both amounts, if the sender cannot pay for it."""
        needed = call.value + gas_limit * fee.max_fee_wei
        address = self._key.address
        balance = await self._rpc.fetch_balance(address, block=head.number)
        if balance < needed:
            reason = (
                f"{address} has {balance} wei, the transaction may take {needed} wei; send it"
                " native coin"
            )
            raise ChainError(reason, reason=reason)

    def sign(
        self, entry: OutboxEntry, nonce: int, gas_limit: int, fee: Fee, head: Header
    ) -> OutboxEntry:
        """The entry with its nonce and first attempt, to be stored before anything is sent."""
        return replace(
            entry,
            state=TransactionState.SIGNED,
            nonce=nonce,
            gas_limit=gas_limit,
            attempts=(self.sign_attempt(entry.call, nonce, gas_limit, fee),),
            signed_at_block=head.number,
            reason="",
        )

    def sign_attempt(self, call: Call, nonce: int, gas_limit: int, fee: Fee) -> Attempt:
        """One form of a transaction."""
        transaction = Transaction(
            self._chain_id, nonce, fee.tip_wei, fee.max_fee_wei, gas_limit, call
        )
        signed = sign_transaction(self._key, transaction)
        return Attempt(signed.hash, signed.raw, fee.tip_wei, fee.max_fee_wei)
