"""The order and arguments in which the contracts are deployed, as pure data.

Registry names Escrow and Escrow names Registry. Instead of an admin who joins the two later,
Escrow's address is predicted: a CREATE address depends only on the deployer and its nonce. So the
transactions must go out with consecutive nonces, and Escrow reverts if the prediction was wrong.
Records names nobody and is named by nobody; it goes last.

    for step in plan_deployment(deployer, nonce, terms):
        ...send step.data from `deployer`, expect the contract at step.address

Source: EIP-161 and the yellow paper for CREATE addresses; docs/decisions/0004.
"""

from dataclasses import dataclass

from sha3 import keccak_256

from hanse.contracts.artifacts import ContractName, load_artifact


@dataclass(frozen=True)
class Terms:
    """What a deployment fixes for good.

    Attributes:
        lock_time_s: how long a refund waits, 1 hour to 7 days.
        minimum_stake: base units below which a provider is not active.
        dispute_window_s: how long a claim can be disputed, 1 hour to 30 days.
        unbonding_time_s: how long a stake waits; at least lock time + dispute window.
        key_delay_s: how long a new receipt key or payee waits, 1 hour to 30 days.
    """

    lock_time_s: int = 86_400
    minimum_stake: int = 100_000_000
    dispute_window_s: int = 3 * 86_400
    unbonding_time_s: int = 4 * 86_400
    key_delay_s: int = 86_400


@dataclass(frozen=True)
class DeploymentStep:
    """One transaction: which contract, its creation data, and the address that it will get."""

    name: ContractName
    data: bytes
    address: str


def get_create_address(deployer: str, nonce: int) -> str:
    """Address of the contract that `deployer`'s transaction with this nonce creates."""
    number = b"" if nonce == 0 else nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    item = number if nonce and nonce < 0x80 else bytes((0x80 + len(number),)) + number
    row = b"\x94" + bytes.fromhex(deployer[2:]) + item
    digest: bytes = keccak_256(bytes((0xC0 + len(row),)) + row).digest()
    return "0x" + digest[12:].hex()


def plan_deployment(
    deployer: str, nonce: int, terms: Terms, asset: str | None = None
) -> tuple[DeploymentStep, ...]:
    """The transactions of a whole deployment, in order.

    Args:
        deployer: who sends them; it keeps no right over what it deploys.
        nonce: its next nonce.
        terms: fixed for good.
        asset: an ERC-20 that exists already; None deploys the test asset first.
    """
    steps: list[DeploymentStep] = []
    if asset is None:
        asset = get_create_address(deployer, nonce)
        steps.append(DeploymentStep("TestAsset", load_artifact("TestAsset").bytecode, asset))
        nonce += 1
    registry, escrow = get_create_address(deployer, nonce), get_create_address(deployer, nonce + 1)
    registry_data = load_artifact("Registry").encode_deploy(
        asset,
        escrow,
        terms.minimum_stake,
        terms.dispute_window_s,
        terms.unbonding_time_s,
        terms.key_delay_s,
    )
    escrow_data = load_artifact("Escrow").encode_deploy(asset, registry, terms.lock_time_s)
    steps.append(DeploymentStep("Registry", registry_data, registry))
    steps.append(DeploymentStep("Escrow", escrow_data, escrow))
    records = get_create_address(deployer, nonce + 2)
    steps.append(DeploymentStep("Records", load_artifact("Records").bytecode, records))
    return tuple(steps)
