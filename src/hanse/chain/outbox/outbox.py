"""A durable outbox: a transaction asked for once is mined once, whatever crashes or lies.

    outbox = Outbox(rpc, key, storage, chain_id=31337, confirmations=2)
    task = asyncio.create_task(outbox.run())
    await outbox.enqueue("settle-17", escrow.settle(...))    # durable when this returns
    entry = await outbox.wait_final("settle-17")             # proven at k blocks, or ChainError why

| state | what is durable | leaves by |
| --- | --- | --- |
| queued | the call and its key | signed; failed, if it would revert or gas is over its cap |
| signed | nonce and bytes, **before** the first broadcast | mined; queued, if its nonce is taken |
| mined | block, hash, gas | confirmed or failed, at k blocks; signed, if the block left the chain |
| confirmed | final: succeeded, k blocks deep | - |
| failed | final: reverted k blocks deep, or refused before signing; `reason` says why | - |

Mined means that the receipt's block is on the node's chain and lists the transaction. A nonce
counts as taken only on proof: used k blocks deep, by none of our attempts.

Why it is safe to crash at any point: a step reads everything from storage and the chain, and only
repeats what is harmless to repeat. Broadcasting the same bytes twice is one transaction; a raise
keeps the nonce, so at most one attempt is mined; a new nonce is taken only when no attempt with the
old one can be mined any more.

One process per key: two outboxes with one key on separate storages would take each other's nonces.
They would recover (see "queued" above), but slowly.

Source: EIP-1559 and EIP-155; geth's rules for its transaction pool.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from hanse.chain.chain_types import Call, ChainError, Header
from hanse.chain.outbox.fees import Fee, FeePolicy, find_raised_fee
from hanse.chain.outbox.signing import Signer
from hanse.chain.outbox.tracking import FILLER_PREFIX, Tracker
from hanse.chain.rpc import Rpc
from hanse.chain.storage import OutboxEntry, OutboxStorage, TransactionState
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.signatures import DigestSigner

POLL_INTERVAL_S = 0.25
"""Pause between steps while something is open: small against any block time."""

IDLE_INTERVAL_S = 5.0
"""Pause while nothing is open; `enqueue` ends it at once, so it bounds only surprises."""

FEE_CAP_HOLD_S = 900.0
"""A signed call keeps its own cap for so long. Then it is raised like any other: its nonce holds
back everything after it, which is worth more than the gas that was to be saved."""

NONCES_AHEAD_MAX = 16
"""Signed and unmined at once; pools keep about 16 to 64 of one sender."""

NOOP_GAS = 21_000
"""Gas of a transfer to oneself, which fills a nonce that nothing else will."""

_KNOWN = ("already known", "already imported", "known transaction", "already in")
_BEHIND = ("header not found", "unknown block", "block not found", "missing trie node")
_UNDERPRICED = ("underpriced", "fee too low", "less than block base fee", "max fee per gas")

_log = logging.getLogger(__name__)
_State = TransactionState


class Outbox:
    """Transactions of one key on one chain. See the module's table of states."""

    def __init__(
        self,
        rpc: Rpc,
        key: DigestSigner,
        storage: OutboxStorage,
        *,
        chain_id: int,
        confirmations: int,
        fee_policy: FeePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        lane: str = "",
    ) -> None:
        # `lane` keeps the entries of one key apart that two processes send; see "One process".
        self._rpc = rpc
        self._storage = storage
        self._policy = fee_policy or FeePolicy()
        self._clock = clock
        self._signer = Signer(rpc, key, chain_id, self._policy)
        self._tracker = Tracker(rpc, key.address, confirmations)
        self.address = key.address
        self.scope = f"{chain_id}:{key.address}{lane and '/'}{lane}"
        self._step_lock = asyncio.Lock()
        self._enqueue_lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._enqueued = asyncio.Event()
        self._is_idle = False
        self._is_running = False
        # Hints only, lost in a crash: when each attempt was sent first and last, what must be
        # raised, since when a nonce has been missing.
        self._sent_first_s: dict[str, float] = {}
        self._sent_last_s: dict[str, float] = {}
        self._must_raise: set[str] = set()
        self._gap_since_s: dict[int, float] = {}

    async def enqueue(self, key: str, call: Call) -> OutboxEntry:
        """Ask for a transaction; durable on return. The same key again returns the entry it has.

        Raises:
            RequestError: `usage` if the key was used for a different call.
        """
        async with self._enqueue_lock:
            found = await self._storage.find_entry(self.scope, key)
            if found is None:
                ordinal, _ = await self._storage.read_last(self.scope)
                found = OutboxEntry(scope=self.scope, key=key, ordinal=ordinal + 1, call=call)
                await self._storage.put_entries([found])
            elif (found.call.to, found.call.data, found.call.value) != (
                call.to,
                call.data,
                call.value,
            ):
                raise RequestError(
                    "usage",
                    f"the idempotency key {key!r} stands for {found.call.label!r} already, not for"
                    f" {call.label!r}; use a new key",
                )
        self._changed.set()
        self._enqueued.set()
        return found

    async def find(self, key: str) -> OutboxEntry | None:
        """The entry as stored, in whatever state."""
        return await self._storage.find_entry(self.scope, key)

    async def verify_sendable(self, call: Call) -> None:
        """Try a call without sending it.

        Raises:
            ChainError: it would revert (`is_revert`), or the sender cannot pay for it.
        """
        head = await self._rpc.fetch_head()
        gas_limit = await self._signer.fetch_gas_limit(call, head)
        fee = await self._signer.find_fee(head)
        if fee is not None:
            await self._signer.verify_balance(call, gas_limit, fee, head)

    async def read_next_nonce(self) -> int:
        """The nonce of the next entry if nothing is queued: predicts a contract's address."""
        head = await self._rpc.fetch_head()
        return await self._next_nonce(head)

    async def wait_final(
        self, key: str, *, poll_interval_s: float = POLL_INTERVAL_S
    ) -> OutboxEntry:
        """Wait until the entry is confirmed at k blocks; drives the steps itself if `run` does not.

        Raises:
            ChainError: it failed; `reason` says why.
            RequestError: `not_found` for a key that was never enqueued.
        """
        while True:
            entry = await self.find(key)
            if entry is None:
                raise RequestError("not_found", f"nothing was enqueued under {key!r}")
            if entry.state is _State.CONFIRMED:
                return entry
            if entry.state is _State.FAILED:
                raise ChainError(
                    f"transaction {entry.call.label or key!r} failed: {entry.reason}",
                    reason=entry.reason,
                    is_revert=entry.block_number is not None,
                )
            if self._is_running:
                await self._pause(poll_interval_s)
            else:
                await self._step_or_log()
                await asyncio.sleep(poll_interval_s)

    async def submit(
        self, key: str, call: Call, *, poll_interval_s: float = POLL_INTERVAL_S
    ) -> OutboxEntry:
        """`enqueue`, then `wait_final`."""
        await self.enqueue(key, call)
        return await self.wait_final(key, poll_interval_s=poll_interval_s)

    async def run(self, *, poll_interval_s: float = POLL_INTERVAL_S) -> None:
        """Step until cancelled; a dead node is waited out."""
        self._is_running = True
        try:
            while True:
                self._enqueued.clear()
                await self._step_or_log()
                if self._is_idle:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._enqueued.wait(), IDLE_INTERVAL_S)
                else:
                    await asyncio.sleep(poll_interval_s)
        finally:
            self._is_running = False

    async def step(self) -> None:
        """One round over all open entries. Safe to stop anywhere and to call at any time.

        Raises:
            TransientError: the node does not answer; nothing is lost.
        """
        async with self._step_lock:
            self._is_idle = not await self._storage.read_entries(self.scope, open_only=True)
            if self._is_idle:
                return
            head = await self._rpc.fetch_head()
            for entry in await self._storage.read_entries(self.scope, open_only=True):
                if entry.nonce is not None:
                    await self._track(entry, head)
            await self._fill_gaps(head)
            await self._sign_queued(head)
            for entry in await self._storage.read_entries(self.scope, open_only=True):
                if entry.state is _State.SIGNED:
                    await self._broadcast(entry, head)

    async def _track(self, entry: OutboxEntry, head: Header) -> None:
        found = await self._tracker.track(entry, head)
        if found == entry:
            return
        if entry.state is _State.MINED and found.state is _State.SIGNED:
            # Its block left the chain. The bytes are still good: send them again at once.
            for attempt in entry.attempts:
                self._sent_last_s.pop(attempt.hash, None)
        await self._put(found)

    # ------------------------------------------------------------------ gaps

    async def _fill_gaps(self, head: Header) -> None:
        """Make the chain able to reach our lowest open nonce.

        Missing nonces come from a chain or a storage that lost its end. A transaction of ours that
        the chain forgot is sent again; a nonce that nobody holds is filled with a transfer of 0 to
        oneself, never with one of our calls, whose older bytes may still be out there.
        """
        entries = await self._storage.read_entries(self.scope, open_only=True)
        nonces = [entry.nonce for entry in entries if entry.nonce is not None]
        if not nonces:
            return
        count = await self._rpc.fetch_transaction_count(self.address, block=head.number)
        missing = [n for n in range(count, min(nonces)) if n not in nonces]
        self._gap_since_s = {
            n: self._gap_since_s.get(n, self._clock()) for n in missing[:NONCES_AHEAD_MAX]
        }
        for nonce, since_s in self._gap_since_s.items():
            holder = await self._storage.find_by_nonce(self.scope, nonce)
            if holder is not None and holder.attempts:
                await self._send(holder)
            elif self._clock() - since_s >= self._policy.rebroadcast_after_s:
                # Waited first: a node that lags shows gaps that are none.
                await self._sign_filler(nonce, head)

    async def _sign_filler(self, nonce: int, head: Header) -> None:
        fee = await self._signer.find_fee(head)
        if fee is None:
            return
        async with self._enqueue_lock:
            ordinal, _ = await self._storage.read_last(self.scope)
            call = Call(to=self.address, data=b"", label=f"fill nonce {nonce}", gas_limit=NOOP_GAS)
            entry = OutboxEntry(
                scope=self.scope, key=f"{FILLER_PREFIX}{nonce}", ordinal=ordinal + 1, call=call
            )
            await self._put(self._signer.sign(entry, nonce, NOOP_GAS, fee, head))

    # ------------------------------------------------------------------ signing

    async def _sign_queued(self, head: Header) -> None:
        """Sign queued entries in order; one that has to wait holds back those after it."""
        entries = await self._storage.read_entries(self.scope, open_only=True)
        in_flight = sum(entry.nonce is not None for entry in entries)
        for entry in entries:
            if entry.state is not _State.QUEUED:
                continue
            if in_flight >= NONCES_AHEAD_MAX:
                return
            signed = await self._sign(entry, head, is_first=in_flight == 0)
            if signed is None or signed.state is _State.QUEUED:
                return
            in_flight += signed.state is _State.SIGNED

    async def _sign(
        self, entry: OutboxEntry, head: Header, *, is_first: bool
    ) -> OutboxEntry | None:
        fee = await self._signer.find_fee(head, entry.call.fee_cap_wei)
        if fee is None and 0 < entry.call.fee_cap_wei <= self._policy.max_fee_cap_wei:
            reason = f"one gas costs more than the {entry.call.fee_cap_wei} wei it is worth to it"
            return await self._put(replace(entry, state=_State.FAILED, reason=reason))
        if fee is None:
            cap = self._policy.max_fee_cap_wei
            return await self._wait(
                entry, f"base fee {head.base_fee_wei} wei and tip exceed the cap of {cap} wei a gas"
            )
        try:
            gas_limit = await self._signer.fetch_gas_limit(entry.call, head)
            await self._signer.verify_balance(entry.call, gas_limit, fee, head)
        except ChainError as error:
            if any(text in error.reason.lower() for text in _BEHIND):
                return await self._wait(entry, f"the node lags: {error.reason}")
            if not is_first:
                # It may need what an earlier, still unmined transaction does (approve before
                # deposit).
                return None
            return await self._put(replace(entry, state=_State.FAILED, reason=error.reason))
        nonce = await self._next_nonce(head)
        return await self._put(self._signer.sign(entry, nonce, gas_limit, fee, head))

    async def _next_nonce(self, head: Header) -> int:
        _, last_nonce = await self._storage.read_last(self.scope)
        count = await self._rpc.fetch_transaction_count(self.address, block=head.number)
        return max(last_nonce + 1, count)

    async def _wait(self, entry: OutboxEntry, reason: str) -> OutboxEntry:
        if entry.reason != reason:
            return await self._put(replace(entry, reason=reason))
        return entry

    # ------------------------------------------------------------------ broadcasting

    async def _broadcast(self, entry: OutboxEntry, head: Header) -> None:
        entry = await self._raise_if_stuck(entry, head)
        last_s = self._sent_last_s.get(entry.attempts[-1].hash)
        if last_s is None or self._clock() - last_s >= self._policy.rebroadcast_after_s:
            await self._send(entry)

    async def _raise_if_stuck(self, entry: OutboxEntry, head: Header) -> OutboxEntry:
        last = entry.attempts[-1]
        first_s = self._sent_first_s.get(last.hash)
        is_old = first_s is not None and self._clock() - first_s >= self._policy.raise_after_s
        # An earlier process signed it, nobody knows when, and no block takes it at this fee. To
        # wait as for a new one would keep it for ever from a process that ends again and again.
        is_outbid = first_s is None and last.max_fee_wei < head.base_fee_wei
        if not (is_old or is_outbid or last.hash in self._must_raise):
            return entry
        cap_wei = entry.call.fee_cap_wei
        if cap_wei and await self._get_age_s(entry, head) >= FEE_CAP_HOLD_S:
            cap_wei = 0
        market = await self._signer.find_fee(head, cap_wei)
        if market is None:
            return entry
        policy = self._policy.capped(cap_wei)
        fee = find_raised_fee(policy, Fee(last.tip_wei, last.max_fee_wei), market)
        if fee is None:
            return entry
        assert entry.nonce is not None
        attempt = self._signer.sign_attempt(entry.call, entry.nonce, entry.gas_limit, fee)
        self._must_raise.discard(last.hash)
        return await self._put(replace(entry, attempts=(*entry.attempts, attempt)))

    async def _get_age_s(self, entry: OutboxEntry, head: Header) -> float:
        """Since its last attempt was sent; of an earlier process's, by the chain since signing."""
        first_s = self._sent_first_s.get(entry.attempts[-1].hash)
        if first_s is not None:
            return self._clock() - first_s
        signed = await self._rpc.fetch_header(entry.signed_at_block)
        return head.timestamp_s - signed.timestamp_s if signed else 0.0

    async def _send(self, entry: OutboxEntry) -> None:
        """Broadcast the newest attempt. Any outcome is fine: what counts is found by `_track`."""
        attempt = entry.attempts[-1]
        try:
            await self._rpc.send_raw(attempt.raw)
        except TransientError as error:
            _log.info("broadcast of %s: %s", attempt.hash, error.message)
            return  # perhaps sent, perhaps not; sent again in the next step
        except ChainError as error:
            words = error.reason.lower()
            if any(text in words for text in _UNDERPRICED):
                self._must_raise.add(attempt.hash)
            elif not any(text in words for text in _KNOWN):
                # "nonce too low" comes here too: mined already, or taken by another; `_track` finds
                # out.
                _log.info("broadcast of %s refused: %s", attempt.hash, error.reason)
                if not entry.is_final:
                    await self._wait(entry, f"the node refuses it: {error.reason}")
        now_s = self._clock()
        self._sent_first_s.setdefault(attempt.hash, now_s)
        self._sent_last_s[attempt.hash] = now_s

    # ------------------------------------------------------------------ inside

    async def _put(self, entry: OutboxEntry) -> OutboxEntry:
        await self._storage.put_entries([entry])
        if entry.is_final:
            for attempt in entry.attempts:
                self._sent_first_s.pop(attempt.hash, None)
                self._sent_last_s.pop(attempt.hash, None)
                self._must_raise.discard(attempt.hash)
        _log.info("%s (%s) is %s %s", entry.key, entry.call.label, entry.state, entry.reason)
        self._changed.set()
        return entry

    async def _pause(self, poll_interval_s: float) -> None:
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), poll_interval_s)
        except TimeoutError:
            return

    async def _step_or_log(self) -> None:
        try:
            await self.step()
        except (TransientError, ChainError) as error:
            _log.warning("the outbox of %s waits: %s", self.address, error.message)
