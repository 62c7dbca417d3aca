"""An EVM in this process with Hanse deployed on it, for the tests of the contracts and bench_gas.

Calls run as transactions of their own, except that storage stays warm: gas is asked of `gas_of`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyrevm
import pytest
from coincurve import PrivateKey
from eth_abi.abi import decode, encode

from hanse.contracts.artifacts import Artifact, FunctionAbi, load_artifact
from hanse.contracts.claims import Claim
from hanse.contracts.deployment import Terms, plan_deployment
from hanse.protocol.eip712 import Domain
from hanse.protocol.intents import Permit, ReceiveAuthorization, get_asset_digest
from hanse.protocol.messages import Voucher
from hanse.protocol.signatures import get_address, keccak, sign_digest, to_bytes, to_compact
from tests.contracts.cold_gas import SPEC, measure_gas

START_S = 1_800_000_000
CHAIN_ID = 31_337


class Reverted(Exception):  # noqa: N818  # reads as what happened
    """A call reverted; `reason` is its text, "" for a bare revert."""

    def __init__(self, reason: str, output: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.output = output


def reverts(reason: str) -> "pytest.RaisesExc[Reverted]":
    """Expect exactly this reason."""
    return pytest.raises(Reverted, match=f"^{re.escape(reason)}$")


@dataclass(frozen=True)
class Key:
    """A role's key."""

    secret: PrivateKey
    address: str

    def sign(self, digest: bytes) -> str:
        return sign_digest(self.secret, digest)


def key_of(role: str) -> Key:
    secret = PrivateKey(keccak(role.encode()))
    return Key(secret, get_address(secret.public_key))


@dataclass(frozen=True)
class Event:
    contract: str
    name: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    output: tuple[Any, ...]
    events: list[Event]
    gas: int

    def event(self, name: str) -> dict[str, Any]:
        (found,) = [event.fields for event in self.events if event.name == name]
        return found


@dataclass
class LocalEvm:
    """pyrevm with names for what is deployed, and a clock that only tests move."""

    evm: Any = field(default_factory=lambda: _new_evm())
    now_s: int = START_S
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    chain_id: int = CHAIN_ID
    block: int = 1

    def __post_init__(self) -> None:
        self._apply_env()

    def _apply_env(self) -> None:
        self.evm.set_block_env(self._block())

    def _block(self) -> Any:
        return pyrevm.BlockEnv(number=self.block, timestamp=self.now_s, basefee=0)

    def advance(self, seconds: int) -> None:
        self.now_s += seconds
        self._apply_env()

    def mine(self, blocks: int) -> None:
        """So many blocks later; a block's hash is keccak of its number's digits here."""
        self.block += blocks
        self._apply_env()

    def get_block_hash(self, number: int) -> bytes:
        return keccak(str(number).encode())

    def deploy(self, deployer: str, data: bytes, artifact: Artifact) -> str:
        checkpoint = self.evm.snapshot()
        try:
            address = self.evm.deploy(deployer, data).lower()
        except RuntimeError as error:
            self.evm.revert(checkpoint)
            raise _reverted(error) from None
        self.evm.commit()
        self.evm.reset_transient_storage()
        self.artifacts[address] = artifact
        return address

    def send(self, caller: str, to: str, data: bytes) -> tuple[bytes, list[Event], int]:
        """One transaction; a revert leaves nothing behind."""
        checkpoint = self.evm.snapshot()
        try:
            output = self.evm.message_call(caller, to, calldata=data)
        except RuntimeError as error:
            self.evm.revert(checkpoint)
            self.evm.reset_transient_storage()
            raise _reverted(error) from None
        result = self.evm.result
        self.evm.commit()
        self.evm.reset_transient_storage()
        return bytes(output), self._decode(result.logs), result.gas_used

    def _decode(self, logs: list[Any]) -> list[Event]:
        events = []
        for log in logs:
            artifact = self.artifacts[log.address.lower()]
            topics, body = log.data
            name, fields = artifact.decode_log([bytes(t) for t in topics], bytes(body))
            events.append(Event(artifact.name, name, fields))
        return events

    def call(self, caller: str, to: str, function: str, *arguments: Any) -> Outcome:
        artifact = self.artifacts[to]
        output, events, gas = self.send(caller, to, artifact.encode_call(function, *arguments))
        return Outcome(artifact.decode_output(function, output), events, gas)

    def view(self, to: str, function: str, *arguments: Any) -> Any:
        entry = self.artifacts[to].functions[function]
        try:
            data = _encode_view(entry, *arguments)
        except TypeError:  # a list among them cannot be looked up
            data = _encode_view.__wrapped__(entry, *arguments)
        checkpoint = self.evm.snapshot()
        try:
            output = self.evm.message_call("0x" + "00" * 19 + "01", to, calldata=data)
        except RuntimeError as error:
            raise _reverted(error) from None
        finally:
            self.evm.revert(checkpoint)
        values = _decode_view(entry.outputs, bytes(output))
        return values[0] if len(values) == 1 else values

    def gas_of(self, caller: str, to: str, data: bytes) -> int:
        """Gas of the whole transaction as a chain would charge it; the state stays as it is."""
        gas, _ = measure_gas(self.evm, self._block(), self.chain_id, caller, to, data)
        return gas

    def logs_on_fork(self, caller: str, to: str, data: bytes, chain_id: int) -> list[Event]:
        """Events of a transaction on a copy of the state whose chain has another id."""
        _, logs = measure_gas(self.evm, self._block(), chain_id, caller, to, data)
        return self._decode(logs)


# Invariants look at the same places after every step: the codec would take most of their time.


@lru_cache(1 << 14, typed=True)
def _encode_view(entry: FunctionAbi, *arguments: Any) -> bytes:
    return entry.selector + encode(entry.inputs, arguments)


@lru_cache(1 << 14)
def _decode_view(outputs: tuple[str, ...], output: bytes) -> tuple[Any, ...]:
    return decode(outputs, output)


def _new_evm() -> Any:
    return pyrevm.EVM(env=pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=CHAIN_ID)), spec_id=SPEC)


def _reverted(error: RuntimeError) -> Reverted:
    text = str(error)
    match = re.search(r"output: 0x([0-9a-f]*)", text)
    if match is None:
        raise AssertionError(f"not a revert: {text}")
    output = bytes.fromhex(match[1])
    if output[:4] == bytes.fromhex("08c379a0"):
        length = int.from_bytes(output[36:68], "big")
        return Reverted(output[68 : 68 + length].decode(), output)
    return Reverted("", output)


@dataclass
class Hanse:
    """The five contracts on one EVM, with shorthands for what tests do all the time."""

    chain: LocalEvm
    asset: str
    registry: str
    escrow: str
    terms: Terms
    domain: Domain
    records: str
    disputes: str

    def mint(self, holder: str, amount: int, spender: str | None = None) -> None:
        self.chain.call(holder, self.asset, "mint", holder, amount)
        self.chain.call(holder, self.asset, "approve", spender or self.escrow, 2**256 - 1)

    def held(self, holder: str) -> int:
        amount: int = self.chain.view(self.asset, "balanceOf", holder)
        return amount

    def register(self, provider: Key, receipt_key: Key, payee: str | None = None) -> None:
        self.mint(provider.address, self.terms.minimum_stake, self.registry)
        self.chain.call(
            provider.address,
            self.registry,
            "register",
            self.terms.minimum_stake,
            receipt_key.address,
            payee or provider.address,
        )

    def escrow_call(self, caller: Key, function: str, *arguments: Any) -> Outcome:
        return self.chain.call(caller.address, self.escrow, function, *arguments)

    def disputes_call(self, caller: Key, function: str, *arguments: Any) -> Outcome:
        return self.chain.call(caller.address, self.disputes, function, *arguments)

    def registry_call(self, caller: Key, function: str, *arguments: Any) -> Outcome:
        return self.chain.call(caller.address, self.registry, function, *arguments)

    def sub_account(self, user: Key, provider: Key, signer: Key) -> tuple[int, ...]:
        values: tuple[int, ...] = self.chain.view(
            self.escrow, "get_sub_account", user.address, provider.address, signer.address
        )
        return values

    def account(self, user: Key) -> int:
        amount: int = self.chain.view(self.escrow, "accounts", user.address)
        return amount

    def sign_permit(
        self, owner: Key, spender: str, amount: int, deadline: int, nonce: int | None = None
    ) -> tuple[int, bytes, bytes]:
        if nonce is None:
            nonce = self.chain.view(self.asset, "nonces", owner.address)
        permit = Permit(owner.address, spender, amount, nonce, deadline)
        return self.sign_for_asset(owner, permit)

    def sign_for_asset(
        self, key: Key, message: Permit | ReceiveAuthorization
    ) -> tuple[int, bytes, bytes]:
        separator = self.chain.view(self.asset, "DOMAIN_SEPARATOR")
        raw = to_bytes(key.sign(get_asset_digest(separator, message)))
        return raw[64], raw[:32], raw[32:64]

    def claim(
        self,
        user: Key,
        provider: Key,
        signer: Key,
        cumulative_max: int,
        claimed: int | None = None,
        sequence: int = 1,
        sequence_max: int | None = None,
        *,
        request_hash: str = "0x" + "ab" * 32,
        domain: Domain | None = None,
        signed_by: Key | None = None,
        change: Callable[[bytes, bytes], tuple[bytes, bytes]] = lambda r, vs: (r, vs),
    ) -> tuple[Any, ...]:
        """One claim as the ABI takes it, with a real voucher signature."""
        last = sequence if sequence_max is None else sequence_max
        voucher = Voucher(user.address, provider.address, cumulative_max, last, request_hash)
        digest = (domain or self.domain).digest(voucher.struct_hash())
        r, vs = change(*to_compact((signed_by or signer).sign(digest)))
        claim = Claim(
            user=user.address,
            signer=signer.address,
            cumulative_max=cumulative_max,
            claimed=cumulative_max if claimed is None else claimed,
            sequence=sequence,
            sequence_max=last,
            request_hash=to_bytes(request_hash),
            r=r,
            vs=vs,
        )
        return claim.to_abi()

    def settle(self, caller: Key, provider: Key, *claims: tuple[Any, ...]) -> Outcome:
        return self.escrow_call(caller, "settle", provider.address, list(claims), bytes(32))


TERMS = Terms()


def deploy_hanse(
    terms: Terms = TERMS, asset: str | None = None, chain: LocalEvm | None = None
) -> Hanse:
    """Deploy everything; `asset` is one that is on `chain` already."""
    chain = chain or LocalEvm()
    deployer = key_of("deployer").address
    nonce = chain.evm.basic(deployer).nonce
    addresses = {}
    for step in plan_deployment(deployer, nonce, terms, asset):
        address = chain.deploy(deployer, step.data, load_artifact(step.name))
        assert address == step.address, (address, step.address)
        addresses[step.name] = address
    escrow = addresses["Escrow"]
    return Hanse(
        chain=chain,
        asset=asset or addresses["TestAsset"],
        registry=addresses["Registry"],
        escrow=escrow,
        terms=terms,
        domain=Domain(chain.chain_id, escrow),
        records=addresses["Records"],
        disputes=addresses["Disputes"],
    )
