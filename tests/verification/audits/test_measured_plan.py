"""The whole bench-audit: held-out questions stand apart, and a stopped run goes on."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.auditing.plan import (
    CALIBRATION,
    CHEATS,
    CHEATS_LANE,
    HELD_OUT,
    LANES,
    count_answers,
    make_plan,
)
from benchmarks.auditing.questions import NEW_SUBJECTS, make_questions
from benchmarks.auditing.records import Record, append, read_done, read_records
from hanse.auditor.calibrating.prompts import SUBJECTS

JOBS = [job for lane in LANES for job in make_plan(lane)]


def get_question(number: int, *, is_held_out: bool) -> tuple[str, ...]:
    body: dict[str, Any] = make_questions(number, 16, is_held_out=is_held_out)[0][1]
    return tuple(message["content"] for message in body["messages"])


def test_it_has_ten_thousand_held_out_answers_of_two_runtimes_under_several_loads() -> None:
    held_out = [job for job in JOBS if job.part == HELD_OUT]
    assert count_answers(held_out) >= 10_000
    assert {job.served_by for job in held_out} == {"llama", "torch"}
    assert all(job.served_by != job.audited_by for job in held_out)
    for runtime in ("llama", "torch"):
        loads = {job.load for job in held_out if job.served_by == runtime}
        assert len({load.threads for load in loads}) > 1
        assert len({load.concurrent for load in loads}) > 1


@pytest.mark.parametrize("name", CHEATS)
def test_of_each_cheat_it_has_the_299_groups_that_bound_a_power_of_99_percent(name: str) -> None:
    jobs = make_plan(CHEATS_LANE, [name])
    assert {job.part for job in jobs} == {name}
    for tokens in (16, 64):
        assert count_answers([job for job in jobs if job.tokens == tokens]) >= 299
    asked = [number for job in jobs for number in range(job.first, job.first + job.questions)]
    assert len(set(asked)) == len(asked)


def test_no_held_out_question_comes_twice_or_has_a_subject_of_the_calibration() -> None:
    asked = {
        part: [
            get_question(number, is_held_out=part == HELD_OUT)
            for job in JOBS
            if job.part == part
            for number in range(job.first, job.first + job.questions)
        ]
        for part in (CALIBRATION, HELD_OUT)
    }
    assert len(set(asked[HELD_OUT])) == len(asked[HELD_OUT])
    assert set(SUBJECTS).isdisjoint(NEW_SUBJECTS)
    assert set(asked[HELD_OUT]).isdisjoint(asked[CALIBRATION])


def test_a_run_that_was_stopped_in_the_middle_of_a_line_makes_that_answer_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lane.jsonl"
    lines = [
        Record("job", HELD_OUT, number, 0, "chat", "{}", "llama", "threads=1", 16, "torch", 30)
        for number in (1, 2)
    ]
    append(path, lines)
    path.write_bytes(path.read_bytes()[:-5])
    assert read_done(path) == {("job", 1)}
    append(path, lines[1:])
    assert [record.question for record in read_records([path])] == [1, 2]
