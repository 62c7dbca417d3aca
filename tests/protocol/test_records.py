"""Records: digests, matching, roots, the chain of heads, proofs, and the wire."""

import msgspec
import pytest
from eth_abi.abi import encode as abi_encode
from eth_account.messages import _hash_eip191_message, encode_typed_data
from eth_utils import keccak as reference_keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.limits import RECORD_FEE_MAX, RECORD_SEQUENCE_MAX
from hanse.protocol.merkle import get_proof
from hanse.protocol.records import (
    Leaf,
    Promise,
    PromiseKind,
    Reason,
    RecordEntry,
    RecordProof,
    Side,
    SignedPromise,
    SignedSubmission,
    Submission,
    apply_commit,
    find_mismatch,
    hash_entries,
    verify_commit,
    verify_record,
)
from hanse.protocol.records.proof_wire import (
    commit_from_json,
    commit_to_json,
    proof_from_json,
    proof_to_json,
)
from hanse.protocol.records.proofs import order_leaves
from hanse.protocol.records.verify import (
    verify_promise,
    verify_submission,
)
from hanse.protocol.records.wire import (
    decode_submission,
    entry_from_json,
    entry_to_json,
    promise_from_json,
    promise_to_json,
    submission_to_json,
)
from hanse.protocol.signatures import ZERO_HASH, sign_digest, to_bytes, to_hex
from tests.protocol.made_messages import (
    ATTACKER_KEY,
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_ADDRESS,
    RECEIPT_KEY,
    SIGNER,
    SIGNER_KEY,
    USER,
    addresses,
    hashes,
)

RECORDER = "0x" + "cc" * 20
FIELDS = [
    {"name": "user", "type": "address"},
    {"name": "provider", "type": "address"},
    {"name": "signer", "type": "address"},
    {"name": "sequence", "type": "uint256"},
    {"name": "receiptDigest", "type": "bytes32"},
    {"name": "fee", "type": "uint256"},
    {"name": "traceHash", "type": "bytes32"},
]
entries = st.builds(
    RecordEntry,
    addresses,
    addresses,
    addresses,
    st.integers(1, RECORD_SEQUENCE_MAX),
    hashes,
    st.integers(0, RECORD_FEE_MAX),
    hashes,
)
leaves = st.builds(
    Leaf,
    st.tuples(addresses, addresses, addresses, st.integers(1, 2**40)),
    hashes,
    st.integers(0, RECORD_FEE_MAX),
    hashes,
    hashes,
)


def make_entry(sequence: int = 1, **changes) -> RecordEntry:
    entry = RecordEntry(USER, PROVIDER, SIGNER, sequence, "0x" + "d1" * 32, 7, ZERO_HASH)
    return msgspec.structs.replace(entry, **changes)


def sign_submission(submission, key, party) -> SignedSubmission:
    digest = DOMAIN.digest(submission.struct_hash())
    return SignedSubmission(submission, party, sign_digest(key, digest))


def make_proof(leaf_list, index, before=(0, ZERO_HASH)) -> tuple[RecordProof, str]:
    ordered = order_leaves(leaf_list)
    inclusion = get_proof([leaf.get_value() for leaf in ordered], index)
    leaf = ordered[index]
    proof = RecordProof(
        RECORDER,
        apply_commit(before, leaf_list),
        leaf.user_trace_hash,
        leaf.provider_trace_hash,
        index,
        tuple(to_hex(sibling) for sibling in inclusion.siblings),
        "0x" + "77" * 32,
        12,
    )
    return proof, leaf.receipt_digest


def get_reference(primary, types, message) -> bytes:
    domain = [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ]
    data = {
        "types": {"EIP712Domain": domain, **types},
        "primaryType": primary,
        "domain": {
            "name": "Hanse",
            "version": "1",
            "chainId": DOMAIN.chain_id,
            "verifyingContract": DOMAIN.escrow,
        },
        "message": message,
    }
    return _hash_eip191_message(encode_typed_data(full_message=data))


def to_reference(entry: RecordEntry) -> dict:
    names = [field["name"] for field in FIELDS]
    return dict(zip(names, msgspec.structs.astuple(entry), strict=True))


@settings(max_examples=25, deadline=None)
@given(st.lists(entries, max_size=4), st.sampled_from(Side), st.integers(0, 2**40))
def test_a_submissions_digest_is_that_of_a_general_encoder(made, side, deadline):
    submission = Submission(RECORDER, side, tuple(made), deadline)
    types = {
        "Submission": [
            {"name": "recorder", "type": "address"},
            {"name": "side", "type": "uint256"},
            {"name": "entries", "type": "RecordEntry[]"},
            {"name": "deadline", "type": "uint256"},
        ],
        "RecordEntry": FIELDS,
    }
    message = {
        "recorder": RECORDER,
        "side": int(side),
        "entries": [to_reference(entry) for entry in made],
        "deadline": deadline,
    }
    assert DOMAIN.digest(submission.struct_hash()) == get_reference("Submission", types, message)


@settings(max_examples=25, deadline=None)
@given(hashes, st.sampled_from(PromiseKind), st.integers(0, 2**40))
def test_a_promises_digest_is_that_of_a_general_encoder(entries_hash, kind, block):
    types = {
        "Promise": [
            {"name": "recorder", "type": "address"},
            {"name": "kind", "type": "uint256"},
            {"name": "entriesHash", "type": "bytes32"},
            {"name": "blockNumber", "type": "uint256"},
        ]
    }
    message = {
        "recorder": RECORDER,
        "kind": int(kind),
        "entriesHash": entries_hash,
        "blockNumber": block,
    }
    promise = Promise(RECORDER, kind, entries_hash, block)
    assert DOMAIN.digest(promise.struct_hash()) == get_reference("Promise", types, message)


@given(entries, st.data())
def test_two_entries_match_exactly_if_digest_and_fee_are_equal(entry, data):
    """Whatever the traces, and however the other fields are drawn."""
    digest = data.draw(st.sampled_from([entry.receipt_digest, "0x" + "00" * 31 + "01"]))
    fee = data.draw(st.sampled_from([entry.fee, entry.fee + 1]))
    other = msgspec.structs.replace(
        entry, receipt_digest=digest, fee=fee, trace_hash=data.draw(hashes)
    )
    reason = find_mismatch(entry, other)
    if digest != entry.receipt_digest:
        assert reason is Reason.DIGESTS_DIFFER
    elif fee != entry.fee:
        assert reason is Reason.FEES_DIFFER
    else:
        assert reason is None
    assert find_mismatch(other, entry) == reason


def test_what_one_side_lacks_is_named_after_that_side():
    assert find_mismatch(None, make_entry()) is Reason.MISSING_AT_USER
    assert find_mismatch(make_entry(), None) is Reason.MISSING_AT_PROVIDER
    with pytest.raises(ValueError, match="no entry"):
        find_mismatch(None, None)
    with pytest.raises(ValueError, match="different requests"):
        find_mismatch(make_entry(1), make_entry(2))


@settings(max_examples=40, deadline=None)
@given(st.lists(leaves, min_size=1, max_size=20, unique_by=lambda leaf: leaf.key), st.randoms())
def test_every_leaf_is_proven_and_the_root_does_not_depend_on_arrival(made, random):
    shuffled = list(made)
    random.shuffle(shuffled)
    commit = apply_commit((0, ZERO_HASH), made)
    assert apply_commit((0, ZERO_HASH), shuffled) == commit
    assert commit.fee_total == sum(leaf.fee for leaf in made)
    for index in range(len(made)):
        proof, digest = make_proof(shuffled, index)
        verify_record(proof, digest)
        with pytest.raises(VerificationError, match="leads to"):
            verify_record(proof, "0x" + "00" * 31 + "02")


def test_a_head_is_the_hash_that_the_contract_computes():
    first = apply_commit((0, ZERO_HASH), [Leaf(make_entry().key, "0x" + "d1" * 32, 7)])
    second = apply_commit((1, first.head), [Leaf(make_entry(2).key, "0x" + "d2" * 32, 9)])
    words = (to_bytes(first.head), to_bytes(second.root), 1, 9)
    expected = reference_keccak(abi_encode(["bytes32", "bytes32", "uint256", "uint256"], words))
    assert (second.number, to_bytes(second.head)) == (2, expected)
    verify_commit(second)


@pytest.mark.parametrize("field", ["root", "count", "fee_total", "previous_head", "head"])
def test_a_commit_that_was_changed_anywhere_is_refused(field):
    proof, digest = make_proof(
        [Leaf(make_entry(n).key, to_hex(bytes([n] * 32)), n) for n in (1, 2)], 1
    )
    value = getattr(proof.commit, field)
    changed = value + 1 if isinstance(value, int) else "0x" + "ab" * 32
    forged = msgspec.structs.replace(
        proof, commit=msgspec.structs.replace(proof.commit, **{field: changed})
    )
    with pytest.raises(VerificationError):
        verify_record(forged, digest)


def test_a_first_commit_that_follows_something_is_refused():
    commit = apply_commit((0, "0x" + "ab" * 32), [Leaf(make_entry().key, "0x" + "d1" * 32, 7)])
    with pytest.raises(VerificationError, match="follows zero"):
        verify_commit(commit)


def test_traces_of_others_are_not_proven():
    proof, digest = make_proof([Leaf(make_entry().key, "0x" + "d1" * 32, 7, "0x" + "01" * 32)], 0)
    swapped = msgspec.structs.replace(
        proof, user_trace_hash=ZERO_HASH, provider_trace_hash="0x" + "01" * 32
    )
    with pytest.raises(VerificationError):
        verify_record(swapped, digest)


@settings(max_examples=40, deadline=None)
@given(st.lists(entries, max_size=3), st.sampled_from(Side), addresses, st.integers(0, 2**40))
def test_what_is_written_is_read_again(made, side, party, deadline):
    signed = SignedSubmission(Submission(RECORDER, side, tuple(made), deadline), party, "0x00")
    assert decode_submission(msgspec.json.encode(submission_to_json(signed))) == signed
    promise = SignedPromise(
        Promise(RECORDER, PromiseKind.HELD, to_hex(hash_entries(made)), 5), "0x"
    )
    assert promise_from_json(promise_to_json(promise)) == promise
    for entry in made:
        assert entry_from_json(entry_to_json(entry)) == entry


def test_proofs_and_commits_are_read_as_written():
    proof, _ = make_proof(
        [Leaf(make_entry(n).key, to_hex(bytes([n] * 32)), n) for n in (1, 2, 3)], 1
    )
    assert proof_from_json(proof_to_json(proof)) == proof
    assert commit_from_json(commit_to_json(proof.commit)) == proof.commit


@pytest.mark.parametrize(
    "change",
    [
        {"index": "-1"},
        {"siblings": ["0x" + "00" * 32] * 40},
        {"siblings": ["0x00"]},
        {"recorder": "nobody"},
        {"block_number": -1},
        {"unknown": 1},
        {"commit": {}},
        {"commit": None},
    ],
)
def test_a_malformed_proof_is_refused_by_name(change):
    proof, _ = make_proof([Leaf(make_entry().key, "0x" + "d1" * 32, 7)], 0)
    with pytest.raises(VerificationError, match="proof"):
        proof_from_json({**proof_to_json(proof), **change})


def test_a_submission_tells_who_signed_it():
    made = Submission(RECORDER, Side.USER, (make_entry(),), NOW_S + 60)
    signed = sign_submission(made, SIGNER_KEY, SIGNER)
    assert verify_submission(signed, DOMAIN, RECORDER, NOW_S) == SIGNER
    made = Submission(RECORDER, Side.PROVIDER, (make_entry(),), NOW_S + 60)
    signed = sign_submission(made, RECEIPT_KEY, PROVIDER)
    assert verify_submission(signed, DOMAIN, RECORDER, NOW_S) == RECEIPT_ADDRESS


@pytest.mark.parametrize(
    ("submission", "key", "party", "code"),
    [
        (Submission(PROVIDER, Side.USER, (), NOW_S), SIGNER_KEY, SIGNER, "unprocessable"),
        (Submission(RECORDER, Side.USER, (), NOW_S - 61), SIGNER_KEY, SIGNER, "voucher_expired"),
        (Submission(RECORDER, Side.USER, (), NOW_S + 181), SIGNER_KEY, SIGNER, "voucher_expired"),
        (Submission(RECORDER, Side.USER, (), NOW_S), ATTACKER_KEY, SIGNER, "signature_invalid"),
        (
            Submission(RECORDER, Side.USER, (make_entry(signer=USER),), NOW_S),
            SIGNER_KEY,
            SIGNER,
            "unprocessable",
        ),
        (
            Submission(RECORDER, Side.PROVIDER, (make_entry(provider=USER),), NOW_S),
            RECEIPT_KEY,
            PROVIDER,
            "unprocessable",
        ),
        (
            Submission(RECORDER, Side.USER, (make_entry(), make_entry()), NOW_S),
            SIGNER_KEY,
            SIGNER,
            "unprocessable",
        ),
    ],
)
def test_a_submission_that_is_not_its_partys_is_refused(submission, key, party, code):
    with pytest.raises(RequestError) as refused:
        verify_submission(sign_submission(submission, key, party), DOMAIN, RECORDER, NOW_S)
    assert refused.value.code == code


def test_a_promise_binds_its_recorder_to_these_entries():
    made = (make_entry(1), make_entry(2))
    promise = Promise(SIGNER, PromiseKind.MATCHED, to_hex(hash_entries(made)), 40)
    signed = SignedPromise(promise, sign_digest(SIGNER_KEY, DOMAIN.digest(promise.struct_hash())))
    verify_promise(signed, DOMAIN, SIGNER, PromiseKind.MATCHED, made)
    for kind, about, recorder in (
        (PromiseKind.HELD, made, SIGNER),
        (PromiseKind.MATCHED, made[:1], SIGNER),
        (PromiseKind.MATCHED, made, RECORDER),
    ):
        with pytest.raises(VerificationError) as refused:
            verify_promise(signed, DOMAIN, recorder, kind, about)
        assert refused.value.code == "recorder_dishonest"
