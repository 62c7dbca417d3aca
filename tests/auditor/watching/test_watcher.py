"""What becomes of kept answers, one by one, without a chain and without a model."""

import asyncio
import stat
from types import SimpleNamespace
from typing import Any

import pytest

from hanse.auditor.watching.draws import OWN, Decision, DrawRules, Draws, Record, open_secret
from hanse.auditor.watching.evidence_files import get_evidence_path
from hanse.auditor.watching.rounds import count_records, run_rounds
from hanse.auditor.watching.watcher import DEATHS_MAX, PAUSE_S, Watcher, WatcherParts
from hanse.market.reputation import Word
from hanse.market.reputation import testimony as words
from hanse.protocol.commitments.lottery import is_drawn
from hanse.protocol.errors import RequestError, TransientError, VerificationError
from hanse.settlement.books.voucher_records import StoredReceipt, Verification
from hanse.settlement.keeping.kept_answers import KeptAnswers
from hanse.settlement.records.sources import get_receipt_digest
from hanse.settlement.traces.document import Side, Trace
from hanse.verification.audits.schedule import Draw
from tests.auditor.test_openings import make_voucher
from tests.chain.dying_writer import write_and_fail
from tests.protocol.made_messages import (
    DOMAIN,
    PROVIDER,
    RECEIPT_ADDRESS,
    SIGNER,
    make_offer,
    make_receipt,
)
from tests.settlement.trace_parts import BODY, PATH, RESPONSE, make_request
from tests.verification.audits.bought_answers import OFFER, sell
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import USER


class Fakes:
    """A watcher whose draws, copies and books are made up."""

    def __init__(self, tmp_path: Any, draw: Draw = Draw.PASSED, **receipt_fields: Any) -> None:
        self.kept = KeptAnswers(tmp_path / "kept")
        self.evidence = tmp_path / "evidence"
        self.evidence.mkdir(exist_ok=True)
        self.draw, self.failure, self.has_copy, self.is_booked = draw, None, True, True
        self.now, self.looks = 1_000.0, 0
        self.told: list[dict[str, Any]] = []
        self.requests = {}
        for number in (1, 2):
            voucher, receipt = make_request(number)
            response_hash = receipt.receipt.response_hash
            receipt = make_receipt(
                voucher, sequence=number, response_hash=response_hash, **receipt_fields
            )
            self.requests[voucher.request.request_id] = (voucher, receipt)
            trace = Trace(Side.USER, voucher.request, receipt, PATH, BODY, RESPONSE)
            self.kept.add(trace)
        self.watcher = Watcher(
            WatcherParts(
                tmp_path / "cache",
                False,
                DOMAIN,
                self.kept,
                self.evidence,
                self,
                self,
                self,
                SimpleNamespace(address=SIGNER),
                lambda document, text: self.told.append(document),
                clock=lambda: self.now,
            )
        )

    async def list_receipts(self, **_: object) -> list[object]:
        return []

    async def find_voucher(self, name: str) -> Any:
        if not self.is_booked:
            return None
        return SimpleNamespace(
            receipt_key=RECEIPT_ADDRESS,
            offer=SimpleNamespace(offer=make_offer(endpoints=())),
            sub_account=SimpleNamespace(provider=PROVIDER),
            signed=self.requests[name][0],
        )

    async def find_receipt(self, name: str) -> Any:
        return SimpleNamespace(signed=self.requests[name][1])

    def get_means(self, offer: Any) -> Any:
        if not self.has_copy:
            raise RequestError("not_found", "there is no copy of its provider at hand")
        return [object()]

    async def decide(self, voucher: Any, receipt: Any, record: Record, waited_s: float) -> Decision:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        return Decision(self.draw, 10_000, "own secret")


async def test_what_is_not_drawn_is_forgotten_at_once(tmp_path):
    fakes = Fakes(tmp_path)
    assert await fakes.watcher.run_round() == 0
    assert fakes.watcher.counts == {"passed over": 2}
    assert fakes.kept.list_names() == []
    assert not list(fakes.evidence.iterdir())


async def test_what_waits_for_its_block_is_looked_at_ever_more_seldom(tmp_path):
    fakes = Fakes(tmp_path, Draw.WAITING)
    for _ in range(100):
        assert await fakes.watcher.run_round() == 2
        fakes.now += 0.5
    assert fakes.looks < 2 * (50 / PAUSE_S + 4)
    fakes.draw = Draw.PASSED
    fakes.now += PAUSE_S
    assert await fakes.watcher.run_round() == 0


async def test_an_answer_that_was_audited_before_a_kill_is_not_audited_again(tmp_path):
    fakes = Fakes(tmp_path, Draw.DUE)
    for name in fakes.requests:
        get_evidence_path(fakes.evidence, name).write_bytes(b"{}")
    assert await fakes.watcher.run_round() == 0
    assert (fakes.looks, fakes.watcher.counts) == (0, {"audited before": 2})


async def test_an_answer_without_a_copy_at_hand_is_let_go_of_and_that_is_said(tmp_path):
    fakes = Fakes(tmp_path, Draw.DUE)
    fakes.has_copy = False
    assert await fakes.watcher.run_round() == 0
    assert [one["event"] for one in fakes.told] == ["not_audited"] * 2
    assert "no copy" in fakes.told[0]["message"]


async def test_a_node_that_is_away_is_waited_for_and_a_broker_only_so_often(tmp_path):
    fakes = Fakes(tmp_path, Draw.DUE)
    for code, left in (("chain_unavailable", 2), ("provider_unreachable", 0)):
        fakes.failure = TransientError(code, "away")
        for _ in range(30):
            assert await fakes.watcher.run_round() >= left
            fakes.now += PAUSE_S
        assert len(fakes.kept.list_names()) == left
    assert fakes.watcher.counts == {"unopened": 2}


async def test_books_that_are_behind_are_waited_for(tmp_path):
    fakes = Fakes(tmp_path)
    fakes.is_booked = False
    assert await fakes.watcher.run_round() == 2
    fakes.is_booked, fakes.now = True, fakes.now + 1
    assert await fakes.watcher.run_round() == 0


async def test_a_damaged_file_and_an_answer_that_kills_auditors_hold_up_nobody(tmp_path):
    fakes = Fakes(tmp_path, Draw.DUE)
    first, second = fakes.requests
    path = fakes.kept.folder / f"{first}.kept"
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(DEATHS_MAX):
        fakes.kept.count_try(second)  # processes that died in it
    assert await fakes.watcher.run_round() == 0
    assert fakes.watcher.counts == {
        "not audited: trace_invalid": 1,
        "not audited: internal_error": 1,
    }
    assert not [one for one in fakes.kept.folder.iterdir() if one.name != "key"]


async def test_a_defect_ends_one_audit_and_shows_nothing_of_the_answer(tmp_path, caplog):
    fakes = Fakes(tmp_path, Draw.DUE)
    fakes.failure = ValueError("a prompt that nobody else may read")
    assert await fakes.watcher.run_round() == 0
    assert fakes.watcher.counts == {"not audited: internal_error": 2}
    assert "nobody else" not in caplog.text + str(fakes.told)


def test_a_record_is_clean_since_the_last_cheat():
    one, other = "0x" + "1" * 40, "0x" + "2" * 40
    said = [(one, Word.AUDIT_PASSED, 1), (one, Word.AUDIT_FAILED, 2), (one, Word.AUDIT_PASSED, 4),
             (one, Word.AUDIT_PASSED, 3), (other, Word.AUDIT_DOUBTED, 1)]  # fmt: skip
    told = [
        words.Testimony(f"0x{number:064x}", provider, other, word, at_s)
        for number, (provider, word, at_s) in enumerate(said)
    ]
    assert count_records(told) == {one: Record(clean=2, failed=1)}


def test_the_buyers_secret_is_its_own_and_stays(tmp_path):
    path = tmp_path / "audits" / "draw.key"
    secret = open_secret(path)
    assert open_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_secret(tmp_path / "other.key") != secret
    path.write_text("")
    with pytest.raises(RequestError, match="remove it"):
        open_secret(path)


@pytest.mark.parametrize("dies", [True, False])
def test_half_a_secret_is_never_kept(tmp_path, dies):
    path = tmp_path / "audits" / "draw.key"
    imports = "from hanse.auditor.watching.draws import open_secret"
    write_and_fail(path, imports, "open_secret(path)", dies=dies)
    assert not path.exists()
    assert len(open_secret(path)) == 66


async def test_a_round_ends_between_two_answers_when_something_else_is_due(tmp_path):
    fakes = Fakes(tmp_path)
    assert await fakes.watcher.run_round(lambda: True) == 0
    assert fakes.watcher.counts == {"passed over": 1}
    assert len(fakes.kept.list_names()) == 1
    await fakes.watcher.run_round(lambda: True)
    assert fakes.kept.list_names() == []


async def test_a_broker_that_never_opens_is_noted_and_no_death_of_the_auditor(tmp_path):
    """More tries of it than audits that may be begun; nobody answers at any endpoint."""
    fakes = Fakes(tmp_path, Draw.DUE, commitment_root="0x" + "5a" * 32)
    for _ in range(30):
        await fakes.watcher.run_round()
        fakes.now += PAUSE_S
    assert fakes.watcher.counts == {"unopened": 2}
    assert {one["event"] for one in fakes.told} == {"unopened"}


async def test_a_recorder_whose_proof_does_not_hold_keeps_nothing_from_its_draw(tmp_path):
    async def prove(signed: Any, document: Any) -> Any:
        raise VerificationError("response_malformed", "a recorder's answer is none")

    class Unpriced(Draws):
        async def _get_rate_ppm(self, *_: Any) -> int:
            return 1_000_000

    addresses = dict.fromkeys(("escrow", "registry", "records"), PROVIDER)
    deployment: Any = SimpleNamespace(chain_id=DOMAIN.chain_id, confirmations=1, **addresses)
    nobody: Any = None
    draws = Unpriced(nobody, deployment, DrawRules(record_wait_s=5.0), "0x" + "01" * 32, prove)
    voucher = make_voucher(OFFER, USER)
    signed = sell(ToyModel(), 8).bought.receipt
    receipt = StoredReceipt("", signed, Verification.VERIFIED, "", True, 0)
    decisions = [await draws.decide(voucher, receipt, Record(), waited_s) for waited_s in (4, 6)]
    assert [(one.draw, one.by) for one in decisions] == [(Draw.WAITING, ""), (Draw.DUE, OWN)]


@pytest.mark.parametrize(
    ("block", "secret", "decided"),
    [
        pytest.param("passes", "passes", (Draw.PASSED, "block"), id="neither"),
        pytest.param("draws", "passes", (Draw.DUE, "block"), id="the chain"),
        pytest.param("passes", "draws", (Draw.DUE, "own"), id="a block chosen to pass it over"),
        pytest.param("draws", "draws", (Draw.DUE, "block"), id="both"),
    ],
)
async def test_a_recorder_that_chooses_among_roots_keeps_nothing_from_the_buyers_draw(
    block: str, secret: str, decided: tuple[Draw, str]
):
    signed = sell(ToyModel(), 8).bought.receipt
    digest = get_receipt_digest(signed, DOMAIN)
    seeds = [f"0x{number:064x}" for number in range(1, 200)]
    chosen = {
        name: next(seed for seed in seeds if is_drawn(seed, digest, 300_000) is wanted)
        for name, wanted in (("passes", False), ("draws", True))
    }

    class Recorded(Draws):
        async def _get_rate_ppm(self, *_: Any) -> int:
            return 300_000

        async def _find_commit(self, *_: Any) -> int:
            return 7

    class Node:
        async def fetch_headers_at(self, numbers: Any) -> Any:
            return [SimpleNamespace(hash=chosen[block]) for _ in numbers]

        async def fetch_block(self) -> int:
            return 1_000

    addresses = dict.fromkeys(("escrow", "registry", "records"), PROVIDER)
    deployment: Any = SimpleNamespace(chain_id=DOMAIN.chain_id, confirmations=1, **addresses)
    node: Any = Node()
    draws = Recorded(node, deployment, DrawRules(), chosen[secret], None)
    draws._records = node
    receipt = StoredReceipt("", signed, Verification.VERIFIED, "", True, 0)
    found = await draws.decide(make_voucher(OFFER, USER), receipt, Record(), 0.0)
    assert (found.draw, found.by.split()[0]) == decided


async def test_a_full_disk_is_said_once_and_waited_for(tmp_path):
    fakes, stop = Fakes(tmp_path), asyncio.Event()
    rounds = []

    async def list_receipts(**_: object) -> list[object]:
        rounds.append(1)
        if len(rounds) < 3:
            raise TransientError("store_unavailable", "no space left")
        stop.set()
        return []

    fakes.list_receipts = list_receipts
    await asyncio.wait_for(run_rounds(fakes.watcher, None, stop), 20)
    assert [one["event"] for one in fakes.told] == ["audits_wait"]
    assert fakes.watcher.counts["passed over"] == 1, "the one at work is finished"


async def test_bills_that_came_in_a_long_audit_are_looked_at_and_others_once(tmp_path):
    """More than a page of them, and one without its commitment in the middle."""
    fakes, asked, pages = Fakes(tmp_path), [], []
    receipts = [
        SimpleNamespace(verification=Verification.VERIFIED, request_id=f"{at}", received_at=at)
        for at in range(1_000, 1_250)
    ]
    receipts[100].verification = Verification.UNCOMMITTED

    async def list_receipts(*, before: int, limit: int, offset: int) -> list[Any]:
        pages.append(offset)
        return receipts[::-1][offset : offset + limit]

    async def find_voucher(name: str) -> None:
        asked.append(name)

    fakes.list_receipts, fakes.find_voucher = list_receipts, find_voucher
    await fakes.watcher.run_round()
    assert "1100" in asked
    assert pages == [0, 100, 200]
    await fakes.watcher.run_round()
    assert asked.count("1100") == 1
    assert pages[3:] == [0], "what was looked at is not paged through again"
