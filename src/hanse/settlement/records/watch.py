"""Holds what a recorder serves against the chain: one read of `Records.get_head` a round.

The recorder serves its commits; each head must follow from the one before, and the last must be the
head that the chain shows at the confirmed block. So every root up to there is proven, and a
recorder that shows two histories, or one that the chain has not, cannot be consistent with it.

| found | fault | evidence |
| --- | --- | --- |
| a commit that does not lead to the chain's head | fork | the commits served, the chain's head |
| a proof that leads nowhere, or to a root that is not on the chain; a leaf without our trace; a \
promise that is not signed or not about our entries | lie | what was served |
| a promised block passed, and no proof | stall | the signed promise and its entries |

Source: `docs/records.md`, section "Watching a recorder".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hanse.protocol.errors import HanseError, VerificationError
from hanse.protocol.records import (
    Commit,
    RecordEntry,
    RecordProof,
    Side,
    verify_commit,
    verify_record,
)
from hanse.protocol.records.proof_wire import commit_to_json, proof_to_json
from hanse.protocol.records.wire import entry_to_json
from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.records.recorder_client import RecorderClient
from hanse.settlement.records.submission_book import KnownRecorder, SubmissionBook

PAGES_PER_ROUND_MAX = 20
"""Pages of commits read in one round; the next round goes on."""


class FaultError(VerificationError):
    """A recorder was found at fault.

    Attributes:
        fault: `lie`, `stall` or `fork`.
        evidence: JSON-ready facts that show it.
    """

    def __init__(self, fault: str, message: str, evidence: dict[str, Any]) -> None:
        super().__init__("recorder_dishonest", message, details={"fault": fault})
        self.fault = fault
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class ChainHead:
    """Where a recorder's chain of heads stands after `block`."""

    block: int
    number: int
    head: Hash32


class RecordsView(Protocol):
    """What the watch asks of the chain."""

    async def fetch_block(self) -> int:
        """The newest confirmed block."""
        ...

    async def read_head(self, recorder: Address, block: int) -> ChainHead:
        """Number and head of a recorder after a block."""
        ...

    async def fetch_committed(
        self, transaction_hash: Hash32, recorder: Address, number: int
    ) -> Commit | None:
        """What a confirmed transaction committed for a recorder, None if nothing.

        Of several commits it is the one of this number; without one, the first. The event does not
        hold the `previous_head`, which is left zero.
        """
        ...


class Watch:
    """Verifies one side's recorders."""

    def __init__(self, book: SubmissionBook, client: RecorderClient, view: RecordsView) -> None:
        self._book, self._client, self._view = book, client, view

    async def meet(self, url: str) -> KnownRecorder:
        """A recorder's key and present head; the key it was first met with is the one it has.

        Raises:
            FaultError: `lie`: it answers with another key than before.
            TransientError, VerificationError: see `RecorderClient`.
        """
        known = await self._book.find_recorder(url)
        address = await self._client.fetch_address(url)
        if known is None:
            block = await self._view.fetch_block()
            head = await self._view.read_head(address, block)
            await self._book.add_recorder(url, address, head.number, head.head)
            known = await self._book.find_recorder(url)
            assert known is not None  # just added
        if known.address != address:
            raise FaultError(
                "lie",
                f"recorder {url} has key {address}, it was met with {known.address}",
                {"url": url, "met": known.address, "now": address},
            )
        return known

    async def sync(self, known: KnownRecorder, block: int) -> KnownRecorder:
        """Verify a recorder's commits up to what the chain shows after `block`.

        Returns:
            The recorder, as far as its heads are verified now; behind the chain if it does not
            serve the rest yet.

        Raises:
            FaultError: `fork`.
        """
        shown = await self._view.read_head(known.address, block)
        number, head = known.number, known.head
        if shown.number < number:
            return known  # an older block than the one verified before
        for _ in range(PAGES_PER_ROUND_MAX):
            if number >= shown.number:
                break
            commits = await self._client.fetch_commits(known.url, number)
            page = [commit for commit in commits if commit.number <= shown.number]
            if not page:
                break
            heads = self._follow(known, number, head, page)
            number, head = heads[-1]
            if number == shown.number and head != shown.head:
                raise _fork(known, page, shown, "its commits do not lead to the chain's head")
            await self._book.note_heads(known.url, heads)
        if number == shown.number and head != shown.head:
            raise _fork(known, [], shown, "the chain's head is another than the one verified")
        found = await self._book.find_recorder(known.url)
        assert found is not None  # `meet` stored it
        return found

    async def verify_proof(
        self, known: KnownRecorder, side: Side, entry: RecordEntry, proof: RecordProof
    ) -> bool:
        """Hold a proof against entry and chain; False if the chain does not show it yet.

        Raises:
            FaultError: `lie`.
        """
        own = proof.user_trace_hash if side is Side.USER else proof.provider_trace_hash
        try:
            verify_record(proof, entry.receipt_digest)
        except HanseError as error:
            raise _lie(known, entry, proof, error.message) from None
        if proof.recorder != known.address:
            raise _lie(known, entry, proof, f"the proof is {proof.recorder}'s")
        if own != entry.trace_hash:
            raise _lie(
                known,
                entry,
                proof,
                f"the leaf has {own} as this side's trace, submitted was {entry.trace_hash}",
            )
        if proof.commit.number > known.number:
            return False
        verified = await self._book.find_head(known.url, proof.commit.number)
        if verified is None:  # committed before we met it, or long ago
            return await self._verify_by_transaction(known, entry, proof)
        if verified != proof.commit.head:
            raise _lie(
                known,
                entry,
                proof,
                f"commit {proof.commit.number} has head {verified}, the proof {proof.commit.head}",
            )
        return True

    async def _verify_by_transaction(
        self, known: KnownRecorder, entry: RecordEntry, proof: RecordProof
    ) -> bool:
        commit = proof.commit
        found = await self._view.fetch_committed(
            proof.transaction_hash, known.address, commit.number
        )
        if found is None:
            raise _lie(known, entry, proof, f"{proof.transaction_hash} committed nothing of it")
        if (found.number, found.root, found.head) != (commit.number, commit.root, commit.head):
            raise _lie(
                known,
                entry,
                proof,
                f"{proof.transaction_hash} committed root {found.root} as {found.number}, the "
                f"proof says {commit.root} as {commit.number}",
            )
        return True

    def _follow(
        self, known: KnownRecorder, number: int, head: Hash32, page: Sequence[Commit]
    ) -> list[tuple[int, Hash32]]:
        heads: list[tuple[int, Hash32]] = []
        for commit in page:
            try:
                verify_commit(commit)
            except HanseError as error:
                raise _fork(known, page, None, error.message) from None
            if (commit.number, commit.previous_head) != (number + 1, head):
                raise _fork(
                    known,
                    page,
                    None,
                    f"commit {commit.number} follows {commit.previous_head}, expected is commit "
                    f"{number + 1} after {head}",
                )
            number, head = commit.number, commit.head
            heads.append((number, head))
        return heads


def _fork(
    known: KnownRecorder, page: Sequence[Commit], shown: ChainHead | None, reason: str
) -> FaultError:
    chain = None
    if shown is not None:
        chain = {"block": shown.block, "number": str(shown.number), "head": shown.head}
    evidence = {
        "recorder": known.address,
        "verified": {"number": str(known.number), "head": known.head},
        "served": [commit_to_json(commit) for commit in page],
        "chain": chain,
    }
    return FaultError("fork", f"recorder {known.url}: {reason}", evidence)


def _lie(known: KnownRecorder, entry: RecordEntry, proof: RecordProof, reason: str) -> FaultError:
    evidence = {
        "recorder": known.address,
        "entry": entry_to_json(entry),
        "proof": proof_to_json(proof),
    }
    return FaultError("lie", f"recorder {known.url}: {reason}", evidence)
