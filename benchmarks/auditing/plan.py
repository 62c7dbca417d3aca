"""Which answers are served and audited: by which runtimes, how long, under which loads.

Most answers are short: over few tokens the mean error of an honest answer is noisiest, so a penalty
is likeliest there. Four answers (one question, each sampler) are served for most questions. Answers
to one question may be alike, so two slices of the cheats have one for each of many questions,
the samplers in turn: by questions alone they bound the power that the others bound by answers.

Three lanes run side by side, a process each, and each goes through its jobs in the order below:

    llama    the embedded engine serves; torch audits
    torch    torch serves; cyllama audits
    cheats   the embedded engine serves what the cheat serves; torch audits

and when they are done, what the embedded engine served honestly is audited `again`, by cyllama.
Calibration comes first, the held-out answers in slices that change the load.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.auditor.calibrating.noise import Load

SAMPLERS_PER_QUESTION = 4
CHEATS_LANE = "cheats"
AGAIN_LANE = "again"
LANES = ("llama", "torch", CHEATS_LANE)
CALIBRATION, HELD_OUT = "calibration", "held-out"

CHEATS = (
    "quantise",
    "other-copy",
    "skip-layer",
    "swap",
    "drop-system",
    "kv4",
    "cheap-text-prefill",
)


@dataclass(frozen=True)
class Job:
    """A slice of answers that are made alike.

    Attributes:
        part: `calibration`, `held-out`, or the name of a cheat.
        served_by: `llama` or `torch`.
        audited_by: the runtime, `torch` or `llama` (by cyllama, another build).
        load: threads and answers at once of whoever serves.
        tokens: of an answer at most.
        first, questions: which questions, by number.
        samplers: answers to each question.
    """

    part: str
    served_by: str
    audited_by: str
    load: Load
    tokens: int
    first: int
    questions: int
    samplers: int = SAMPLERS_PER_QUESTION

    @property
    def name(self) -> str:
        """What records of it are found by."""
        return f"{self.part}/{self.served_by}/{self.tokens}/{self.first}"

    @property
    def answers(self) -> int:
        """How many it has."""
        return self.samplers * self.questions

    def list_samplers(self, number: int) -> list[int]:
        """Which samplers answer this question."""
        if self.samplers == SAMPLERS_PER_QUESTION:
            return list(range(SAMPLERS_PER_QUESTION))
        return [(number + place) % SAMPLERS_PER_QUESTION for place in range(self.samplers)]

    @property
    def is_cheat(self) -> bool:
        """Whether its answers are dishonest."""
        return self.part in CHEATS


LLAMA_LOADS = (Load(1, 8), Load(1, 16), Load(2, 8), Load(1, 4))
TORCH_LOADS = (Load(1, 64), Load(1, 128), Load(2, 32), Load(1, 32))
SLICE = 32
"""Questions of the calibration under one load, before the next."""

CALIBRATED = {16: 120, 64: 10, 300: 3}
"""Tokens of an answer -> questions, for each runtime that serves."""

ROUNDS = 20
HELD = {"llama": {16: 58, 32: 2}, "torch": {16: 62, 32: 2}}
"""The same of each of ROUNDS rounds of held-out questions, one load a round."""

LONG = {
    "llama": {1: {64: 8}, 2: {300: 3}, 4: {1_000: 1}, 9: {64: 8, 300: 3}, 14: {1_000: 1}},
    "torch": {1: {64: 8}, 6: {64: 16}, 12: {300: 3}},
}
"""Of single rounds besides. torch writes long answers slowly: few of them share a batch."""


@dataclass(frozen=True)
class Slice:
    """Questions of cheats: tokens of an answer at most, the first, how many, the load, answers to
    each, and of which cheats; of all if none is named."""

    tokens: int
    first: int
    questions: int
    load: Load
    samplers: int = SAMPLERS_PER_QUESTION
    cheats: tuple[str, ...] = CHEATS


CHEAT_SLICES = (
    Slice(16, 0, 38, Load(1, 8)),
    Slice(16, 38, 38, Load(2, 8)),
    Slice(16, 76, 6, Load(1, 4)),
    Slice(16, 166, 245, Load(1, 8), 1, ("quantise", "other-copy", "skip-layer", "swap", "kv4")),
    Slice(64, 166, 280, Load(1, 8), 1, ("drop-system", "cheap-text-prefill")),
    Slice(64, 82, 40, Load(1, 8)),
    Slice(64, 122, 40, Load(1, 4)),
    Slice(300, 162, 3, Load(1, 4)),
    Slice(1_000, 165, 1, Load(1, 4)),
)
"""No miss among 299 groups of a size bounds the power at 99 % (confidence 95 %): of 16 tokens the
first three slices have so many, of 64 the sixth and seventh, also where answers end early. By the
fourth and fifth so many questions have an answer of the size within which each cheat is found."""


def make_plan(lane: str, cheats: Sequence[str] = CHEATS) -> list[Job]:
    """All jobs of a lane, in order; of the lane of cheats only those of the cheats named."""
    if lane == CHEATS_LANE:
        return [
            Job(
                name, "llama", "torch", one.load, one.tokens, one.first, one.questions, one.samplers
            )
            for one in CHEAT_SLICES
            for name in cheats
            if name in one.cheats
        ]
    is_llama = lane == "llama"
    auditor = "torch" if is_llama else "llama"
    loads = LLAMA_LOADS if is_llama else TORCH_LOADS
    jobs: list[Job] = []
    asked = 0 if is_llama else sum(CALIBRATED.values())
    for tokens, count in CALIBRATED.items():
        for place, start in enumerate(range(0, count, SLICE)):
            load, size = loads[place % len(loads)], min(SLICE, count - start)
            jobs.append(Job(CALIBRATION, lane, auditor, load, tokens, asked + start, size))
        asked += count
    asked = 0 if is_llama else 1_600
    for number in range(ROUNDS):
        load = loads[number % len(loads)]
        for tokens, count in HELD[lane].items():
            jobs.append(Job(HELD_OUT, lane, auditor, load, tokens, asked, count))
            asked += count
        for tokens, count in LONG[lane].get(number, {}).items():
            jobs.append(Job(HELD_OUT, lane, auditor, load, tokens, asked, count))
            asked += count
    return jobs


def count_answers(jobs: Sequence[Job]) -> int:
    """Of all jobs together."""
    return sum(job.answers for job in jobs)
