"""examples/verify_receipts.py and the package judge alike: true files, damaged ones, rubbish."""

import ast
import copy
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import sha3
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.protocol.errors import HanseError, VerificationError
from hanse.protocol.merkle import get_proof
from hanse.protocol.messages import FinishReason, SignedOffer, Usage
from hanse.protocol.records import Commit, Leaf, RecordProof, apply_commit
from hanse.protocol.records.proofs import order_leaves
from hanse.protocol.signatures import get_address, sign_digest, to_hex
from hanse.sdk.receipt_file import export_receipt, verify_receipt_document
from hanse.sdk.record_file import export_record, verify_record_document
from hanse.settlement.books.voucher_records import (
    StoredReceipt,
    StoredVoucher,
    Verification,
    VoucherState,
)
from tests.protocol.made_messages import (
    ATTACKER_KEY,
    DOMAIN,
    RECEIPT_ADDRESS,
    RECEIPT_KEY,
    make_offer,
    make_receipt,
    make_voucher,
)

FILE = Path(__file__).parents[2] / "examples" / "verify_receipts.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_receipts", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checker = load()


def test_it_shares_no_code_with_the_package():
    tree = ast.parse(FILE.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
    assert not names & {"hashlib", "importlib", "subprocess"}, "its hash is its own"


@given(st.binary(max_size=600))
def test_its_keccak_is_keccak(data):
    assert checker.keccak(data) == sha3.keccak_256(data).digest()


@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**255))
@settings(max_examples=20, deadline=None)
def test_it_recovers_who_signed(digest, secret):
    key = PrivateKey(secret.to_bytes(32, "big"))
    assert checker.recover(digest, sign_digest(key, digest)) == get_address(key.public_key)


def make_document(seed: int = 1, **receipt_changes: Any) -> dict[str, Any]:
    """A right receipt file with random contents."""
    chance = random.Random(seed)
    offer = make_offer(
        model=chance.choice(["smollm2", "modèle-漢字", "x" * 128]),
        service_id=chance.randrange(2**64),
        manifest_root=to_hex(chance.randbytes(32)),
        endpoints=tuple(f"https://broker{n}.test/a?b=c" for n in range(chance.randint(1, 8))),
    )
    signed_offer = SignedOffer(offer, sign_digest(RECEIPT_KEY, DOMAIN.digest(offer.struct_hash())))
    voucher = make_voucher(
        offer_hash=to_hex(offer.struct_hash()),
        body_hash=to_hex(chance.randbytes(32)),
        request_id=to_hex(chance.randbytes(32)),
        maximum_fee=10**6,
        cumulative_max=chance.randrange(2**96),
        sequence_max=chance.randrange(2**64),
    )
    usage = Usage(chance.randrange(10**6), chance.randrange(10**6), chance.randrange(10**6))
    fee = min(offer.prices.get_fee(usage), 10**6)
    values = {
        "sequence": chance.randint(1, 2**64 - 1),
        "usage": usage,
        "fee": fee,
        "cumulative_fee": fee + chance.randrange(10**9),
        "response_hash": to_hex(chance.randbytes(32)),
        "finish_reason": chance.choice(list(FinishReason)),
    }
    receipt = make_receipt(voucher, **(values | receipt_changes))
    stored = StoredVoucher(
        voucher, "/v1/chat/completions", signed_offer, RECEIPT_ADDRESS, b"", 0, 0,
        VoucherState.RECEIPTED, None, 0, True, 0,
    )  # fmt: skip
    kept = StoredReceipt(voucher.request.request_id, receipt, Verification.VERIFIED, "", True, 0)
    return json.loads(msgspec.json.encode(export_receipt(DOMAIN, stored, kept)))


def make_record(seed: int = 1, count: int = 5) -> dict[str, Any]:
    """A right record file: the receipt is one of several leaves."""
    return make_record_and_logs(seed, count)[0]


def make_record_and_logs(seed: int, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A right record file, and what a node says of its recorder's commits."""
    chance = random.Random(seed)
    document = make_document(seed)
    receipt = verify_receipt_document(json.dumps(document).encode()).receipt
    r = receipt.receipt
    key = (r.user, r.provider, r.signer, r.sequence)
    digest = to_hex(DOMAIN.digest(r.struct_hash()))
    ours = Leaf(key, digest, r.fee, to_hex(chance.randbytes(32)))
    others = [
        Leaf((to_hex(chance.randbytes(20)), *key[1:]), to_hex(chance.randbytes(32)), number)
        for number in range(1, count)
    ]
    leaves = order_leaves([ours, *others])
    first = apply_commit((0, "0x" + "00" * 32), others or leaves)
    commit = apply_commit((1, first.head), leaves)
    index = leaves.index(ours)
    found = get_proof([leaf.get_value() for leaf in leaves], index)
    proof = RecordProof(
        "0x" + "77" * 20, commit, ours.user_trace_hash, ours.provider_trace_hash, index,
        tuple(to_hex(sibling) for sibling in found.siblings), "0x" + "66" * 32, 12,
    )  # fmt: skip
    file = export_record(document, proof, "0x" + "55" * 20)
    logs = [_to_log(made) for made in (first, commit)]
    return json.loads(msgspec.json.encode(file)), logs


def _to_log(commit: Commit) -> dict[str, Any]:
    """As `eth_getLogs` gives it; only what Records.vy says of its event is used."""
    topic = sha3.keccak_256(b"Committed(address,uint256,bytes32,uint256,uint256,bytes32)").digest()
    words = (commit.root[2:], f"{commit.count:064x}", f"{commit.fee_total:064x}", commit.head[2:])
    return {
        "address": "0x" + "55" * 20,
        "topics": ["0x" + topic.hex(), "0x" + "00" * 12 + "77" * 20, f"0x{commit.number:064x}"],
        "data": "0x" + "".join(words),
    }


def judge_by_the_package(document: Any) -> bool:
    content = json.dumps(document).encode()
    is_record = isinstance(document, dict) and document.get("format") == "hanse-record-1"
    try:
        (verify_record_document if is_record else verify_receipt_document)(content)
    except (VerificationError, HanseError):
        return False
    return True


def judge_by_the_example(document: Any) -> bool:
    try:
        checker.verify_file(json.dumps(document).encode())
    except checker.MismatchError:
        return False
    return True


def list_places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path] + [place for key, item in items for place in list_places(item, (*path, key))]


def damage(document: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One change somewhere: a digit, a number, a missing or a new field, something else's value."""
    spoiled = copy.deepcopy(document)
    places = [place for place in list_places(spoiled) if place]
    *path, last = chance.choice(places)
    parent: Any = spoiled
    for key in path:
        parent = parent[key]
    value, kind = parent[last], chance.randrange(6)
    if kind == 0:
        del parent[last]
    elif kind == 1 and isinstance(parent, dict):
        parent[f"{last}_2"] = value
    elif kind == 2:
        parent[last] = chance.choice([None, -1, 2**300, "", "0x", [], {}, True, 1.5, "-1", "1e3"])
    elif isinstance(value, str) and value:
        at = chance.randrange(len(value))
        digit = chance.choice("0123456789abcdef".replace(value[at].lower(), ""))
        parent[last] = value[:at] + digit + value[at + 1 :]
    elif isinstance(value, int):
        parent[last] = value + 1
    return spoiled


@pytest.mark.parametrize("seed", range(15))
def test_true_receipts_pass_both(seed):
    document = make_document(seed)
    assert judge_by_the_package(document)
    assert judge_by_the_example(document)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_true_records_pass_both(count):
    document = make_record(count, count)
    assert judge_by_the_package(document)
    assert judge_by_the_example(document)


@pytest.mark.parametrize("make", [make_document, make_record])
def test_damaged_files_are_judged_alike(make):
    chance, refused = random.Random(20), 0
    for number in range(150):
        spoiled = damage(make(number % 4), chance)
        ours, theirs = judge_by_the_package(spoiled), judge_by_the_example(spoiled)
        assert ours == theirs, (ours, theirs, spoiled)
        refused += not ours
    assert refused > 100, "the damage must show"


def test_a_fee_above_its_price_passes_neither():
    document = make_document(1, fee=10**6 + 1, cumulative_fee=10**7)
    assert not judge_by_the_package(document)
    assert not judge_by_the_example(document)


def test_another_key_passes_neither():
    document = make_document(1)
    document["receipt_key"] = get_address(ATTACKER_KEY.public_key)
    assert not judge_by_the_package(document)
    assert not judge_by_the_example(document)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(
    st.text(max_size=5), c)))  # fmt: skip
def test_rubbish_passes_neither(value):
    assert not judge_by_the_example(value)


def test_nests_and_rubbish_bytes_are_refused():
    for content in (b"[" * 100_000, b"\xff", b"", b"{}", b" " * 200_000):
        with pytest.raises(checker.MismatchError):
            checker.verify_file(content)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(FILE), *arguments], capture_output=True, text=True
    )


def write(folder: Path, documents: list[dict[str, Any]]) -> list[str]:
    paths = [folder / f"{number}.json" for number in range(len(documents))]
    for path, document in zip(paths, documents, strict=True):
        path.write_text(json.dumps(document))
    return [str(path) for path in paths]


def test_many_files_without_any_package_installed(tmp_path):
    fees = [(1, 5, 5), (2, 7, 12), (3, 0, 12)]
    documents = [
        make_document(4, sequence=n, fee=fee, cumulative_fee=total) for n, fee, total in fees
    ]
    done = run("--json", *write(tmp_path, documents * 17))
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["verified"] == 51
    assert "50 of 51 files" in done.stderr


def test_contradictions_over_several_files_are_found(tmp_path):
    twice = [make_document(4, sequence=1, fee=fee, cumulative_fee=fee) for fee in (5, 6)]
    done = run("--json", *write(tmp_path, twice))
    assert done.returncode == 8
    assert "two receipts" in json.loads(done.stdout)["failures"][0]
    sums = [make_document(4, sequence=n, fee=5, cumulative_fee=5) for n in (1, 2)]
    done = run(*write(tmp_path, sums))
    assert done.returncode == 8
    assert "does not add up" in done.stdout


def test_a_missing_and_a_spoiled_file_are_named(tmp_path):
    (spoiled,) = write(tmp_path, [make_document(1) | {"format": "other"}])
    done = run(spoiled, str(tmp_path / "none.json"))
    assert done.returncode == 8
    assert spoiled in done.stdout
    assert "none.json" in done.stdout


def test_records_are_held_against_what_a_node_says_of_the_chain(tmp_path):
    document, logs = make_record_and_logs(3, 4)
    (file,) = write(tmp_path, [document])

    def check(answer: Any) -> subprocess.CompletedProcess[str]:
        (tmp_path / "logs").write_text(json.dumps(answer))
        return run("--json", "--commits", str(tmp_path / "logs"), file)

    stranger = {**logs[0], "topics": ["0x" + "ab" * 32]}
    done = check({"jsonrpc": "2.0", "id": 1, "result": [stranger, *logs]})
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["recorded"] == 1
    assert check(logs).returncode == 0, "the bare list too"
    done = check(logs[:1])
    assert done.returncode == 8
    assert "the chain has None as commit 2" in json.loads(done.stdout)["failures"][0]
    elsewhere = [{**log, "address": "0x" + "54" * 20} for log in logs]
    assert check(elsewhere).returncode == 8
    bent = {**logs[1], "data": logs[1]["data"].replace(logs[1]["data"][-4:], "0000")}
    for wrong in (logs[1:], [logs[0], bent], [{}], 5, {"error": {}}):
        done = check(wrong)
        assert done.returncode == 2, wrong
        assert "Traceback" not in done.stderr
    assert run("--commits", str(tmp_path / "none"), file).returncode == 2


def test_a_root_states_the_fees_of_its_receipts(tmp_path):
    receipt = checker.verify_record(make_record(3, 2))
    key, (root, _, fee_total, head) = receipt["record"]
    alone = {**receipt, "record": (key, (root, 1, fee_total, head))}
    assert checker.find_unrecorded([receipt], None) == [], "one of two is missing"
    (found,) = checker.find_unrecorded([alone], None)
    assert str(fee_total) in found
