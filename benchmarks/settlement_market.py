"""The market of `sim_settlement`: contracts on an EVM, one provider, one recorder, n users.

`SimulatedChain` keeps the contracts' storage outside of any EVM and runs every transaction on a
fresh one on top of it, so that storage is as cold as on a real chain (`StateServer`). Opening
sub-accounts is not what is measured: it runs on one warm EVM, user by user, and what it stored is
then read out of it.

`SimulatedSettler` stands where `hanse.settlement.netting.settler.Settler` does in a broker, with a
book in memory.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyrevm
from coincurve import PrivateKey

from hanse.contracts.artifacts import load_artifact
from hanse.contracts.claims import Claim, decode_results, encode_settle, get_sub_account_key
from hanse.contracts.deployment import Terms
from hanse.protocol.ledger import ClaimStatus
from hanse.protocol.messages import Voucher
from hanse.protocol.records.proofs import Leaf, apply_commit
from hanse.protocol.signatures import (
    ZERO_HASH,
    get_address,
    keccak,
    sign_digest,
    to_bytes,
    to_compact,
    to_hex,
)
from hanse.settlement import DueClaim, SubAccountFunds
from hanse.settlement.netting.payable import PayableClaim
from hanse.settlement.netting.plan import PlannedBatch
from hanse.settlement.netting.settled import SettledClaim, SettlementBatch
from tests.contracts.cold_gas import (
    FLOOR_GAS_PER_TOKEN,
    INTRINSIC_GAS,
    SPEC,
    read_state,
)
from tests.contracts.local_evm import CHAIN_ID, Key, deploy_hanse, key_of
from tests.contracts.state_server import State, StateServer

START_S = 1_800_000_000
LOCK_TIME_S = 6 * 3_600
SUB_ACCOUNT_SLOT = 1
"""Of `sub_account_words` in Escrow; checked against the contract's own view when it is read."""

UNSIGNED = "0x" + "00" * 65


class SimulatedChain:
    """The contracts' state, and transactions on it at the gas that a chain would charge."""

    def __init__(self) -> None:
        self.server = StateServer()
        self.hanse = deploy_hanse(Terms(lock_time_s=LOCK_TIME_S))
        self.provider, self.receipt_key = key_of("provider"), key_of("receipt key")
        self.recorder, depositor = key_of("recorder"), key_of("depositor")
        self.hanse.register(self.provider, self.receipt_key)
        self.hanse.mint(self.provider.address, 1)  # it was paid before
        self.hanse.mint(depositor.address, 10**6)
        self.hanse.escrow_call(depositor, "deposit", 10**6)
        self.now_s = START_S
        self.state: State = {}

    def take_state(self, words: dict[int, int], base: State) -> None:
        """Begin with what the warm EVM holds: the few slots of `base`, and the sub-accounts."""
        evm = self.hanse.chain.evm
        self.state = {
            address: (nonce, code, {slot: evm.storage(address, slot) for slot in slots})
            for address, (nonce, code, slots) in base.items()
        }
        self.state[self.hanse.escrow][2].update(words)
        self.server.update(self.state)
        self.hanse.chain.evm = None  # as large as its users are many, and not used again

    def send(self, caller: str, to: str, data: bytes) -> tuple[bytes, list[Any], int]:
        """One transaction on cold storage: what it returned, its logs and its gas."""
        block = pyrevm.BlockEnv(number=1, timestamp=self.now_s, basefee=0)
        env = pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=CHAIN_ID), block=block)
        evm = pyrevm.EVM(env=env, fork_url=self.server.url, fork_block="0x1", spec_id=SPEC)
        evm.set_block_env(block)
        output = bytes(evm.message_call(caller, to, calldata=data))
        result = evm.result
        self._keep(read_state(evm))
        tokens = sum(1 if byte == 0 else 4 for byte in data)
        return (
            output,
            result.logs,
            max(result.gas_used, INTRINSIC_GAS + FLOOR_GAS_PER_TOKEN * tokens),
        )

    def _keep(self, touched: State) -> None:
        changed: State = {}
        for address, (_, _, slots) in touched.items():
            if slots and address in self.state:
                nonce, code, held = self.state[address]
                fresh = {slot: value for slot, value in slots.items() if held.get(slot) != value}
                held.update(fresh)
                changed[address] = (nonce, code, fresh)
        self.server.update(changed)


class SimulatedSettler:
    """`Settler` over a book in memory; also users, recorder and the chain view."""

    def __init__(self, chain: SimulatedChain, users: int) -> None:
        self.chain = chain
        self.gas: Counter[str] = Counter()
        self.transactions: Counter[str] = Counter()
        self.claims = 0
        self.paid = 0
        self.block = 0
        self.view = self
        self._users = [get_address(_secret_of(n).public_key) for n in range(users)]
        self._numbers = {user: number for number, user in enumerate(self._users)}
        self._balance = [0] * users
        self._owed = [0] * users
        self._claimed = [0] * users
        self._sequence = [0] * users
        self._payable: dict[int, PayableClaim] = {}
        self._refunds: dict[int, tuple[int, int]] = {}
        self._commit = (0, ZERO_HASH)

    # ---------------------------------------------------------------- the day

    def open_all(self, spent: Sequence[int], on_done: Callable[[int], object]) -> None:
        """Each user mints, approves and opens its sub-account with what it will spend, and more."""
        hanse = self.chain.hanse
        evm, asset, escrow = hanse.chain.evm, load_artifact("TestAsset"), load_artifact("Escrow")
        base = read_state(evm)
        provider = self.chain.provider.address
        approve = asset.encode_call("approve", hanse.escrow, 2**256 - 1)
        words = {}
        for number, user in enumerate(self._users):
            amount = spent[number] * 3 // 2 + 100_000
            opened = escrow.encode_call("open", amount, [(provider, user, amount)])
            for to, data in (
                (hanse.asset, asset.encode_call("mint", user, amount)),
                (hanse.asset, approve),
                (hanse.escrow, opened),
            ):
                evm.snapshot()
                evm.message_call(user, to, calldata=data)
                evm.commit()
                evm.reset_transient_storage()
            slot = _slot_of(user, provider)
            words[slot] = evm.storage(hanse.escrow, slot)
            assert words[slot] == amount, "the layout of Escrow has changed"
            self._balance[number] = amount
            if number % 500 == 499:
                on_done(number + 1)
        self.chain.take_state(words, base)
        on_done(len(self._users))

    def receive(self, requests: Counter[int], fees: Sequence[int], tick: int) -> int:
        """Receipts of one tick, and their commit; returns how many requests they are."""
        leaves = []
        provider = self.chain.provider.address
        for number, count in requests.items():
            user, fee = self._users[number], count * fees[number]
            self._owed[number] += fee
            self._sequence[number] += count
            self._update(number)
            digest = keccak(b"%s %d %d" % (user.encode(), tick, fee))
            key = (user, provider, user, self._sequence[number])
            leaves.append(Leaf(key, to_hex(digest), fee))
        if leaves:
            self._record(leaves)
        return sum(requests.values())

    def leave(self, numbers: Iterable[int]) -> None:
        """These users ask for all that is not spent; nobody counts their gas here."""
        hanse, provider = self.chain.hanse, self.chain.provider.address
        for number in numbers:
            user = self._users[number]
            amount = self._balance[number] - (self._owed[number] - self._claimed[number])
            data = load_artifact("Escrow").encode_call("request_refund", provider, user, amount)
            self.chain.send(user, hanse.escrow, data)
            self._refunds[number] = (amount, self.chain.now_s + LOCK_TIME_S)
            self._update(number)

    def verify(self) -> None:
        """The book and the EVM agree about every sub-account, to the unit."""
        provider, escrow = self.chain.provider.address, self.chain.hanse.escrow
        for number, user in enumerate(self._users):
            word = self.chain.state[escrow][2][_slot_of(user, provider)]
            found = (word % 2**96, (word >> 96) % 2**96)
            assert found == (self._balance[number], self._claimed[number]), (number, found)
            waiting = self._payable.get(number)
            left = waiting.payable if waiting else 0
            assert self._owed[number] == self._claimed[number] + left, number

    # ---------------------------------------------------------------- what the scheduler asks

    async def read_payable(self) -> list[PayableClaim]:
        """See `Settler`."""
        return list(self._payable.values())

    async def finish_open(self) -> None:
        """See `Settler`; nothing is ever left open here."""

    def list_funds(self) -> list[tuple[str, str, SubAccountFunds]]:
        """Those with a refund, which is all that the scheduler looks for."""
        return [
            (
                self._users[n],
                self._users[n],
                SubAccountFunds(
                    self._balance[n], self._claimed[n], self._sequence[n], amount, unlock_s
                ),
            )
            for n, (amount, unlock_s) in self._refunds.items()
        ]

    async def settle(self, planned: PlannedBatch) -> SettlementBatch:
        """Sign, pack, run, and hold every result to the book."""
        claims = [self._sign(item.claim) for item in planned.claims]
        head = to_bytes(self._commit[1])
        data = encode_settle(self.chain.provider.address, claims, head)
        caller, escrow = self.chain.receipt_key.address, self.chain.hanse.escrow
        _, logs, gas = self._send("settle", caller, escrow, data)
        assert gas <= planned.gas, f"{gas} gas, planned {planned.gas}"
        fields = next(
            decoded[1] for log in logs if (decoded := self._decode(log)) and decoded[0] == "Settled"
        )
        assert fields["records_head"] == head
        settled = []
        for item, result in zip(planned.claims, decode_results(fields["results"]), strict=True):
            assert (result.status, result.paid) == (ClaimStatus.PAID, item.payable)
            number = self._numbers[item.claim.user]
            self._claimed[number] += result.paid
            self._balance[number] -= result.paid
            self._update(number)
            settled.append(
                SettledClaim(item.claim.user, item.claim.signer, ClaimStatus.PAID, result.paid)
            )
        self.claims += len(settled)
        self.paid += fields["paid"]
        return SettlementBatch("", 0, gas, fields["paid"], tuple(settled))

    async def complete_refund(
        self, user: str, signer: str, funds: SubAccountFunds, fee_cap_wei: int = 0
    ) -> bool:
        """See `Settler`; the day's one gas price is below the cap of whatever was planned at it."""
        provider, escrow = self.chain.provider.address, self.chain.hanse.escrow
        data = load_artifact("Escrow").encode_call("claim_refund", user, provider, signer)
        self._send("refund", self.chain.receipt_key.address, escrow, data)
        number = self._numbers[user]
        amount, _ = self._refunds.pop(number)
        self._balance[number] -= amount
        self._update(number)
        return True

    # ---------------------------------------------------------------- inside

    def _record(self, leaves: list[Leaf]) -> None:
        commit = apply_commit(self._commit, leaves)
        data = load_artifact("Records").encode_call(
            "commit", to_bytes(commit.root), commit.count, commit.fee_total
        )
        address = self.chain.hanse.records
        output, _, _ = self._send("commit", self.chain.recorder.address, address, data)
        assert output == to_bytes(commit.head), "the contract's head is another"
        self._commit = (commit.number, commit.head)

    def _send(self, kind: str, caller: str, to: str, data: bytes) -> tuple[bytes, list[Any], int]:
        output, logs, gas = self.chain.send(caller, to, data)
        self.gas[kind] += gas
        self.transactions[kind] += 1
        return output, logs, gas

    def _decode(self, log: Any) -> tuple[str, dict[str, Any]] | None:
        if log.address.lower() != self.chain.hanse.escrow:
            return None
        topics, body = log.data
        return load_artifact("Escrow").decode_log([bytes(t) for t in topics], bytes(body))

    def _update(self, number: int) -> None:
        payable = self._owed[number] - self._claimed[number]
        if not payable:
            self._payable.pop(number, None)
            return
        user, owed, sequence = self._users[number], self._owed[number], self._sequence[number]
        refund, unlock_s = self._refunds.get(number, (0, 0))
        due = DueClaim(
            user, user, owed, sequence, 0, owed + 4_321, sequence + 7, ZERO_HASH, UNSIGNED
        )
        kept = self._balance[number] - refund if refund else 0
        self._payable[number] = PayableClaim(due, payable, unlock_s, kept)

    def _sign(self, due: DueClaim) -> Claim:
        """The user's last voucher; signing each of a day's would only be thrown away."""
        request_hash = keccak(due.user.encode())
        voucher = Voucher(
            due.user,
            self.chain.provider.address,
            due.cumulative_max,
            due.sequence_max,
            to_hex(request_hash),
        )
        digest = self.chain.hanse.domain.digest(voucher.struct_hash())
        secret = _secret_of(self._numbers[due.user])
        r, vs = to_compact(sign_digest(secret, digest))
        return Claim(
            due.user,
            due.signer,
            due.cumulative_max,
            due.cumulative_fee,
            due.sequence,
            due.sequence_max,
            request_hash,
            r,
            vs,
        )


def _secret_of(number: int) -> PrivateKey:
    return PrivateKey(keccak(b"user %d of the simulation" % number))


def _slot_of(user: str, provider: str) -> int:
    key = get_sub_account_key(user, provider, user)
    return int.from_bytes(keccak(SUB_ACCOUNT_SLOT.to_bytes(32, "big") + key), "big")


__all__ = ["START_S", "Key", "SimulatedChain", "SimulatedSettler"]
