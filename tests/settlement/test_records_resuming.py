"""What a recorder's list of unmatched entries can have a side do, and no more."""

import dataclasses
from typing import Any

import pytest

from hanse.chain import Key
from hanse.protocol.eip712 import Domain
from hanse.protocol.records import RecordEntry, Side
from hanse.settlement.records.answers import Identity
from hanse.settlement.records.recorder_client import UnmatchedEntry, UnmatchedPage
from hanse.settlement.records.submission_book import open_submission_book
from hanse.settlement.records.submitter import (
    RESUMES_PER_ROUND_MAX,
    RESUMES_REMEMBERED_MAX,
    UNMATCHED_PAGES_PER_ROUND_MAX,
    RecordsSettings,
    Submitter,
)
from hanse.settlement.records.watch import ChainHead
from hanse.store import open_memory

SIGNER, STRANGER = Key(b"\x01" * 32), Key(b"\x02" * 32)
URL = "http://recorder.test"


def make_entry(provider: int, signer: str = SIGNER.address, sequence: int = 1) -> UnmatchedEntry:
    names = ("0x" + "a1" * 20, f"0x{provider:040x}", signer)
    return UnmatchedEntry("provider", RecordEntry(*names, sequence, "0x" + "d1" * 32, 5), "missing")


@dataclasses.dataclass
class Hostile:
    """A recorder that lists what it likes, and the chain beside it."""

    unmatched: list[UnmatchedEntry]
    per_page: int = 0
    pages: int = 0

    async def fetch_address(self, url: str) -> str:
        return STRANGER.address

    async def fetch_unmatched(self, url: str, signed: Any, after: str = "") -> UnmatchedPage:
        if not self.per_page:
            return UnmatchedPage(self.unmatched)
        # as a recorder does it: in the order of providers and sequences, from a place on
        provider, _, sequence = after.partition(".")
        place = (provider, int(sequence) if sequence else 2**64)
        rest = sorted(
            (one for one in self.unmatched if (one.entry.provider, one.entry.sequence) > place),
            key=lambda one: (one.entry.provider, one.entry.sequence),
        )
        self.pages += 1
        page, more = rest[: self.per_page], rest[self.per_page :]
        last = page[-1].entry if page else None
        return UnmatchedPage(page, f"{last.provider}.{last.sequence}" if last and more else "")

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

    async def step(
        unmatched: list[UnmatchedEntry], after_s: float = 61.0, per_page: int = 0
    ) -> list[str]:
        recorder: Any = Hostile(unmatched, per_page)
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
    for round_ in range(60):
        await play([make_entry(n) for n in range(10_000 + 20 * round_, 10_020 + 20 * round_)])
    assert len(play.submitter._resumed_at) <= RESUMES_REMEMBERED_MAX


async def test_entries_of_others_make_us_ask_nobody(play):
    assert await play([make_entry(1, STRANGER.address)]) == []
    assert await play([make_entry(1, STRANGER.address), make_entry(2)]) == [f"0x{2:040x}"]


async def test_a_provider_with_many_entries_hides_no_other(play):
    entries = [make_entry(1, sequence=n) for n in range(1, 1_001)]
    found = await play([*entries, make_entry(2)], per_page=5)
    assert found == [f"0x{1:040x}", f"0x{2:040x}"]


async def test_many_providers_with_low_addresses_hide_no_other(play):
    """However many pages they fill and however often they come back, each one's turn comes."""
    many = 3 * UNMATCHED_PAGES_PER_ROUND_MAX
    asked = set()
    for _ in range(8):
        asked |= set(await play([make_entry(n) for n in range(1, many + 1)], per_page=1))
    assert asked == {f"0x{n:040x}" for n in range(1, many + 1)}


async def test_low_addresses_that_come_back_give_way_to_others(play):
    entries = [make_entry(n) for n in range(1, RESUMES_PER_ROUND_MAX + 2)]
    first, second = await play(entries), await play(entries)
    assert len(set(first) | set(second)) == RESUMES_PER_ROUND_MAX + 1
