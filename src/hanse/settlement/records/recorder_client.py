"""Talking to a recorder over HTTP, within bounds; what it says is checked by whoever asked.

    client = HttpRecorderClient()
    answer = await client.submit(url, signed)

Form and range of every answer are checked here, signatures and proofs by the caller, who knows what
was asked. URLs come from this side's own settings, so no address is refused.

Source: `docs/records.md`, section "On the wire".
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from hanse.http import HttpClient, HttpResponse
from hanse.protocol.errors import HanseError, RequestError, TransientError, VerificationError
from hanse.protocol.limits import RECORD_ANSWER_BYTES_MAX
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.records import Commit, RecordEntry, RecordProof, SignedPromise, SignedSubmission
from hanse.protocol.records.proof_wire import commit_from_json, proof_from_json
from hanse.protocol.records.wire import (
    entry_from_json,
    entry_to_json,
    promise_from_json,
    submission_to_json,
)
from hanse.protocol.signatures import Address, parse_address

ANSWER_S = 15.0
"""A recorder answers from its database; one that takes longer counts as silent."""

PLACE_CHARS_MAX = 160
"""Of a place in a list of unmatched entries: two addresses and a sequence."""

STATES = ("waiting", "matched", "committed", "refused")

_HEADERS = {
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "hanse",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SubmissionAnswer:
    """What became of each entry, in the submission's order, and what was promised."""

    recorder: Address
    entries: tuple[tuple[str, str], ...]
    held: SignedPromise | None
    matched: SignedPromise | None


@dataclass(frozen=True, slots=True)
class UnmatchedEntry:
    """One unmatched entry as a recorder lists it: whose, which, why."""

    side: str
    entry: RecordEntry
    reason: str


@dataclass(frozen=True, slots=True)
class UnmatchedPage:
    """A page of unmatched entries, and the place that the next begins after; empty at the end."""

    entries: list[UnmatchedEntry]
    following: str = ""


class RecorderClient(Protocol):
    """Asks recorders.

    Every call raises TransientError `recorder_unreachable` if nothing usable came, RequestError if
    the recorder refused, VerificationError `response_malformed` if its answer is not of the form.
    """

    async def fetch_address(self, url: str) -> Address:
        """Whose key promises and commits there."""
        ...

    async def submit(self, url: str, signed: SignedSubmission) -> SubmissionAnswer:
        """Hand entries over."""
        ...

    async def fetch_unmatched(
        self, url: str, signed: SignedSubmission, after: str = ""
    ) -> UnmatchedPage:
        """This side's unmatched entries, and the other side's that it misses: one page."""
        ...

    async def fetch_proofs(
        self, url: str, entries: Sequence[RecordEntry]
    ) -> list[RecordProof | None]:
        """Inclusion proofs, None for what is not committed."""
        ...

    async def fetch_commits(self, url: str, after: int) -> list[Commit]:
        """Commits after a number, in order; a page of them."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


class _Head(msgspec.Struct):
    recorder: str


class _Taken(msgspec.Struct):
    state: str
    reason: str = ""


class _Answer(msgspec.Struct):
    recorder: str
    entries: list[_Taken]
    held: Any = None
    matched: Any = None


class _Unmatched(msgspec.Struct):
    side: str
    reason: str
    entry: Any


class _UnmatchedList(msgspec.Struct):
    unmatched: list[_Unmatched]
    next: str = ""


class _Proofs(msgspec.Struct):
    proofs: list[Any]


class _CommitItem(msgspec.Struct):
    number: str
    root: str
    count: str
    fee_total: str
    previous_head: str
    head: str


class _Commits(msgspec.Struct):
    commits: list[_CommitItem]


class HttpRecorderClient:
    """`RecorderClient` over HTTP; make it inside a running loop."""

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._client = HttpClient(connect_s=answer_s)
        self._answer_s = answer_s

    async def fetch_address(self, url: str) -> Address:
        """See `RecorderClient`."""
        found = await self._ask(url, "GET", "/hanse/v1/records/head", b"", _Head)
        return _read(lambda: parse_address(found.recorder, "recorder"))

    async def submit(self, url: str, signed: SignedSubmission) -> SubmissionAnswer:
        """See `RecorderClient`."""
        body = msgspec.json.encode(submission_to_json(signed))
        found = await self._ask(url, "POST", "/hanse/v1/records", body, _Answer)
        if len(found.entries) != len(signed.submission.entries):
            raise VerificationError(
                "response_malformed",
                f"{len(signed.submission.entries)} entries were submitted, "
                f"{len(found.entries)} answered",
            )
        if any(item.state not in STATES for item in found.entries):
            raise VerificationError("response_malformed", "an entry's state is none that there is")
        return SubmissionAnswer(
            _read(lambda: parse_address(found.recorder, "recorder")),
            tuple((item.state, item.reason[:64]) for item in found.entries),
            None if found.held is None else promise_from_json(found.held),
            None if found.matched is None else promise_from_json(found.matched),
        )

    async def fetch_unmatched(
        self, url: str, signed: SignedSubmission, after: str = ""
    ) -> UnmatchedPage:
        """See `RecorderClient`."""
        body = msgspec.json.encode(submission_to_json(signed))
        path = "/hanse/v1/records/unmatched" + (f"?after={quote(after)}" if after else "")
        found = await self._ask(url, "POST", path, body, _UnmatchedList)
        entries = _read(
            lambda: [
                UnmatchedEntry(one.side[:16], entry_from_json(one.entry), one.reason[:64])
                for one in found.unmatched
            ]
        )
        return UnmatchedPage(entries, found.next[:PLACE_CHARS_MAX])

    async def fetch_proofs(
        self, url: str, entries: Sequence[RecordEntry]
    ) -> list[RecordProof | None]:
        """See `RecorderClient`."""
        body = msgspec.json.encode({"entries": [entry_to_json(entry) for entry in entries]})
        found = await self._ask(url, "POST", "/hanse/v1/records/proofs", body, _Proofs)
        if len(found.proofs) != len(entries):
            raise VerificationError(
                "response_malformed",
                f"{len(entries)} proofs were asked for, {len(found.proofs)} came",
            )
        return [None if data is None else proof_from_json(data) for data in found.proofs]

    async def fetch_commits(self, url: str, after: int) -> list[Commit]:
        """See `RecorderClient`."""
        path = f"/hanse/v1/records/commits?after={after}"
        found = await self._ask(url, "GET", path, b"", _Commits)
        return [commit_from_json(msgspec.to_builtins(item)) for item in found.commits]

    async def close(self) -> None:
        """See `RecorderClient`."""
        await self._client.close()

    async def _ask(self, url: str, method: str, path: str, body: bytes, kind: type[_T]) -> _T:
        try:
            async with asyncio.timeout(self._answer_s):
                answer = await self._client.send(
                    *(method, url.rstrip("/") + path, _HEADERS, body), silence_s=self._answer_s
                )
                try:
                    status, content = answer.status, await _read_bounded(answer)
                finally:
                    answer.close()
        except (OSError, ValueError) as error:  # a time-out is an OSError too
            raise TransientError(
                "recorder_unreachable", f"recorder {url}: no answer ({type(error).__name__})"
            ) from None
        if status != 200:
            raise _to_error(url, status, content)
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise VerificationError(
                "response_malformed", f"recorder {url}: {error}"[:300]
            ) from None


async def _read_bounded(answer: HttpResponse) -> bytes:
    parts, length = [], 0
    while chunk := await answer.read():
        length += len(chunk)
        if length > RECORD_ANSWER_BYTES_MAX:
            raise ValueError("too long")
        parts.append(chunk)
    content = b"".join(parts)
    if is_nested_too_deep(content):
        raise ValueError("nested too deep")
    return content


def _to_error(url: str, status: int, content: bytes) -> HanseError:
    """What a refusal means here: 4xx is ours to put right, the rest passes."""
    try:
        message = str(msgspec.json.decode(content)["error"]["message"])[:300]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        message = f"status {status}"
    if 400 <= status < 500 and status not in (408, 429):
        return RequestError("invalid_request", f"recorder {url} refuses: {message}")
    return TransientError("recorder_unreachable", f"recorder {url}: {message}")


def _read(parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except RequestError as error:
        raise VerificationError("response_malformed", error.message) from None
