"""Stages of a request, noted wherever the work is done."""

import asyncio
from itertools import count

from hanse.market.stages import STAGES, STAGES_MAX, Stages


async def test_tasks_that_a_request_starts_note_into_its_stages() -> None:
    stages = Stages(count().__next__)
    STAGES.set(stages)

    async def work(provider: str) -> None:
        found = STAGES.get()
        assert found is stages
        found.add("head", found.now(), provider)

    await asyncio.create_task(work("0xa"))
    assert stages.taken == [("head", 0, 1, "0xa")]


def test_a_request_cannot_note_without_end() -> None:
    stages = Stages(lambda: 0.0)
    for _ in range(STAGES_MAX + 5):
        stages.add("match", 0.0)
    assert len(stages.taken) == STAGES_MAX
