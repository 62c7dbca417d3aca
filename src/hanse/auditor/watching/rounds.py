"""Watcher and challenger, again and again, and what earlier audits count for."""

import asyncio
from collections.abc import Iterable

from hanse.auditor.watching.challenges import Challenger
from hanse.auditor.watching.draws import Record
from hanse.auditor.watching.watcher import Watcher
from hanse.market.reputation import Testimony, Word
from hanse.protocol.errors import TransientError
from hanse.protocol.signatures import Address

LOOK_S = 0.5
"""Between two looks at the folder of kept answers: one listing."""

CHALLENGE_LOOK_S = 2.0
"""Between two looks at challenges that are open; a step of theirs takes some blocks."""


def count_records(testimonies: Iterable[Testimony]) -> dict[Address, Record]:
    """How earlier audits of each provider went, by this home's own evidence."""
    records: dict[Address, Record] = {}
    for said in sorted(testimonies, key=lambda said: said.at_s):
        if said.word in (Word.AUDIT_PASSED, Word.AUDIT_FAILED):
            known = records.get(said.provider, Record())
            records[said.provider] = known.add(is_failed=said.word is Word.AUDIT_FAILED)
    return records


async def run_rounds(watcher: Watcher, challenger: Challenger | None, stop: asyncio.Event) -> None:
    """Rounds until it is stopped; an audit that is at work is finished.

    Challenges have deadlines, by which money is lost: neither many answers nor a full disk keep
    them waiting.
    """
    loop, challenges_at = asyncio.get_running_loop(), 0.0

    def is_over() -> bool:
        return stop.is_set() or (challenger is not None and loop.time() >= challenges_at)

    while not stop.is_set():
        found_before = watcher.counts["cheat"]
        try:
            await watcher.run_round(is_over)
        except TransientError as error:
            watcher.say_waits(error)
        is_news = watcher.counts["cheat"] > found_before
        if challenger is not None and (is_news or loop.time() >= challenges_at):
            await challenger.run_round()
            challenges_at = loop.time() + CHALLENGE_LOOK_S
        try:
            async with asyncio.timeout(LOOK_S):
                await stop.wait()
        except TimeoutError:
            continue


async def run_once(watcher: Watcher, challenger: Challenger | None) -> None:
    """One round of both: what can be decided now."""
    await watcher.run_round()
    if challenger is not None:
        await challenger.run_round()
