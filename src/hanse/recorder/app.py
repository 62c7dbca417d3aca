"""The recorder as an ASGI application: paths, answers, error shapes.

| path | who may | what |
| --- | --- | --- |
| `POST /hanse/v1/records` | a party of its entries | what became of each entry, and promises |
| `POST /hanse/v1/records/unmatched` | a party | its unmatched entries, with reasons, in pages |
| `POST /hanse/v1/records/proofs` | who knows the digests | inclusion proofs |
| `GET /hanse/v1/records/head` | anyone | recorder, interval, last commit |
| `GET /hanse/v1/records/commits?after=N` | anyone | its commits, in order |
| `GET /health`, `GET /metrics` | anyone | |

Everything is passed in (book, parties, committer, clock), so tests run it in process.

Source: `docs/records.md`, section "On the wire".
"""

import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.limits import (
    COMMITS_PER_PAGE_MAX,
    LEAVES_PER_COMMIT_MAX,
    RECORD_ENTRIES_PER_SUBMISSION_MAX,
)
from hanse.protocol.records import (
    Promise,
    PromiseKind,
    RecordEntry,
    Side,
    SignedPromise,
    SignedSubmission,
    hash_entries,
)
from hanse.protocol.records.proof_wire import (
    commit_to_json,
    proof_to_json,
)
from hanse.protocol.records.verify import (
    verify_submission,
)
from hanse.protocol.records.wire import (
    COUNT_MAX,
    decode_submission,
    entries_from_json,
    entry_to_json,
    promise_to_json,
)
from hanse.protocol.signatures import Address, DigestSigner, to_hex
from hanse.protocol.wire.fields import parse_count
from hanse.recorder.book import RecorderBook
from hanse.recorder.committer import Committer, no_failpoint
from hanse.recorder.entries import EntryState, TakenEntry
from hanse.recorder.http import (
    CallerLeftError,
    Receive,
    Scope,
    Send,
    read_body,
    send_bytes,
    send_error,
    send_json,
)
from hanse.recorder.metrics import CONTENT_TYPE, RecorderMetrics
from hanse.recorder.parties import Callers, Parties
from hanse.recorder.settings import RecorderLimits

_log = logging.getLogger(__name__)
_Answer = Callable[[Scope, Receive, Send], Awaitable[None]]


class Recorder:
    """The ASGI application.

    Attributes:
        address: of the key that promises and commits.
    """

    def __init__(
        self,
        *,
        key: DigestSigner,
        domain: Domain,
        book: RecorderBook,
        parties: Parties,
        committer: Committer,
        metrics: RecorderMetrics,
        interval_blocks: int,
        promise_blocks: int,
        limits: RecorderLimits | None = None,
        now_s: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        failpoint: Callable[[str], None] = no_failpoint,
    ) -> None:
        self._key, self._domain, self._book = key, domain, book
        self._parties, self._committer, self._metrics = parties, committer, metrics
        self._interval_blocks, self._promise_blocks = interval_blocks, promise_blocks
        self._limits = limits or RecorderLimits()
        self._now_s, self._monotonic, self._failpoint = now_s, monotonic, failpoint
        self._callers = Callers(self._limits, monotonic)
        self._at_work = 0
        self.address: Address = key.address
        self._answers: dict[str, tuple[str, _Answer]] = {
            "/hanse/v1/records": ("POST", self._take),
            "/hanse/v1/records/unmatched": ("POST", self._send_unmatched),
            "/hanse/v1/records/proofs": ("POST", self._send_proofs),
            "/hanse/v1/records/head": ("GET", self._send_head),
            "/hanse/v1/records/commits": ("GET", self._send_commits),
            "/health": ("GET", self._send_health),
            "/metrics": ("GET", self._send_metrics),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP exchange."""
        if scope["type"] != "http":
            raise RuntimeError(f"this application speaks HTTP only, not {scope['type']}")
        self._at_work += 1
        try:
            await self._route(scope, receive, send)
        except HanseError as error:
            self._metrics.count_refusal(error.code)
            await send_error(send, error)
        except (CallerLeftError, TimeoutError):
            pass
        except Exception as error:
            # Where it was, without the exception's text: that may hold what a caller sent.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a defect: %s\n%s", type(error).__name__, where)
            self._metrics.count_refusal("internal_error")
            defect = HanseError("internal_error", "a defect of this recorder; please report it")
            await send_error(send, defect)
        finally:
            self._at_work -= 1

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path not in self._answers:
            raise RequestError("not_found", f"there is no path {path[:80]!r} here")
        expected, answer = self._answers[path]
        if method != expected:
            raise RequestError(
                "method_not_allowed", f"{path} takes {expected}, not {method[:16]}", param=expected
            )
        most = self._limits.requests_max
        if self._at_work > most:
            raise TransientError(
                "overloaded", f"more than {most} requests are at work", retry_after_s=1.0
            )
        await answer(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        signed = await self._read_submission(scope, receive)
        self._check_able()
        commits_ahead = await self._check_backlog() // LEAVES_PER_COMMIT_MAX
        if signed.submission.side is Side.PROVIDER:
            await self._check_share(signed.party)
        submission, block = signed.submission, self._committer.block
        taken = await self._book.take(
            submission.side,
            submission.entries,
            commit_by=block + self._promise_blocks * (1 + commits_ahead),
            now_s=int(self._now_s()),
        )
        self._failpoint("submission_taken")
        for one in taken:
            self._metrics.count_entry(submission.side, one.state)
        answer = {
            "recorder": self.address,
            "block": block,
            "entries": [{"state": one.state.value, "reason": one.reason or ""} for one in taken],
            "held": self._promise(PromiseKind.HELD, submission.entries, taken, block),
            "matched": self._promise(PromiseKind.MATCHED, submission.entries, taken, block),
        }
        await send_json(send, 200, answer)

    def _promise(
        self,
        kind: PromiseKind,
        entries: Sequence[RecordEntry],
        taken: Sequence[TakenEntry],
        block: int,
    ) -> dict[str, Any] | None:
        """The promise about those entries that it concerns; None if there are none."""
        state = EntryState.MATCHED if kind is PromiseKind.MATCHED else EntryState.WAITING
        chosen = [i for i, one in enumerate(taken) if one.state is state]
        if not chosen:
            return None
        if kind is PromiseKind.MATCHED:
            block = max(taken[i].commit_by for i in chosen)
        about = to_hex(hash_entries([entries[i] for i in chosen]))
        promise = Promise(self.address, kind, about, block)
        signature = self._key.sign_digest(self._domain.digest(promise.struct_hash()))
        return promise_to_json(SignedPromise(promise, signature))

    async def _send_unmatched(self, scope: Scope, receive: Receive, send: Send) -> None:
        signed = await self._read_submission(scope, receive)
        query = parse_qs(scope["query_string"][:200].decode("latin-1"), max_num_fields=4)
        after = query.get("after", [""])[0]
        side, party = signed.submission.side, signed.party
        waiting, following = await self._book.list_waiting(side, party, after)
        entries = [
            {
                "side": one.side.name.lower(),
                "reason": one.reason.value,
                "entry": entry_to_json(one.entry),
            }
            for one in waiting
        ]
        data = {"recorder": self.address, "unmatched": entries, "next": following}
        await send_json(send, 200, {**data, "more": bool(following)})

    async def _send_proofs(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self._limits.body_time_s)
        entries = entries_from_json(body, RECORD_ENTRIES_PER_SUBMISSION_MAX)
        self._callers.spend_proofs(scope.get("client"), len(entries))
        proofs = await self._book.find_proofs(entries)
        data = [None if proof is None else proof_to_json(proof) for proof in proofs]
        await send_json(send, 200, {"recorder": self.address, "proofs": data})

    async def _send_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        last = await self._book.find_last_commit()
        data = {
            "recorder": self.address,
            "interval_blocks": self._interval_blocks,
            "promise_blocks": self._promise_blocks,
            "block": self._committer.block,
            "last": None if last is None else commit_to_json(last.commit),
        }
        await send_json(send, 200, data)

    async def _send_commits(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"][:200].decode("latin-1"), max_num_fields=4)
        after = parse_count(query.get("after", ["0"])[0], COUNT_MAX // 2, "after")
        commits = await self._book.list_commits(after, COMMITS_PER_PAGE_MAX)
        data = [
            {
                **commit_to_json(stored.commit),
                "transaction_hash": stored.transaction_hash,
                "block_number": stored.block_number,
            }
            for stored in commits
        ]
        await send_json(send, 200, {"recorder": self.address, "commits": data})

    async def _send_health(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_able()
        data = {"status": "ok", "recorder": self.address, "chain_block": self._committer.block}
        await send_json(send, 200, data)

    async def _send_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = self._metrics.render()
        await send_bytes(send, 200, body, [(b"content-type", CONTENT_TYPE)])

    async def _read_submission(self, scope: Scope, receive: Receive) -> SignedSubmission:
        body = await read_body(scope, receive, self._limits.body_time_s)
        signed = decode_submission(body)
        signed_by = verify_submission(signed, self._domain, self.address, int(self._now_s()))
        await self._parties.verify(signed, signed_by)
        return signed

    def _check_able(self) -> None:
        """A promise names a block, so without a chain nothing is promised."""
        silence_s = self._monotonic() - self._committer.seen_at
        if not self._committer.block or silence_s > self._limits.chain_silence_s:
            raise TransientError(
                "chain_unavailable", "this recorder does not see its chain now", retry_after_s=5.0
            )

    async def _check_share(self, provider: Address) -> None:
        open_leaves, most = (
            await self._book.count_open_of(provider),
            self._limits.open_leaves_of_provider_max,
        )
        if open_leaves >= most:
            raise TransientError(
                "overloaded",
                f"{open_leaves} receipts of {provider} wait for a root, at most {most} of one",
                retry_after_s=30.0,
            )

    async def _check_backlog(self) -> int:
        """How many leaves come before a new one: whoever fills commits must not break our word."""
        open_leaves = await self._book.count_open()
        self._metrics.open_leaves.set(open_leaves)
        if open_leaves >= self._limits.open_leaves_max:
            raise TransientError(
                "overloaded",
                f"{open_leaves} receipts wait for a root, at most {self._limits.open_leaves_max}",
                retry_after_s=30.0,
            )
        return open_leaves
