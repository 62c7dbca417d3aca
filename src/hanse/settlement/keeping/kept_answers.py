"""Answers that may be drawn for an audit: one encrypted file each, in a folder of this home.

    folder = KeptAnswers(home / "audits" / "kept")
    folder.add(trace)                      by the gateway; False: there is no room
    for name in folder.list_names():       by the auditor, in another process
        trace = folder.read(name)
        folder.remove(name)

An answer waits here from its receipt to its draw, most of them for seconds; who is not drawn is
removed. What nobody asks for is gone after `KEPT_S`: an opening is not to be had any longer then.

The files are encrypted under a key that lies in the same folder (mode 0600): whoever gets hold of a
file alone, from a backup for instance, reads nothing. Whoever can read the folder reads all of it.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hanse.chain.keys import write_new_file
from hanse.protocol.commitments.tree import OPENING_RETAINED_S
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.signatures import Hash32, parse_hash32
from hanse.settlement.traces.document import (
    OBJECT_BYTES_MAX,
    Trace,
    decrypt_trace,
    encrypt_trace,
)
from hanse.settlement.traces.sealing import DATA_KEY_BYTES

KEPT_S = OPENING_RETAINED_S
"""How long an answer may wait for its draw: as long as its provider has to open the commitment."""

SUFFIX = ".kept"
_KEY = "key"
_PART = ".part-"

PART_S = 3_600.0
"""After so long a half-written file is one that a crash has left."""


@dataclass(frozen=True)
class KeptLimits:
    """Bounds of one folder.

    Attributes:
        answers_max: files; an auditor that is behind by more audits none of the rest.
        bytes_max: of all files together; a usual answer takes 5 to 50 kB.
    """

    answers_max: int = 1_000
    bytes_max: int = 256 * 1024 * 1024


class KeptAnswers:
    """See the module. Every method blocks: call it in a thread beside a server."""

    def __init__(
        self,
        folder: Path,
        limits: KeptLimits | None = None,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.limits = limits or KeptLimits()
        self._now_s = now_s
        self._key = b""

    def add(self, trace: Trace) -> bool:
        """Keep one answer; False if there is no room for it.

        Raises:
            TransientError: `store_unavailable`, the folder cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = trace.request.request_id
            content = encrypt_trace(trace, data_key=self._get_key()).content
            count, size_bytes = self._measure()
            limits = self.limits
            if count >= limits.answers_max or size_bytes + len(content) > limits.bytes_max:
                return False
            part = self.folder / f"{_PART}{name}-{secrets.token_hex(4)}"
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            part.replace(self._get_path(name))
        except OSError as error:
            raise TransientError(
                "store_unavailable", f"{self.folder} cannot be written: {error.strerror}"
            ) from None
        return True

    def list_names(self) -> list[Hash32]:
        """Request ids of what is kept, oldest first; forgets what has waited for too long."""
        found = []
        for name, state in self._scan():
            is_whole = name.endswith(SUFFIX)
            if self._now_s() - state.st_mtime > (KEPT_S if is_whole else PART_S):
                (self.folder / name).unlink(missing_ok=True)
            elif is_whole:
                found.append((state.st_mtime_ns, name.removesuffix(SUFFIX)))
        return [name for _, name in sorted(found)]

    def read(self, name: Hash32) -> Trace:
        """One answer.

        Raises:
            RequestError: `not_found`.
            VerificationError: `trace_invalid`, the file is damaged.
        """
        try:
            with self._get_path(name).open("rb") as file:
                content = file.read(OBJECT_BYTES_MAX + 1)
            return decrypt_trace(content, self._get_key())
        except OSError as error:
            raise RequestError(
                "not_found", f"no answer of request {name} is kept: {error.strerror}"
            ) from None

    def get_tries(self, name: Hash32) -> int:
        """How often its audit has begun by now, also in processes that died."""
        with contextlib.suppress(FileNotFoundError):
            return self._get_tries_path(name).stat().st_size
        return 0

    def count_try(self, name: Hash32) -> None:
        """Note that its audit begins.

        Raises:
            TransientError: `store_unavailable`, the folder cannot be written.
        """
        try:
            with self._get_tries_path(name).open("ab") as file:
                file.write(b".")
        except OSError as error:
            raise TransientError(
                "store_unavailable", f"{self.folder} cannot be written: {error.strerror}"
            ) from None

    def remove(self, name: Hash32) -> None:
        """Forget one answer; it may be gone already."""
        self._get_path(name).unlink(missing_ok=True)
        self._get_tries_path(name).unlink(missing_ok=True)

    def _get_path(self, name: Hash32) -> Path:
        return self.folder / f"{parse_hash32(name, 'request_id')}{SUFFIX}"

    def _get_tries_path(self, name: Hash32) -> Path:
        return self.folder / f"{_PART}tries-{parse_hash32(name, 'request_id')}"

    def _measure(self) -> tuple[int, int]:
        sizes = [state.st_size for _, state in self._scan()]
        return len(sizes), sum(sizes)

    def _scan(self) -> Iterator[tuple[str, os.stat_result]]:
        """Whole and half-written answers; the other process may remove them meanwhile."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for one in entries:
                if one.name.endswith(SUFFIX) or one.name.startswith(_PART):
                    with contextlib.suppress(FileNotFoundError):
                        yield one.name, one.stat()

    def _get_key(self) -> bytes:
        """The folder's key, made by whoever comes first."""
        if not self._key:
            path = self.folder / _KEY
            with contextlib.suppress(FileExistsError):
                write_new_file(path, lambda: secrets.token_bytes(DATA_KEY_BYTES))
            self._key = path.read_bytes()
        return self._key
