"""The user's money on the chain: deposit, open, fund, refund, withdraw.

    await hanse.account.open(1_000_000, {provider: 400_000})    # one transaction: deposit and fund
    await hanse.account.request_refund(provider, 100_000)       # comes free after the lock time
    await hanse.account.claim_refund(provider)
    await hanse.account.withdraw(500_000)

Every call is one transaction through the durable outbox: it returns once it is confirmed, and says
why if it failed. `key` makes a call repeatable: the same key again is the same transaction, also
after a crash. Amounts are base units of the asset.

Source: `Escrow.vy`.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping

from hanse.chain import (
    Call,
    Deployment,
    Key,
    Outbox,
    OutboxEntry,
    PermitSignature,
    Rpc,
    open_contracts,
    open_disputes,
)
from hanse.protocol.errors import RequestError, Shortfall
from hanse.protocol.intents import Fund
from hanse.protocol.signatures import Address
from hanse.sdk.chain_view import IndexedChain
from hanse.sdk.permit import find_permit
from hanse.sdk.settings import Settings
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.store.database import Database

__all__ = ["Account", "PermitSignature", "open_account"]


class Account:
    """Moves one user's money. Made by `open_account`."""

    def __init__(
        self,
        rpc: Rpc,
        deployment: Deployment,
        chain: IndexedChain,
        user: Address,
        signer: Address,
        outbox: Outbox | None,
        wallet: Key | None = None,
    ) -> None:
        self._rpc = rpc
        self._deployment = deployment
        self._chain = chain
        self._outbox = outbox
        self._wallet = wallet
        self.user = user
        self.signer = signer
        self.escrow, self.registry, self.asset = open_contracts(rpc, deployment)
        self.disputes = open_disputes(rpc, deployment)

    @property
    def outbox(self) -> Outbox | None:
        """Of the wallet; None if this client has no wallet key."""
        return self._outbox

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Follow the chain, and run the outbox if there is a wallet, until `stack` closes."""
        loops = [asyncio.create_task(self._chain.follow())]
        if self._outbox is not None:
            loops.append(asyncio.create_task(self._outbox.run()))

        async def stop() -> None:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

        stack.push_async_callback(stop)

    async def deposit(self, amount: int, *, key: str = "") -> OutboxEntry:
        """Wallet -> account, in one transaction where the asset knows permits (EIP-2612)."""
        if found := await self._find_earlier(key):
            return found
        permit = await self._prepare_allowance(amount, key)
        if permit is not None:
            return await self._submit(self.escrow.deposit_with_permit(amount, permit), key)
        return await self._submit(self.escrow.deposit(amount), key)

    async def open(
        self, deposit: int, funds: Mapping[Address, int], *, key: str = ""
    ) -> OutboxEntry:
        """Deposit and fund sub-accounts of these providers in one transaction.

        Args:
            deposit: from the wallet; 0 to use what the account holds.
            funds: base units by provider.
            key: idempotency key.
        """
        if found := await self._find_earlier(key):
            return found
        rows = [Fund(provider, self.signer, amount) for provider, amount in funds.items()]
        permit = await self._prepare_allowance(deposit, key) if deposit else None
        if permit is not None:
            return await self._submit(self.escrow.open_with_permit(deposit, rows, permit), key)
        return await self._submit(self.escrow.open(deposit, rows), key)

    async def fund(self, provider: Address, amount: int, *, key: str = "") -> OutboxEntry:
        """Account -> sub-account; a pending refund is taken back first."""
        return await self._submit(self.escrow.fund(provider, self.signer, amount), key)

    async def request_refund(self, provider: Address, amount: int, *, key: str = "") -> OutboxEntry:
        """Ask for sub-account -> account; free after the lock time. Restarts a pending one's wait.

        The provider's claims come first until then: what it is owed by vouchers is not refunded.

        Raises:
            ChainError: the sub-account holds less than `amount` beside what is already asked for.
        """
        return await self._submit(self.escrow.request_refund(provider, self.signer, amount), key)

    async def cancel_refund(self, provider: Address, *, key: str = "") -> OutboxEntry:
        """Leave the money in the sub-account after all."""
        return await self._submit(self.escrow.cancel_refund(provider, self.signer), key)

    async def claim_refund(self, provider: Address, *, key: str = "") -> OutboxEntry:
        """Complete a refund whose lock time has passed; brokers do it too."""
        call = self.escrow.claim_refund(self.user, provider, self.signer)
        return await self._submit(call, key)

    async def withdraw(self, amount: int, *, key: str = "") -> OutboxEntry:
        """Account -> wallet."""
        return await self._submit(self.escrow.withdraw(amount), key)

    async def send(self, receiver: Address, amount: int, *, key: str = "") -> OutboxEntry:
        """Wallet -> another wallet."""
        return await self._submit(self.asset.transfer(receiver, amount), key)

    async def read_wallet(self) -> int:
        """Base units in the wallet itself, at the confirmed block."""
        return await self.asset.read_balance(self.user, block=await self.read_block())

    async def read_block(self) -> int:
        """The confirmed block that decisions are made on."""
        head = await self._rpc.fetch_head()
        return max(0, head.number - self._deployment.confirmations)

    async def read_clock(self) -> int:
        """The chain's own time, which decides when a lock ends: its head's, unix seconds."""
        return (await self._rpc.fetch_head()).timestamp_s

    @property
    def lock_time_s(self) -> int:
        """How long a refund waits."""
        return self._deployment.lock_time_s

    async def _prepare_allowance(self, amount: int, key: str) -> PermitSignature | None:
        """Let Escrow take `amount`: by a permit, else by an approval that is sent first."""
        head = await self._rpc.fetch_head()
        held = await self.asset.read_balance(self.user, block=head.number)
        if held < amount:
            raise RequestError(
                "insufficient_balance",
                f"the wallet {self.user} holds {held} base units, needed are {amount} base units",
                details=Shortfall(amount, held).to_details(),
            )
        escrow = self.escrow.address
        if await self.asset.read_allowance(self.user, escrow, block=head.number) >= amount:
            return None
        if self._wallet is not None:
            chain_id = self._deployment.chain_id
            permit = await find_permit(self.asset, self._wallet, escrow, amount, head, chain_id)
            if permit is not None:
                return permit
        await self._submit(self.asset.approve(escrow, amount), key and f"{key}-approve")
        return None

    async def _find_earlier(self, key: str) -> OutboxEntry | None:
        """What a call with this key has already asked for, waited for to its end.

        A permit differs from one call to the next, so the outbox could not tell the repeated wish
        from another one.
        """
        if not key or self._outbox is None or await self._outbox.find(key) is None:
            return None
        entry = await self._outbox.wait_final(key)
        await self._chain.refresh()
        return entry

    async def _submit(self, call: Call, key: str) -> OutboxEntry:
        if self._outbox is None:
            raise RequestError(
                "configuration_invalid",
                "this client has no wallet key: transactions must be sent by the wallet itself",
            )
        unique = key or f"{int(time.time())}-{secrets.token_hex(8)}"
        entry = await self._outbox.submit(unique, call)
        await self._chain.refresh()
        return entry


async def open_account(
    rpc: Rpc,
    deployment: Deployment,
    database: Database,
    chain: IndexedChain,
    settings: Settings,
) -> Account:
    """The account of `settings`; without a wallet key it can be read and not moved."""
    outbox = None
    if settings.wallet is not None:
        if settings.wallet.address != settings.get_user():
            raise RequestError(
                "configuration_invalid",
                f"the wallet key is {settings.wallet.address}, the user {settings.get_user()}",
            )
        outbox = Outbox(
            rpc,
            settings.wallet,
            await open_outbox_storage(database),
            chain_id=deployment.chain_id,
            confirmations=deployment.confirmations,
        )
    signer = settings.signer.address
    return Account(rpc, deployment, chain, settings.get_user(), signer, outbox, settings.wallet)
