"""One process of the whole measurement: serves and audits its jobs, a line of a file an answer.

    python -m benchmarks.auditing.lane llama FOLDER
    python -m benchmarks.auditing.lane cheats FOLDER --cheats kv4,swap

While one batch is audited the next is served. What is in the file when the process is stopped is
not made again.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.auditing.llama_side import GgufMany
from benchmarks.auditing.plan import CHEATS, Job, make_plan
from benchmarks.auditing.questions import make_questions
from benchmarks.auditing.records import Record, append, read_done
from benchmarks.auditing.serving import Numbered, Tools, make_server
from benchmarks.auditing.torch_side import TorchMany
from hanse.auditor.calibrating.serving import PROVIDER, Served
from hanse.engines.proving.copy_in_service import find_copy
from hanse.engines.proving.reader_gguf import GgufReader
from hanse.engines.proving.scores import CopyScores
from hanse.protocol.commitments.seeds import get_request_seed
from hanse.protocol.errors import HanseError
from hanse.protocol.signatures import keccak
from hanse.verification.audits.alignment import align
from hanse.verification.audits.coverage import get_chain
from hanse.verification.audits.measuring import POSITIONS_AUDITED_MAX, Measured, Task, measure
from hanse.verification.audits.prefill import Reader

BATCH_TOKENS, BATCH_QUESTIONS_MIN = 2_048, 5
"""Answer tokens that are served before they are audited: 128 answers of 16; of long ones 20."""

TOGETHER_TOKENS = 768
"""Answer tokens of one pass of the auditor: their logits take 150 MB."""

TRIES = 3
ENDED = 128 + signal.SIGTERM
CONTEXT_TOKENS = 2_048


class RememberingReader:
    """The product's reader; a prompt that four requests share is read once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._read = lru_cache(64)(reader.get_prompt_tokens)
        self.get_text = reader.get_text
        self.vocabulary = reader.vocabulary

    def get_prompt_tokens(self, path: str, body: bytes) -> Sequence[int]:
        """As the reader does, from the messages alone."""
        return self._read(path, msgspec.json.encode({"messages": _decode(body)["messages"]}))


class Scored:
    """A prefill that was run before, in a batch with others."""

    def __init__(self, runtime: str, scores: CopyScores) -> None:
        self.runtime, self._scores = runtime, scores

    def score(self, _prompt: Sequence[int], _answer: Sequence[int]) -> CopyScores:
        """What the batch gave."""
        return self._scores


class Lane:
    """Goes through the jobs."""

    def __init__(self, name: str, folder: Path, files: dict[str, Path]) -> None:
        own = files["own"]
        copy = find_copy(own)
        assert copy is not None
        llama = GgufMany(own, context_tokens=CONTEXT_TOKENS, threads=1)
        end = llama.model.get_vocab().token_eos()
        self._tools = Tools(
            files,
            folder,
            RememberingReader(GgufReader(llama.model)),
            copy.description.fingerprint_scale,
            TorchMany(own, context_tokens=CONTEXT_TOKENS, threads=1, end=end),
            llama,
        )
        self._auditors: dict[str, Any] = {"torch": self._tools.torch, "llama": llama}
        self._path = get_path(folder, name)
        self._done = read_done(self._path)

    async def run(self, jobs: Sequence[Job]) -> None:
        """All that is not done yet."""
        for job in jobs:
            for attempt in range(TRIES):
                try:
                    await self._run_job(job)
                    break
                except HanseError as error:  # the engine's process may be killed by a full machine
                    print(f"{job.name}: {error}", file=sys.stderr, flush=True)
                    if attempt == TRIES - 1:
                        raise

    async def _run_job(self, job: Job) -> None:
        numbers = [
            number
            for number in range(job.first, job.first + job.questions)
            if (job.name, number) not in self._done
        ]
        if not numbers:
            return
        server = make_server(job, self._tools)
        audit: asyncio.Task[None] | None = None
        try:
            await server.start()
            for batch in _split(numbers, job):
                served = await server.serve(_make_batch(job, batch))
                if audit is not None:
                    await audit
                audit = asyncio.create_task(asyncio.to_thread(self._audit, job, batch, served))
            if audit is not None:
                await audit
        finally:
            await server.close()

    def _audit(self, job: Job, numbers: Sequence[int], served: Sequence[Served]) -> None:
        for number, of_one in zip(numbers, _group(served, job.samplers), strict=True):
            append(self._path, self._audit_question(job, number, of_one))
            self._done.add((job.name, number))

    def _audit_question(self, job: Job, number: int, served: Sequence[Served]) -> list[Record]:
        model, tools = self._auditors[job.audited_by], self._tools
        fitting: dict[int, Task] = {}
        found: list[Record] = []
        for place, (sampler, one) in enumerate(zip(job.list_samplers(number), served, strict=True)):
            aligned = align(tools.reader, one.path, one.body, one.response, one.entries, one.usage)
            record = Record(
                job.name, job.part, number, sampler, one.kind, one.body.decode(), job.served_by,
                f"threads={job.load.threads} concurrent={job.load.concurrent}", job.tokens,
                model.runtime, len(aligned.prompt_tokens), one.usage.cached_tokens, aligned.reasons,
            )  # fmt: skip
            found.append(record)
            if not aligned.reasons:
                entries = one.entries[: min(aligned.count, POSITIONS_AUDITED_MAX)]
                tokens = tuple(entry.token for entry in entries)
                chain = get_chain(_decode(one.body))
                fitting[place] = Task(aligned.prompt_tokens, tokens, chain, one.seed, tools.scale)
        for place, measured in measure_together(model, fitting):
            entries = served[place].entries[: len(measured.misses)]
            found[place] = fill(found[place], entries, measured)
        return found


def measure_together(model: Any, tasks: dict[int, Task]) -> Iterator[tuple[int, Measured]]:
    """Answers to one question, as many in a pass as memory allows."""
    waiting = list(tasks.items())
    while waiting:
        count, size = 1, len(waiting[0][1].answer_tokens)
        while count < len(waiting) and size + len(waiting[count][1].answer_tokens) <= (
            TOGETHER_TOKENS
        ):
            size += len(waiting[count][1].answer_tokens)
            count += 1
        now, waiting = waiting[:count], waiting[count:]
        group = (now[0][1].prompt_tokens, [task.answer_tokens for _, task in now])
        scores = model.score_many([group])[0]
        for (sampler, task), one in zip(now, scores, strict=True):
            yield sampler, measure(Scored(model.runtime, one), task)


def fill(record: Record, entries: Sequence[Any], measured: Measured) -> Record:
    """The record with what an auditor measured."""
    return msgspec.structs.replace(
        record,
        tokens=tuple(entry.token for entry in entries),
        served=b"".join(entry.fingerprint for entry in entries).hex(),
        own=b"".join(measured.fingerprints).hex(),
        misses=measured.misses,
        odds=measured.odds,
    )


def get_path(folder: Path, lane: str) -> Path:
    """Where a lane's records are."""
    return folder / f"{lane}.jsonl"


def _make_batch(job: Job, numbers: Sequence[int]) -> list[Numbered]:
    """These questions under the job's samplers, each with a number of its own for its seed."""
    batch = []
    for number in numbers:
        asked = make_questions(
            number, job.tokens, is_held_out=job.part != "calibration", is_cheat=job.is_cheat
        )
        for sampler in job.list_samplers(number):
            batch.append((hash_number(job.name, number, sampler), asked[sampler]))
    return batch


def hash_number(job: str, number: int, sampler: int) -> int:
    """The request id, as a number: another one for every answer of the whole plan."""
    return int.from_bytes(keccak(f"{job}/{number}/{sampler}".encode()), "big")


def get_seed(job: str, number: int, sampler: int) -> int:
    """The seed of that request, which names none."""
    request_id = "0x" + hash_number(job, number, sampler).to_bytes(32, "big").hex()
    return get_request_seed(None, request_id, PROVIDER)


def _split(numbers: Sequence[int], job: Job) -> Iterator[Sequence[int]]:
    size = max(BATCH_QUESTIONS_MIN, BATCH_TOKENS // (job.samplers * job.tokens))
    if job.served_by == "llama":
        size = min(size, job.load.concurrent if job.is_cheat else 2 * job.load.concurrent)
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _group(served: Sequence[Served], size: int) -> Iterator[Sequence[Served]]:
    for start in range(0, len(served), size):
        yield served[start : start + size]


def _decode(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])


async def run_lane(
    name: str, folder: Path, files: dict[str, Path], cheats: Sequence[str] = CHEATS
) -> None:
    """Go through a lane's plan; a signal to end closes the engine and waits for nothing else."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    began = time.monotonic()
    try:
        await Lane(name, folder, files).run(make_plan(name, cheats))
    except asyncio.CancelledError:
        os._exit(ENDED)  # threads in a batch of torch would take minutes more
    print(f"lane {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    from benchmarks.audit_cheats import find_files

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lane")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cheats", type=lambda text: text.split(","), default=CHEATS)
    options = parser.parse_args()
    files = find_files(options.folder)
    asyncio.run(run_lane(options.lane, options.folder, files, options.cheats))


if __name__ == "__main__":
    main()
