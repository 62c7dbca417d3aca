"""What a recorder's list of unmatched entries can have a side do, and no more."""

import dataclasses
from typing import Any

import pytest

from hanse.chain import Key
from hanse.protocol.eip712 import Domain
from hanse.protocol.records import RecordEntry, Side
from hanse.settlement.records.answers import Identity
from hanse.settlement.records.recorder_client import UnmatchedEntry
from hanse.settlement.records.submission_book import open_submission_book
from hanse.settlement.records.submitter import (
    RESUMES_PER_ROUND_MAX,
    RecordsSettings,
    Submitter,
)
from hanse.settlement.records.watch import ChainHead
from hanse.store import open_memory

SIGNER, STRANGER = Key(b"\x01" * 32), Key(b"\x02" * 32)
URL = "http://recorder.test"


def make_entry(provider: int, signer: str = SIGNER.address) -> UnmatchedEntry:
    names = ("0x" + "a1" * 20, f"0x{provider:040x}", signer)
    return UnmatchedEntry("provider", RecordEntry(*names, 1, "0x" + "d1" * 32, 5), "missing")


@dataclasses.dataclass
class Hostile:
    """A recorder that lists what it likes, and the chain beside it."""

    unmatched: list[UnmatchedEntry]

    async def fetch_address(self, url: str) -> str:
        return STRANGER.address

    async def fetch_unmatched(self, url: str, signed: Any) -> list[UnmatchedEntry]:
        return self.unmatched

    async def fetch_commits(self, url: str, after: int) -> list[Any]:
        return []

    async def fetch_block(self) -> int:
        return 9

    async def read_head(self, recorder: str, block: int) -> ChainHead:
        return ChainHead(block, 0, "0x" + "00" * 32)


@pytest.fixture
async def play():
    database, now, resumed = await open_memory(), [1_000.0], []
    book = await open_submission_book(database)

    async def resume(provider: str) -> None:
        resumed.append(provider)

    async def step(unmatched: list[UnmatchedEntry], after_s: float = 61.0) -> list[str]:
        recorder: Any = Hostile(unmatched)
        submitter._client = submitter._watch._client = recorder
        submitter._prover._client = recorder
        now[0] += after_s
        resumed.clear()
        await submitter.step()
        return list(resumed)

    class Nothing:
        def find_new(self, tx: Any) -> list[Any]:
            return []

        def list_passed(self, tx: Any) -> list[Any]:
            return []

    chain: Any = Hostile([])
    submitter = Submitter(
        RecordsSettings((URL,)),
        Identity(Side.USER, SIGNER.address, SIGNER, Domain(31_337, "0x" + "e5" * 20)),
        book,
        Nothing(),
        chain,
        chain,
        now_s=lambda: now[0],
        resume=resume,
    )
    step.submitter = submitter  # type: ignore[attr-defined]
    yield step
    await database.close()


async def test_invented_providers_are_asked_few_at_a_time_and_forgotten(play):
    for round_ in range(3):
        first = 1 + 1_000 * round_
        found = await play([make_entry(n) for n in range(first, first + 1_000)])
        assert len(found) == RESUMES_PER_ROUND_MAX
        assert len(play.submitter._resumed_at) == RESUMES_PER_ROUND_MAX


async def test_entries_of_others_make_us_ask_nobody(play):
    assert await play([make_entry(1, STRANGER.address)]) == []
    assert await play([make_entry(1, STRANGER.address), make_entry(2)]) == [f"0x{2:040x}"]
