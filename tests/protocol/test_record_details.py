"""Records at their edges: what a refusal says, to the last second, number and hash."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hanse.protocol.errors import HanseError
from hanse.protocol.limits import CLOCK_SKEW_S_MAX, SUBMISSION_VALID_S_MAX
from hanse.protocol.merkle import get_root
from hanse.protocol.records import (
    Leaf,
    Promise,
    PromiseKind,
    Reason,
    Side,
    SignedPromise,
    SignedSubmission,
    Submission,
    apply_commit,
    hash_entries,
    verify_commit,
    verify_record,
)
from hanse.protocol.records.matching import find_mismatch, get_missing_reason
from hanse.protocol.records.proofs import Commit, get_head, get_leaf, get_record_root, order_leaves
from hanse.protocol.records.verify import verify_promise, verify_submission
from hanse.protocol.signatures import (
    ZERO_HASH,
    get_address,
    keccak,
    sign_digest,
    to_bytes,
    to_hex,
)
from tests.protocol.made_messages import (
    ATTACKER_KEY,
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_KEY,
    SIGNER,
    SIGNER_KEY,
    USER,
)
from tests.protocol.test_records import RECORDER, make_entry, make_proof, sign_submission

TRACES = ("0x" + "01" * 32, "0x" + "02" * 32)
DIGEST = "0x" + "d1" * 32
ATTACKER = get_address(ATTACKER_KEY.public_key)
MADE = (make_entry(1), make_entry(2))
MATCHED = Promise(SIGNER, PromiseKind.MATCHED, to_hex(hash_entries(MADE)), 40)


def submit(
    deadline: int = NOW_S,
    entries: tuple[Any, ...] = (),
    side: Side = Side.USER,
    recorder: str = RECORDER,
    key: Any = SIGNER_KEY,
) -> str:
    party = SIGNER if side is Side.USER else PROVIDER
    signed = sign_submission(Submission(recorder, side, entries, deadline), key, party)
    return verify_submission(signed, DOMAIN, RECORDER, NOW_S)


def promise(
    made: Promise = MATCHED,
    key: Any = SIGNER_KEY,
    recorder: str = SIGNER,
    kind: PromiseKind = PromiseKind.MATCHED,
    signature: str = "",
) -> None:
    signature = signature or sign_digest(key, DOMAIN.digest(made.struct_hash()))
    verify_promise(SignedPromise(made, signature), DOMAIN, recorder, kind, MADE)


def commit_of(**changes: Any) -> Commit:
    commit = apply_commit((0, ZERO_HASH), [Leaf(make_entry().key, DIGEST, 7)])
    return msgspec.structs.replace(commit, **changes)


FOLLOWS = apply_commit((0, DIGEST), [Leaf(make_entry().key, DIGEST, 7)])
LATE_S = NOW_S + SUBMISSION_VALID_S_MAX + CLOCK_SKEW_S_MAX
CASES: list[tuple[Callable[[], object], str, str]] = [
    (
        lambda: submit(recorder=USER),
        "unprocessable",
        f"the submission is for {USER}, this is {RECORDER}",
    ),
    (
        lambda: submit(NOW_S - CLOCK_SKEW_S_MAX - 1),
        "voucher_expired",
        f"the submission's deadline is {NOW_S - CLOCK_SKEW_S_MAX - 1}, now is {NOW_S}: "
        f"sign it for at most {SUBMISSION_VALID_S_MAX} s ahead",
    ),
    (
        lambda: submit(LATE_S + 1),
        "voucher_expired",
        f"the submission's deadline is {LATE_S + 1}, now is {NOW_S}: "
        f"sign it for at most {SUBMISSION_VALID_S_MAX} s ahead",
    ),
    (
        lambda: submit(entries=(make_entry(), make_entry(2, signer=USER))),
        "unprocessable",
        f"an entry is of {USER}, the submission speaks for {SIGNER}",
    ),
    (
        lambda: submit(entries=(make_entry(provider=USER),), side=Side.PROVIDER, key=RECEIPT_KEY),
        "unprocessable",
        f"an entry is of {USER}, the submission speaks for {PROVIDER}",
    ),
    (
        lambda: submit(entries=(make_entry(), make_entry(fee=8))),
        "unprocessable",
        "the submission names a sequence twice",
    ),
    (
        lambda: submit(key=ATTACKER_KEY),
        "signature_invalid",
        f"the submission is signed by {ATTACKER}, expected {SIGNER}",
    ),
    (
        lambda: promise(key=ATTACKER_KEY),
        "recorder_dishonest",
        f"the promise is signed by {ATTACKER}, expected {SIGNER}",
    ),
    (
        lambda: promise(kind=PromiseKind.HELD),
        "recorder_dishonest",
        f"the promise is matched of {SIGNER} about {MATCHED.entries_hash}, "
        f"expected held of {SIGNER} about {MATCHED.entries_hash}",
    ),
    (
        lambda: promise(msgspec.structs.replace(MATCHED, recorder=USER)),
        "recorder_dishonest",
        f"the promise is matched of {USER} about {MATCHED.entries_hash}, "
        f"expected matched of {SIGNER} about {MATCHED.entries_hash}",
    ),
    (
        lambda: promise(msgspec.structs.replace(MATCHED, entries_hash=DIGEST)),
        "recorder_dishonest",
        f"the promise is matched of {SIGNER} about {DIGEST}, "
        f"expected matched of {SIGNER} about {MATCHED.entries_hash}",
    ),
    (
        lambda: verify_commit(commit_of(head=DIGEST)),
        "proof_invalid",
        f"commit 1 says head {DIGEST}, its root and the head before it make {commit_of().head}",
    ),
    (
        lambda: verify_commit(FOLLOWS),
        "proof_invalid",
        f"commit 1 follows {DIGEST}, the first follows zero",
    ),
]


@pytest.mark.parametrize(
    ("act", "code", "text"), CASES, ids=[f"{code}: {text[:40]}" for _, code, text in CASES]
)
def test_a_refusal_names_what_differs(act: Callable[[], object], code: str, text: str) -> None:
    with pytest.raises(HanseError) as caught:
        act()
    assert (caught.value.code, caught.value.message) == (code, text)


@pytest.mark.parametrize("deadline", [NOW_S - CLOCK_SKEW_S_MAX, NOW_S, LATE_S])
def test_a_submission_is_good_to_its_last_second(deadline: int) -> None:
    assert submit(deadline, MADE) == SIGNER


def test_a_promise_may_be_for_any_block() -> None:
    promise()
    promise(msgspec.structs.replace(MATCHED, block=41))


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: find_mismatch(None, None), "there is no entry to match"),
        (
            lambda: find_mismatch(make_entry(1), make_entry(2)),
            "the two entries are of different requests",
        ),
        (
            lambda: apply_commit((0, ZERO_HASH), []),
            "nothing is matched, so nothing is committed",
        ),
    ],
)
def test_a_mistake_of_the_caller_is_a_value_error(act: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        act()


def test_what_two_entries_differ_in_is_named() -> None:
    assert find_mismatch(make_entry(), make_entry(trace_hash=DIGEST)) is None
    assert find_mismatch(make_entry(), make_entry(fee=8)) is Reason.FEES_DIFFER
    other = make_entry(receipt_digest=ZERO_HASH, fee=8)
    assert find_mismatch(make_entry(), other) is Reason.DIGESTS_DIFFER


def test_an_entry_of_one_side_misses_the_others() -> None:
    assert get_missing_reason(Side.USER) is Reason.MISSING_AT_PROVIDER
    assert get_missing_reason(Side.PROVIDER) is Reason.MISSING_AT_USER


def test_a_leaf_and_a_head_are_plain_hashes_of_their_words() -> None:
    words = to_bytes(DIGEST) + to_bytes(TRACES[0]) + to_bytes(TRACES[1])
    assert get_leaf(DIGEST, *TRACES) == keccak(words)
    assert Leaf(make_entry().key, DIGEST, 7, *TRACES).get_value() == keccak(words)
    numbers = (3).to_bytes(32, "big") + (9).to_bytes(32, "big")
    head = to_hex(keccak(to_bytes(TRACES[0]) + to_bytes(DIGEST) + numbers))
    assert get_head(TRACES[0], DIGEST, 3, 9) == head


def test_leaves_are_ordered_by_user_provider_signer_and_sequence() -> None:
    keys = [
        (user, provider, signer, sequence)
        for user in ("0x0a", "0x0b")
        for provider in ("0x0c", "0x0d")
        for signer in ("0x0e", "0x0f")
        for sequence in (2, 10)
    ]
    made = [Leaf(key, DIGEST, n, to_hex(bytes([n]) * 32)) for n, key in enumerate(keys)]
    assert order_leaves(made[::-1]) == made
    root = get_root([leaf.get_value() for leaf in made])
    assert get_record_root(made[5:] + made[:5]) == root
    assert apply_commit((4, DIGEST), made) == Commit(
        5, to_hex(root), 16, sum(range(16)), DIGEST, get_head(DIGEST, to_hex(root), 16, 120)
    )


def test_a_proof_binds_traces_index_siblings_and_count() -> None:
    made = [Leaf(make_entry(n).key, to_hex(bytes([n] * 32)), n, *TRACES) for n in (1, 2, 3)]
    proof, digest = make_proof(made, 1)
    verify_record(proof, digest)
    changes: list[dict[str, Any]] = [
        {"user_trace_hash": ZERO_HASH},
        {"provider_trace_hash": ZERO_HASH},
        {"index": 0},
        {"siblings": proof.siblings[::-1]},
        {"siblings": proof.siblings[:1]},
    ]
    for change in changes:
        with pytest.raises(HanseError, match="the proof "):
            verify_record(msgspec.structs.replace(proof, **change), digest)


def test_a_signature_that_is_none_is_refused_on_either_side() -> None:
    for side, party in ((Side.USER, SIGNER), (Side.PROVIDER, PROVIDER)):
        signed = SignedSubmission(Submission(RECORDER, side, (), NOW_S), party, "0x")
        with pytest.raises(HanseError, match="a signature is 0x and 130 hex digits"):
            verify_submission(signed, DOMAIN, RECORDER, NOW_S)
