"""Each audited answer as a line of a file: what is needed to judge it again, by any thresholds.

A line is appended as soon as its answer is audited, so that a run that is stopped goes on where it
was (`read_done`), and what it has can be reported meanwhile.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from hanse.protocol.commitments.fingerprints import FINGERPRINT_BYTES
from hanse.protocol.commitments.tree import Entry
from hanse.verification.audits.measuring import Measured


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer, audited by one runtime.

    Attributes:
        job: its name in the plan; `part`, `tokens_max` and `load` are the job's.
        question: its number; `sampler` the place of its sampler.
        kind: of question.
        body: of the request.
        served_by: runtime and, in `load`, its threads and answers at once.
        audited_by: runtime, as a calibration names it.
        prompt_tokens: as the auditor reads them.
        cached_tokens: of these, as metered.
        misfits: why it is not judged; then nothing below is there.
        tokens: of the answer, as committed.
        served, own: their fingerprints one after the other, in hex.
        misses, odds: as `Measured` has them.
    """

    job: str
    part: str
    question: int
    sampler: int
    kind: str
    body: str
    served_by: str
    load: str
    tokens_max: int
    audited_by: str
    prompt_tokens: int
    cached_tokens: int = 0
    misfits: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    served: str = ""
    own: str = ""
    misses: tuple[int, ...] = ()
    odds: tuple[int, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What was committed."""
        prints = _cut(self.served)
        return tuple(Entry(token, one) for token, one in zip(self.tokens, prints, strict=True))

    @property
    def measured(self) -> Measured:
        """What the auditor computed."""
        return Measured(self.audited_by, _cut(self.own), self.misses, self.odds)


_decode = msgspec.json.Decoder(Record).decode


def append(path: Path, records: Iterable[Record]) -> None:
    """Add lines to a file, all at once."""
    data = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    with path.open("ab") as file:
        file.write(data)


def read_records(paths: Iterable[Path]) -> Iterator[Record]:
    """All lines; the last one of a file that was stopped in the middle of it is passed over."""
    for path in paths:
        if path.exists():
            with path.open("rb") as file:
                yield from (_decode(line) for line in file if line.endswith(b"\n"))


def read_done(path: Path) -> set[tuple[str, int]]:
    """Questions that are audited: names of jobs and numbers. An unfinished last line is cut off."""
    if not path.exists():
        return set()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:  # not written anew: a kill then would lose hours
            file.truncate(len(whole))
    return {(record.job, record.question) for record in read_records([path])}


def _cut(prints: str) -> tuple[bytes, ...]:
    raw = bytes.fromhex(prints)
    return tuple(raw[at : at + FINGERPRINT_BYTES] for at in range(0, len(raw), FINGERPRINT_BYTES))
