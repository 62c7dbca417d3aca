"""A broker that opens nothing does not get away with it, and nobody is blamed for our own line."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from hanse.auditor.files import sum_up
from hanse.auditor.reputation.evidence_folder import EvidenceFolder
from hanse.auditor.watching.draws import Record
from hanse.auditor.watching.unopened import UnopenedError, fetch_owed, note_unopened
from hanse.auditor.watching.watcher import Watcher, WatcherParts
from hanse.market.reputation import Word
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import ZERO_HASH
from tests.verification.audits.bought_answers import OFFER, sell
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import AUDITOR, DOMAIN, STRANGER

NAME = "0x" + "7e" * 32


class Books:
    async def find_voucher(self, name: str) -> Any:
        return SimpleNamespace(sub_account=SimpleNamespace(provider=OFFER.provider))


def make_parts(tmp_path: Path, told: list[dict[str, Any]]) -> WatcherParts:
    nothing: Any = None
    books: Any = Books()
    return WatcherParts(
        tmp_path, False, DOMAIN, nothing, tmp_path, books, nothing, nothing, AUDITOR,
        lambda document, _: told.append(document),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "is_signed"),
    [
        (UnopenedError("not_found", "no such opening"), True),
        (TransientError("overloaded", "too busy to open, for ever"), True),
        (TransientError("provider_unreachable", "no route"), False),
    ],
)
def test_what_is_not_opened_counts(tmp_path: Path, error: HanseError, is_signed: bool) -> None:
    told: list[dict[str, Any]] = []
    parts = make_parts(tmp_path, told)
    assert asyncio.run(note_unopened(parts, NAME, error)) == "unopened"
    assert parts.records == {OFFER.provider: Record(0, 1)}
    assert told[0]["event"] == "unopened"
    found = EvidenceFolder(tmp_path, DOMAIN).read()
    words = [(one.testimony.provider, one.testimony.word) for one in found]
    assert words == [(OFFER.provider, Word.REQUEST_FAILED)] * is_signed
    if is_signed:
        with pytest.raises(RequestError, match="no evidence"):
            sum_up([tmp_path])  # it is no audit, and no broken file either


def test_a_receipt_without_a_commitment_owes_no_opening(tmp_path: Path) -> None:
    receipt = sell(ToyModel(), 20).bought.receipt
    given_away = SignedReceipt(
        msgspec.structs.replace(receipt.receipt, commitment_root=ZERO_HASH), "0x"
    )
    voucher: Any = SimpleNamespace(signed=SimpleNamespace(signer=STRANGER.address))
    for owed, said in ((given_away, "no commitment"), (receipt, "was signed by")):
        with pytest.raises(RequestError, match=said) as caught:
            asyncio.run(fetch_owed(make_parts(tmp_path, []), voucher, owed))
        assert not isinstance(caught.value, UnopenedError)


def test_a_watcher_tries_so_often_and_then_notes_it(tmp_path: Path) -> None:
    """Whatever a broker says that it is busy with, its answer is not kept waiting for ever."""
    removed, now = [], [0.0]
    kept: Any = SimpleNamespace(list_names=lambda: [NAME] if not removed else [],
                                remove=removed.append)  # fmt: skip
    books: Any = SimpleNamespace(find_voucher=Books().find_voucher, list_receipts=list_nothing)
    parts = with_changes(make_parts(tmp_path, []), kept=kept, book=books, clock=lambda: now[0])

    class Refused(Watcher):
        async def _decide(self, name: str, waited_s: float) -> str | None:
            raise TransientError("overloaded", "too busy to open")

    async def run() -> int:
        watcher, rounds = Refused(parts), 0
        while await watcher.run_round() and rounds < 20:
            now[0], rounds = now[0] + 60, rounds + 1
        assert watcher.counts["unopened"] == 1
        return rounds

    assert asyncio.run(run()) < 20
    assert removed == [NAME]


async def list_nothing(**_: object) -> list[Any]:
    return []


def with_changes(parts: WatcherParts, **changes: Any) -> WatcherParts:
    return WatcherParts(**{**vars(parts), **changes})
