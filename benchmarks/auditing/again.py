"""Honest answers that torch has audited, audited again by llama.cpp: a third pair of runtimes.

    python -m benchmarks.auditing.again FOLDER

What the embedded engine served is on record, so nothing is served again. The pair is that of the
round of `make up`, whose auditors have llama.cpp and no torch: the thresholds that Hanse ships for
it are made here (`--ship FILE`) from all honest answers. It may be stopped and goes on.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from benchmarks.audit_cheats import find_files
from benchmarks.auditing.lane import (
    CONTEXT_TOKENS,
    RememberingReader,
    fill,
    get_path,
    get_seed,
    measure_together,
)
from benchmarks.auditing.llama_side import GgufMany
from benchmarks.auditing.plan import AGAIN_LANE
from benchmarks.auditing.reading import PATH, calibrate_records, read_pairs
from benchmarks.auditing.records import Record, append, read_done, read_records
from hanse.engines.proving.copy_in_service import find_copy
from hanse.engines.proving.reader_gguf import GgufReader
from hanse.verification.audits.calibration import encode_calibration
from hanse.verification.audits.coverage import get_chain
from hanse.verification.audits.measuring import Task

SOURCE = "llama"
"""The lane whose answers the embedded engine served honestly."""

SHIPPED_QUANTILE = 0.99


def audit_again(folder: Path, is_stopped: threading.Event) -> None:
    """Every answer that is not audited again yet."""
    own = find_files(folder)["own"]
    copy = find_copy(own)
    assert copy is not None
    model = GgufMany(own, context_tokens=CONTEXT_TOKENS, threads=1)
    reader = RememberingReader(GgufReader(model.model))
    path = get_path(folder, AGAIN_LANE)
    done = read_done(path)
    for records in _group(get_path(folder, SOURCE)):
        if is_stopped.is_set():
            return
        key = records[0].job, records[0].question
        if key not in done:
            done.add(key)  # a source that was stopped may have a question twice
            scale = copy.description.fingerprint_scale
            append(path, _audit(records, model, reader, scale))


def _audit(
    records: Sequence[Record], model: GgufMany, reader: RememberingReader, scale: float
) -> list[Record]:
    tasks: dict[int, Task] = {}
    for at, one in enumerate(records):
        if not one.misfits:
            body = one.body.encode()
            tasks[at] = Task(
                tuple(reader.get_prompt_tokens(PATH, body)),
                one.tokens,
                get_chain(msgspec.json.decode(body)),
                get_seed(one.job, one.question, one.sampler),
                scale,
            )
    found = [msgspec.structs.replace(one, audited_by=model.runtime) for one in records]
    for at, measured in measure_together(model, tasks):
        found[at] = fill(found[at], records[at].entries, measured)
    return found


def _group(path: Path) -> Iterator[list[Record]]:
    """Records of one question together, as they lie in the file."""
    for _, records in groupby(read_records([path]), lambda one: (one.job, one.question)):
        yield list(records)


def ship(folder: Path, manifest_root: str, target: Path) -> None:
    """Write a calibration from all honest answers of this pair, held-out ones too."""
    (part,) = read_pairs([get_path(folder, AGAIN_LANE)]).values()
    made = calibrate_records([*part.calibration, *part.held_out], SHIPPED_QUANTILE)
    named = msgspec.structs.replace(made.conditions, manifest_root=manifest_root)
    target.write_bytes(encode_calibration(msgspec.structs.replace(made, conditions=named)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ship", type=Path, help="write the calibration here, and audit nothing")
    parser.add_argument("--manifest", default="", help="with --ship: root of the model's manifest")
    options = parser.parse_args()
    if options.ship:
        ship(options.folder, options.manifest, options.ship)
        return
    is_stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_stopped.set())
    audit_again(options.folder, is_stopped)
    sys.exit(143 if is_stopped.is_set() else 0)


if __name__ == "__main__":
    main()
