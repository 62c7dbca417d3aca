"""What is bonded is followed to its end: no other file, no missing one, no failure keeps it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hanse.auditor.panels.court import Case
from hanse.auditor.watching.challenges import READ_MAX, Challenger, read_cheat
from hanse.protocol.errors import TransientError
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.protocol.ledger.panels.state import Stage
from tests.verification.audits.bought_answers import PROVIDER, calibrate
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import AUDITOR, DOMAIN, make_evidence

CHALLENGER = "0x" + "77" * 20


class FakeCourt:
    """Disputes with these cases of the challenger; what is sent is kept, or refused."""

    def __init__(self, *cases: Any, refused: str = "") -> None:
        self.address, self.now_s, self.block = CHALLENGER, 1_000, 50
        self.terms = SimpleNamespace(bond=10, seats=3, seat_fee=1)
        self.cases = {case.name: case for case in cases}
        self.disputes = SimpleNamespace(draw=lambda name: name, tally=None)
        self.sent: list[str] = []
        self.refused = refused

    @asynccontextmanager
    async def open(self, can_send: bool) -> AsyncIterator[Any]:
        yield self

    async def list_challenges(self) -> list[Any]:
        return [case.event for case in self.cases.values()]

    async def read_case(self, event: Any) -> Any:
        return self.cases[event.challenge]

    async def send(self, name: str) -> Any:
        if name == self.refused:
            raise TransientError("chain_unavailable", "the node is away")
        self.sent.append(name)
        return SimpleNamespace(transaction_hash="0x" + "ab" * 32)


def make_case(name: str, stage: Stage = Stage.DRAWING) -> Case:
    made: Any = SimpleNamespace
    return Case(
        name,
        made(challenge=name, challenger=CHALLENGER),
        made(stage=stage, provider=PROVIDER, round=1, challenger=CHALLENGER),
        made(seed_block=40, verdict=Verdict.UPHELD),
        made(),
    )


def make_challenger(folder: Path, court: FakeCourt) -> tuple[Challenger, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    opened: Any = court.open
    return Challenger(
        folder, opened, folder, DOMAIN, {AUDITOR.address}, 100, "",
        lambda document, _: told.append(document),
    ), told  # fmt: skip


async def test_a_challenge_whose_file_is_gone_is_followed_all_the_same(tmp_path: Path) -> None:
    court = FakeCourt(make_case("0x" + "01" * 32))
    challenger, told = make_challenger(tmp_path, court)
    await challenger.run_round()
    assert court.sent == ["0x" + "01" * 32]
    assert [one["event"] for one in told] == ["draw"]


async def test_a_step_that_fails_keeps_no_other_from_its_deadline(tmp_path: Path) -> None:
    first, second = "0x" + "01" * 32, "0x" + "02" * 32
    court = FakeCourt(make_case(first), make_case(second), refused=first)
    challenger, told = make_challenger(tmp_path, court)
    await challenger.run_round()
    assert court.sent == [second]
    assert [one["event"] for one in told] == ["challenge_waits", "draw"]


async def test_a_cheat_behind_a_thousand_honest_audits_is_found(tmp_path: Path) -> None:
    for number in range(5 * READ_MAX + 1):
        (tmp_path / f"0x{number:04}.json").write_bytes(b"{}")
    path = tmp_path / "0xff.json"
    path.write_bytes(make_evidence(ToyModel(weights=2), calibrate()))
    cheat = read_cheat(path, DOMAIN, {AUDITOR.address})
    assert cheat is not None
    court = FakeCourt(make_case(cheat.get_name(CHALLENGER), Stage.CLOSED))
    challenger, told = make_challenger(tmp_path, court)
    for _ in range(6):
        await challenger.run_round()
    assert [one["event"] for one in told] == ["closed"]
    assert told[0]["verdict"] == "upheld"
