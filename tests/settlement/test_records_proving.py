"""When a side asks for its proofs again."""

from dataclasses import replace

import pytest

from hanse.protocol.records import Side
from hanse.settlement.records.proving import ASK_AGAIN_S, HEAD_LAG_S, Prover
from hanse.settlement.records.submission_book import KnownRecorder, open_submission_book
from hanse.store import open_memory
from tests.settlement.test_records_submissions import NOW_S, URL, Source, answer, to_entry

KNOWN = KnownRecorder(URL, "0x" + "05" * 20, 0, "0x" + "00" * 32, "", "", "", 0)
BLOCK, PROMISED = 10, 50


class Recorder:
    """Client and watch of a recorder that has no proof yet; counts how often it was asked."""

    def __init__(self) -> None:
        self.number = self.asked = 0

    async def fetch_proofs(self, url, entries):
        self.asked += 1
        return [None] * len(entries)

    async def meet(self, url):
        return KNOWN

    async def sync(self, known, block):
        return replace(known, number=self.number)


@pytest.mark.parametrize("moved_after_s", [0, 1, 5])
async def test_a_proof_is_asked_for_again_soon_after_the_head_moved(moved_after_s):
    """Also if it moved within a second, or if the recorder notices that later than we do."""
    database, recorder = await open_memory(), Recorder()
    book = await open_submission_book(database)
    await book.collect(Source(1), to_entry, NOW_S)
    await answer(book, URL, "matched", PROMISED)
    prover = Prover(book, recorder, recorder, Side.USER, look_s=60.0)

    async def is_asked(after_s: int) -> bool:
        before = recorder.asked
        await prover.look_after(URL, BLOCK, NOW_S + after_s)
        return recorder.asked > before

    assert await is_asked(0)
    assert not await is_asked(moved_after_s)
    recorder.number = 1
    found = [await is_asked(moved_after_s + second) for second in range(HEAD_LAG_S + 5)]
    assert found == [moved_after_s > 0, *[True] * (HEAD_LAG_S - 1), *[False] * 5]
    last_s = moved_after_s + HEAD_LAG_S - 1
    assert not await is_asked(last_s + ASK_AGAIN_S - 1)
    assert await is_asked(last_s + ASK_AGAIN_S)
    await database.close()
