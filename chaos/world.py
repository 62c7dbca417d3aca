"""Everything that one run shares: loop, lots, chain, network, and what was seen.

One seed makes one world. Each part draws from a lot of its own (`lot_of`), so that a change in one
part moves the others as little as possible.
"""

import hashlib
import json
import zlib
from collections import Counter, deque
from pathlib import Path
from random import Random
from typing import Any

import pyrevm

from chaos.bugs import Bug
from chaos.chain.blocks import Chain
from chaos.chain.node import CHAIN_ID
from chaos.chain.state import Block, State
from chaos.machine.loop import Process, VirtualLoop
from chaos.machine.network import Network
from hanse.chain import Deployment, Key
from hanse.contracts.artifacts import load_artifact
from hanse.contracts.deployment import Terms, plan_deployment
from hanse.protocol.eip712 import Domain
from hanse.protocol.signatures import keccak, to_hex

START_S = 1_800_000_000

CHAIN_SPEED = 30
"""The chain's clock runs this much faster than everybody's, so that a lock time of an hour passes
in two minutes of the run. Nothing compares the two: refunds and permits count by the chain's."""

CONFIRMATIONS = 3
"""k: how deep a reorganisation may go."""

TERMS = Terms(
    lock_time_s=3_600,
    minimum_stake=1_000_000,
    dispute_window_s=3_600,
    unbonding_time_s=2 * 86_400,
    key_delay_s=3_600,
)

WALLET = 10_000_000
"""Base units that each role begins with."""

TRACE_KEPT = 4_000
"""Newest events that a failing run shows."""


class World:
    """See the module.

    Attributes:
        violations: what must not be and was; a run with one has failed.
        counts: faults that really happened, by kind.
        tallies: what else happened: requests, receipts, transactions.
        served: answer id -> how often an engine began to work on it.
        minted: base units that exist.
        objects: what stands in the store of traces, by its hash.
        crash_sites: where tasks stood when their process was killed.
    """

    def __init__(self, seed: int, folder: Path, bug: Bug = Bug.NONE) -> None:
        self.seed = seed
        self.folder = folder
        self.bug = bug
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.tallies: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.minted = 0
        self.objects: dict[str, bytes] = {}
        self.crash_sites: set[str] = set()
        self.trace: deque[str] = deque(maxlen=TRACE_KEPT)
        self._digest = 0
        self._text_digest = hashlib.sha256()
        self.loop = VirtualLoop(self.lot_of("turns"))
        self.loop.on_turn = self._note_turn
        self.loop.set_exception_handler(self._note_lost_error)
        self.network = Network(self.loop, self.lot_of("network"), self.counts)
        self.chain, self.deployment = self._begin_chain()
        self.domain = Domain(CHAIN_ID, self.deployment.escrow)

    def lot_of(self, part: str) -> Random:
        """The chance of one part."""
        return Random(f"{self.seed}/{part}")  # noqa: S311 (repeatable, not secret)

    def get_chain_time_s(self) -> float:
        """What the chain's clock shows."""
        return START_S + self.loop.time() * CHAIN_SPEED

    def note(self, text: str) -> None:
        """One event of the trace."""
        line = f"{self.loop.time():10.3f} {text}"
        self.trace.append(line)
        self._text_digest.update(line.encode())

    def violate(self, text: str) -> None:
        """Something that must not be."""
        self.note(f"VIOLATION {text}")
        if len(self.violations) < 100:
            self.violations.append(text)

    def get_trace_hash(self) -> str:
        """Equal for two runs only if every turn of the loop and every event was the same."""
        self._text_digest.update(str(self._digest).encode())
        return self._text_digest.hexdigest()

    def _note_turn(self, process: Process | None) -> None:
        name = process.encoded if process is not None else b"world"
        self._digest = zlib.crc32(name, self._digest) ^ hash(self.loop.time())

    def _note_lost_error(self, loop: Any, context: dict[str, Any]) -> None:
        self.violate(f"an error that nobody looked at: {context}"[:500])

    def _begin_chain(self) -> tuple[Chain, Deployment]:
        env = pyrevm.Env(cfg=pyrevm.CfgEnv(chain_id=CHAIN_ID))
        evm = pyrevm.EVM(env=env, spec_id="PRAGUE")
        evm.set_block_env(pyrevm.BlockEnv(number=0, timestamp=START_S, basefee=0))
        deployer = get_key("deployer").address
        found: dict[str, str] = {}
        for step in plan_deployment(deployer, 0, TERMS):
            evm.snapshot()  # every commit ends one
            address = evm.deploy(deployer, step.data).lower()
            evm.commit()
            assert address == step.address, (step.name, address, step.address)
            found[step.name.lower()] = address
        asset = load_artifact("TestAsset")
        for role in ("user", "gateway", "broker-1", "broker-2"):
            owner = get_key(role).address
            mint = asset.encode_call("mint", owner, WALLET)
            evm.snapshot()
            evm.message_call(deployer, found["testasset"], calldata=mint)
            evm.commit()
            self.minted += WALLET
        genesis_hash = to_hex(keccak(f"genesis {self.seed}".encode()))
        genesis = Block(0, genesis_hash, "0x" + "00" * 32, None, START_S, 10**9, (), (), {})
        lot = self.lot_of("chain")
        chain = Chain(State(evm, genesis), genesis, lot, self.get_chain_time_s)
        values: dict[str, Any] = {
            "chain_id": CHAIN_ID,
            "genesis_hash": genesis_hash,
            "asset": found["testasset"],
            "registry": found["registry"],
            "escrow": found["escrow"],
            "records": found["records"],
            "disputes": found["disputes"],
            "lock_time_s": TERMS.lock_time_s,
            "confirmations": CONFIRMATIONS,
            "start_block": 1,
        }
        return chain, Deployment(**values)

    def write_trace(self, path: Path) -> None:
        """The last events, the violations first."""
        head = json.dumps({"seed": self.seed, "violations": self.violations}, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + "\n" + "\n".join(self.trace) + "\n")


def get_key(role: str) -> Key:
    """A role's key."""
    return Key(keccak(f"chaos {role}".encode()))
