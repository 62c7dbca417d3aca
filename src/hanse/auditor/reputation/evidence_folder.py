"""A folder of evidence files, as testimonies: each file is checked once, to its signatures.

`hanse audit` writes evidence of audits and of broken promises, `hanse observe` observations of
failures and times; how anybody gets hold of others' files is left open. Evidence of another market,
and of an audit that says nothing about the provider, is no testimony.
"""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hanse.market.reputation import Testimony, Word
from hanse.market.reputation.computing import MASSES
from hanse.market.reputation.observation import is_observation, verify_observation
from hanse.protocol.commitments.tree import OPENING_RETAINED_S
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.signatures import Address, Hash32, to_hex
from hanse.store.files import read_file

if TYPE_CHECKING:
    from hanse.verification.evidence.breaches import VerifiedBreach
    from hanse.verification.evidence.files import Evidence

FILES_MAX = 10_000
"""Evidence files of a folder that are read, the newest: a minute of checking signatures and
verdicts, once a file."""

_DOUBTS = frozenset(
    (
        "sampling_differs",
        "prompt_differs",
        "count_differs",
        "text_differs",
        "little_told",
        "parts_unasked",
        "tail_unexplained",
    )
)
"""Reasons of inconclusive verdicts that honest providers seldom give; the others (not covered, not
calibrated) say nothing about the provider."""


@dataclass(frozen=True)
class Told:
    """A testimony, what has to be its provider's receipt key, and the receipt; None without one."""

    testimony: Testimony
    receipt_key: Address | None
    receipt_hash: Hash32 | None = None


class _Name(NamedTuple):
    """A file as it was looked at."""

    changed_at_ns: int
    file: str
    size_bytes: int


@dataclass
class EvidenceFolder:
    """Evidence files, each checked once.

    Attributes:
        path: of the folder.
        domain: of this market's signatures.
        files_max: that are read.
        refused: why files say nothing, by name; under the folder's own, if some are too many.
    """

    path: Path
    domain: Domain
    files_max: int = FILES_MAX
    refused: dict[str, str] = field(default_factory=dict)
    _known: "dict[_Name, Told | None]" = field(default_factory=dict)

    def read(self) -> list[Told]:
        """What the files say now. Blocks: run it in a thread beside a server.

        Of more than `files_max` files it is the newest ones: a flood of others, or some years of
        audits, must not keep a gateway from what was found today.

        Raises:
            RequestError: `not_found`, if there is no such folder.
        """
        if not self.path.is_dir():
            raise RequestError("not_found", f"{self.path} is no folder of evidence files")
        names = self._list_newest()
        known, reasons = self._known, self.refused
        self._known, self.refused = {}, {}
        for name in names[: self.files_max]:
            if name in known:
                self._known[name] = known[name]
                if name.file in reasons:
                    self.refused[name.file] = reasons[name.file]
            else:
                self._known[name] = self._check(self.path / name.file)
        if len(names) > self.files_max:
            self.refused[str(self.path)] = (
                f"{len(names)} files, of which the newest {self.files_max} are read: remove some"
            )
        return keep_gravest([told for told in self._known.values() if told is not None])

    def _list_newest(self) -> "list[_Name]":
        found = []
        with os.scandir(self.path) as entries:
            for one in entries:
                if one.name.endswith(".json"):
                    with contextlib.suppress(OSError):  # gone meanwhile
                        state = one.stat()
                        found.append(_Name(state.st_mtime_ns, one.name, state.st_size))
        return sorted(found, reverse=True)

    def _check(self, path: Path) -> Told | None:
        from hanse.sdk.receipt_file import verify_receipt_document
        from hanse.verification.evidence.breaches import is_breach, verify_breach
        from hanse.verification.evidence.files import FILE_BYTES_MAX, verify_evidence

        try:
            raw = read_file(path, FILE_BYTES_MAX)
            if is_observation(raw):
                return Told(verify_observation(raw, self.domain), None)
            if is_breach(raw):
                broken = verify_breach(raw, verify_receipt_document)
                if broken.receipt.domain != self.domain:
                    raise RequestError("invalid_request", "it is of another market")
                return broken_to_testimony(broken)
            evidence = verify_evidence(raw, verify_receipt_document)
            if evidence.receipt.domain != self.domain:
                raise RequestError("invalid_request", "it is of another market")
        except HanseError as error:
            self.refused[path.name] = error.message
            return None
        return to_testimony(evidence)


def keep_gravest(told: Iterable[Told]) -> list[Told]:
    """One word of an auditor on an answer: the gravest of its files, and then the earliest.

    Else whoever audits one answer ten times says it ten times, and whoever lays a file without its
    content beside the whole one would make less of a cheat.
    """
    kept: dict[object, Told] = {}
    for one in told:
        said = one.testimony
        name = (one.receipt_hash, said.witness) if one.receipt_hash else said.evidence_hash
        held = kept.get(name)
        if held is None or _get_rank(said) < _get_rank(held.testimony):
            kept[name] = one
    return list(kept.values())


def _get_rank(said: Testimony) -> tuple[int, int, Testimony]:
    return -MASSES[said.word], said.at_s, said


def to_testimony(evidence: "Evidence") -> Told | None:
    """What an audit's evidence says of its provider; None if it says nothing.

    It is named by what the auditor signed, not by the file, which may come with content or without.
    A cheat counts in full only with it: then anybody can run the audit again. It fades from the
    audit on, but no later than an opening is kept: nobody keeps a word fresh by signing it again.
    """
    statement, receipt = evidence.statement, evidence.receipt
    verdict = statement.judgement.verdict.value
    if verdict == "inconclusive" and not _DOUBTS & set(statement.judgement.reasons):
        return None
    words = {"honest": Word.AUDIT_PASSED}
    if evidence.content is not None:
        words["cheat"] = Word.AUDIT_FAILED
    served = receipt.receipt.receipt
    testimony = Testimony(
        to_hex(receipt.domain.digest(statement.struct_hash(receipt.receipt))),
        receipt.offer.provider,
        statement.auditor,
        words.get(verdict, Word.AUDIT_DOUBTED),
        min(statement.audited_at, served.finished_at + OPENING_RETAINED_S),
    )
    receipt_hash = to_hex(receipt.domain.digest(served.struct_hash()))
    return Told(testimony, receipt.receipt_key, receipt_hash)


def broken_to_testimony(broken: "VerifiedBreach") -> Told:
    """A broken promise as a word: as grave as a failed audit, since anybody can check it."""
    receipt = broken.receipt
    served = receipt.receipt.receipt
    testimony = Testimony(
        broken.digest,
        receipt.offer.provider,
        broken.witness,
        Word.AUDIT_FAILED,
        min(broken.seen_at, served.finished_at + OPENING_RETAINED_S),
    )
    receipt_hash = to_hex(receipt.domain.digest(served.struct_hash()))
    return Told(testimony, receipt.receipt_key, receipt_hash)
