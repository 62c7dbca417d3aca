"""What a side signs for a recorder, and whether the answer owes and holds what it must.

    signed = identity.sign(recorder.address, entries, now_s)
    answers, promises = read_answer(identity, recorder, entries, answer, block)

Source: `docs/records.md`, section "Messages".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import VerificationError
from hanse.protocol.limits import SUBMISSION_VALID_S_MAX
from hanse.protocol.records import (
    PromiseKind,
    RecordEntry,
    Side,
    SignedPromise,
    SignedSubmission,
    Submission,
)
from hanse.protocol.records.verify import verify_promise
from hanse.protocol.records.wire import entry_to_json, promise_to_json
from hanse.protocol.signatures import Address, DigestSigner
from hanse.settlement.records.recorder_client import SubmissionAnswer
from hanse.settlement.records.submission_book import EntryAnswer, KnownRecorder
from hanse.settlement.records.watch import FaultError

PROMISE_BLOCKS_MAX = 7_200
"""A promise further ahead than this is none: a day of blocks at 12 s."""

PROOF_BLOCKS = 64
"""A recorder that says "committed" has shown the proof by so many blocks later, or stalls."""


KeptPromise = tuple[SignedPromise, Sequence[RecordEntry]]
"""A promise and the entries that it is about."""


@dataclass(frozen=True)
class Identity:
    """Who submits: the side, its name there, and the key that signs for it."""

    side: Side
    party: Address
    key: DigestSigner
    domain: Domain

    def sign(
        self, recorder: Address, entries: Sequence[RecordEntry], now_s: int
    ) -> SignedSubmission:
        """A submission that is good for a minute."""
        deadline = now_s + SUBMISSION_VALID_S_MAX // 2
        submission = Submission(recorder, self.side, tuple(entries), deadline)
        digest = self.domain.digest(submission.struct_hash())
        return SignedSubmission(submission, self.party, self.key.sign_digest(digest))


def read_answer(
    identity: Identity,
    recorder: KnownRecorder,
    about: Sequence[RecordEntry],
    answer: SubmissionAnswer,
    block: int,
) -> tuple[list[EntryAnswer], list[KeptPromise]]:
    """What became of each entry, and the promises, checked.

    Args:
        identity: who submitted.
        recorder: who answered.
        about: the submission's entries.
        answer: its form is checked already.
        block: the newest confirmed block.

    Raises:
        FaultError: `lie` if a promise is missing or not about these entries, `stall` if it is for a
            block too far ahead.
    """
    promises = _verify_promises(identity.domain, recorder, about, answer, block)
    commit_by = answer.matched.promise.block if answer.matched else 0
    answers = []
    for entry, (state, reason) in zip(about, answer.entries, strict=True):
        if state == "matched":
            answers.append(EntryAnswer(entry, "matched", "", commit_by))
        elif state == "committed":
            answers.append(EntryAnswer(entry, "matched", "", block + PROOF_BLOCKS))
        else:
            answers.append(EntryAnswer(entry, "waiting", reason or state, 0))
    return answers, promises


def _verify_promises(
    domain: Domain,
    recorder: KnownRecorder,
    about: Sequence[RecordEntry],
    answer: SubmissionAnswer,
    block: int,
) -> list[KeptPromise]:
    """The promises that the answer owes, checked; raises FaultError `lie`."""
    kept: list[KeptPromise] = []
    for kind, state, promise in (
        (PromiseKind.HELD, "waiting", answer.held),
        (PromiseKind.MATCHED, "matched", answer.matched),
    ):
        chosen = [
            entry for entry, (found, _) in zip(about, answer.entries, strict=True) if found == state
        ]
        if not chosen:
            continue
        evidence = {
            "recorder": recorder.address,
            "entries": [entry_to_json(entry) for entry in chosen],
            "promise": None if promise is None else promise_to_json(promise),
        }
        if promise is None:
            raise FaultError("lie", f"recorder {recorder.url} promises nothing", evidence)
        try:
            verify_promise(promise, domain, recorder.address, kind, chosen)
        except VerificationError as error:
            raise FaultError("lie", f"{recorder.url}: {error.message}", evidence) from None
        if promise.promise.block > block + PROMISE_BLOCKS_MAX:
            raise FaultError(
                "stall",
                f"recorder {recorder.url} promises block {promise.promise.block}, more than "
                f"{PROMISE_BLOCKS_MAX} after {block}",
                evidence,
            )
        kept.append((promise, chosen))
    return kept
