"""The order and arguments in which the contracts are deployed, as pure data.

Registry names Escrow and Disputes, which name Registry. Instead of an admin who joins them later,
their addresses are predicted: a CREATE address depends only on the deployer and its nonce. So the
transactions must go out with consecutive nonces, and each reverts if the prediction was wrong.
Records names nobody and is named by nobody.

    for step in plan_deployment(deployer, nonce, terms):
        ...send step.data from `deployer`, expect the contract at step.address

Source: EIP-161 and the yellow paper for CREATE addresses; docs/decisions/0004 and 0032.
"""

from dataclasses import astuple, dataclass

from sha3 import keccak_256

from hanse.contracts.artifacts import ContractName, load_artifact

TIME_S_MIN = 60
"""The shortest of a panel's times that Disputes allows."""

DRAW_TIME_S = 600
"""What Disputes reckons with for each of the two draws, which wait for somebody to make them."""


@dataclass(frozen=True)
class PanelTerms:
    """What Disputes is deployed with; amounts in base units. In the order of its struct.

    Attributes:
        lot_stake: stake of one lot, the unit in which auditors are drawn.
        bond: what a challenger stands to lose; an appellant twice that.
        seat_fee: pay of one seat.
        seats: of a panel; odd.
        appeal_seats: of the appeal's panel; odd, more, at most 15.
        audit_window_s: how long after it finished an answer's receipt can be challenged.
        vote_time_s: to look and seal a vote.
        reveal_time_s: to reveal it.
        appeal_time_s: to appeal.
        answer_time_s: to open a challenge's sealed answer.
    """

    lot_stake: int
    bond: int
    seat_fee: int
    seats: int
    appeal_seats: int
    audit_window_s: int
    vote_time_s: int
    reveal_time_s: int
    appeal_time_s: int
    answer_time_s: int


@dataclass(frozen=True)
class Terms:
    """What a deployment fixes for good.

    Attributes:
        lock_time_s: how long a refund waits, 1 hour to 7 days.
        minimum_stake: base units below which a provider is not active.
        dispute_window_s: how long a claim can be disputed, 1 hour to 30 days.
        unbonding_time_s: how long a stake waits; at least lock time + dispute window.
        key_delay_s: how long a new receipt key or payee waits, 1 hour to 30 days.
        panels: None for `derive_panel_terms`.
    """

    lock_time_s: int = 86_400
    minimum_stake: int = 100_000_000
    dispute_window_s: int = 3 * 86_400
    unbonding_time_s: int = 4 * 86_400
    key_delay_s: int = 86_400
    panels: PanelTerms | None = None


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


def derive_panel_terms(terms: Terms) -> PanelTerms:
    """Panels that fit a deployment: amounts follow the smallest stake, times what it waits.

    The time between the lock time and the end of the unbonding is cut in twentieths: eight
    to challenge in, two to vote, one to reveal, two to appeal, one to open the answer; three
    are spare.
    With the default terms a receipt can be challenged for 28 h, and a panel has 7 h to look.
    """
    stake = terms.minimum_stake
    spare_s = terms.unbonding_time_s - terms.lock_time_s - 2 * DRAW_TIME_S
    part_s = max(TIME_S_MIN, spare_s // 20)
    return PanelTerms(
        lot_stake=max(16, stake),
        bond=stake // 5,
        seat_fee=max(1, stake // 200),
        seats=5,
        appeal_seats=11,
        audit_window_s=8 * part_s,
        vote_time_s=2 * part_s,
        reveal_time_s=part_s,
        appeal_time_s=2 * part_s,
        answer_time_s=part_s,
    )


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
    registry, escrow, records, disputes = (
        get_create_address(deployer, nonce + later) for later in range(4)
    )
    registry_data = load_artifact("Registry").encode_deploy(
        asset,
        escrow,
        disputes,
        terms.minimum_stake,
        terms.dispute_window_s,
        terms.unbonding_time_s,
        terms.key_delay_s,
    )
    escrow_data = load_artifact("Escrow").encode_deploy(asset, registry, terms.lock_time_s)
    steps.append(DeploymentStep("Registry", registry_data, registry))
    steps.append(DeploymentStep("Escrow", escrow_data, escrow))
    steps.append(DeploymentStep("Records", load_artifact("Records").bytecode, records))
    panels = terms.panels or derive_panel_terms(terms)
    disputes_data = load_artifact("Disputes").encode_deploy(
        asset, registry, escrow, astuple(panels)
    )
    steps.append(DeploymentStep("Disputes", disputes_data, disputes))
    return tuple(steps)
