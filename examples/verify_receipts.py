"""Check Hanse's receipt and record files with nothing but Python's standard library.

    python examples/verify_receipts.py receipt.json more/*.json
    python examples/verify_receipts.py --json record.json
    python examples/verify_receipts.py --commits logs.json record.json more/*.json

It shares no code with the package: keccak-256, secp256k1, EIP-712 and Merkle trees are written out
from the published formats (docs/protocol.md, docs/receipt-file.md; the record file is a receipt
file with an inclusion proof). So two implementations agree, or one of them is wrong. It needs
neither chain nor network, and leaves two things to them: that the receipt key was the provider's
(Registry), and that a record's head is on the chain (Records). With --commits it checks the latter
too, against what any node answers to eth_getLogs for the Records contract, from its first block on.

Over several files it also finds a provider that signed two receipts for one sequence, and sums that
do not add up, also those under a root whose receipts are all there. Exit code 0 if everything fits,
8 if anything does not, 2 for a wrong call.

Source: FIPS 202 (with Keccak's own padding), SEC 1 section 4.1.6, EIP-712, EIP-55, RFC 6962.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

FILE_BYTES_MAX = 131_072
DEPTH_MAX = 32  # levels of brackets; the formats have five
AMOUNT_MAX, SEQUENCE_MAX, TOKENS_MAX, TIME_MAX = 2**96 - 1, 2**64 - 1, 2**40, 2**40
SIBLINGS_MAX = 64
LOGS_BYTES_MAX = 2**30
FINISH_REASONS = ("error", "stop", "length", "tool_calls", "content_filter", "cancelled")
ZERO = "0x" + "00" * 32


class MismatchError(Exception):
    """Something does not fit; the text names it."""


# keccak-256

MASK = 2**64 - 1
ROTATIONS = (
    (0, 36, 3, 41, 18), (1, 44, 10, 45, 2), (62, 6, 43, 15, 61), (28, 55, 25, 21, 56),
    (27, 20, 39, 8, 14),
)  # fmt: skip


def _get_round_constants() -> list[int]:
    register, constants = 1, []
    for _ in range(24):
        constant = 0
        for j in range(7):
            if register & 1:
                constant |= 1 << ((1 << j) - 1)
            register = register << 1 ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return constants


ROUND_CONSTANTS = _get_round_constants()


def _rotate(lane: int, by: int) -> int:
    return (lane << by | lane >> (64 - by)) & MASK


def _permute(a: list[list[int]]) -> list[list[int]]:
    for constant in ROUND_CONSTANTS:
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[x - 1] ^ _rotate(c[(x + 1) % 5], 1) for x in range(5)]
        b = [[0] * 5 for _ in range(5)]
        for x in range(5):
            for y in range(5):
                b[y][(2 * x + 3 * y) % 5] = _rotate(a[x][y] ^ d[x], ROTATIONS[x][y])
        a = [
            [b[x][y] ^ (~b[(x + 1) % 5][y] & b[(x + 2) % 5][y]) for y in range(5)] for x in range(5)
        ]
        a[0][0] ^= constant
    return a


def keccak(data: bytes) -> bytes:
    """Keccak-256, as Ethereum uses it."""
    data += b"\x01"
    data += bytes(-len(data) % 136)
    data = data[:-1] + bytes([data[-1] | 0x80])
    state = [[0] * 5 for _ in range(5)]
    for start in range(0, len(data), 136):
        for lane in range(17):
            word = int.from_bytes(data[start + 8 * lane : start + 8 * lane + 8], "little")
            state[lane % 5][lane // 5] ^= word
        state = _permute(state)
    return b"".join(state[i % 5][i // 5].to_bytes(8, "little") for i in range(4))


# secp256k1; points in Jacobian coordinates, None at infinity

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
    1,
)
Point = tuple[int, int, int] | None


def _double(p: Point) -> Point:
    if p is None:
        return None
    x, y, z = p
    s, m = 4 * x * y * y % P, 3 * x * x % P
    new_x = (m * m - 2 * s) % P
    return new_x, (m * (s - new_x) - 8 * pow(y, 4, P)) % P, 2 * y * z % P


def _add(p: Point, q: Point) -> Point:
    if p is None or q is None:
        return q if p is None else p
    u1, u2 = p[0] * q[2] ** 2 % P, q[0] * p[2] ** 2 % P
    s1, s2 = p[1] * q[2] ** 3 % P, q[1] * p[2] ** 3 % P
    if u1 == u2:
        return _double(p) if s1 == s2 else None
    h, r = u2 - u1, s2 - s1
    x = (r * r - h**3 - 2 * u1 * h * h) % P
    return x, (r * (u1 * h * h - x) - s1 * h**3) % P, h * p[2] * q[2] % P


def recover(digest: bytes, signature: str) -> str:
    """The address that signed a digest: 65 bytes, low s, v 27 or 28."""
    raw = _hex(signature, 65, "signature")
    r, s, v = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64]
    if not (0 < r < N and 0 < s <= N // 2 and v in (27, 28)):
        raise MismatchError("a signature is out of range, or not in its low form")
    square = (pow(r, 3, P) + 7) % P
    y = pow(square, (P + 1) // 4, P)
    if y * y % P != square:
        raise MismatchError("a signature is not a point of the curve")
    point = (r, y if y % 2 == v - 27 else P - y, 1)
    inverse, both = pow(r, -1, N), _add(point, G)
    first = -int.from_bytes(digest, "big") * inverse % N
    second, total = s * inverse % N, None
    for bit in range(255, -1, -1):  # both products at once
        total = _double(total)
        pick = (first >> bit & 1) + 2 * (second >> bit & 1)
        total = _add(total, (None, G, point, both)[pick])
    if total is None:
        raise MismatchError("a signature recovers to no key")
    z = pow(total[2], -1, P)
    x, y = total[0] * z * z % P, total[1] * z**3 % P
    return "0x" + keccak(x.to_bytes(32, "big") + y.to_bytes(32, "big"))[12:].hex()


# fields


def _hex(text: Any, length: int, what: str) -> bytes:
    try:
        if not isinstance(text, str) or text[:2] != "0x" or len(text) != 2 + 2 * length:
            raise ValueError
        if not set(text[2:].lower()) <= set("0123456789abcdef"):
            raise ValueError
        return bytes.fromhex(text[2:])
    except ValueError:
        raise MismatchError(f"{what} is not 0x and {2 * length} hex digits") from None


def _address(text: Any, what: str) -> str:
    digits = _hex(text, 20, what).hex()
    if text[2:] not in (digits, digits.upper()):
        mask = keccak(digits.encode()).hex()
        pairs = zip(digits, mask, strict=False)
        if text[2:] != "".join(c.upper() if int(m, 16) >= 8 else c for c, m in pairs):
            raise MismatchError(f"{what} has a wrong checksum")
    return "0x" + digits


def _count(value: Any, most: int, what: str, least: int = 0, kind: str = "either") -> int:
    """A whole number: `kind` says whether the format has it as digits, as a number, or either."""
    allowed = {"digits": (str,), "number": (int,), "either": (str, int)}[kind]
    if type(value) in allowed:  # not isinstance: True is no number
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) <= 78 and str(int(text)) == text:
            number = int(text)
            if least <= number <= most:
                return number
    raise MismatchError(f"{what} is not a number of {least} .. {most}")


def _fields(data: Any, names: str, what: str) -> dict[str, Any]:
    wanted = set(names.split())
    if not isinstance(data, dict) or set(data) != wanted:
        found = set(data) if isinstance(data, dict) else set()
        raise MismatchError(f"{what} has other fields: {sorted(found ^ wanted)[:5]}")
    return data


def _equal(what: str, actual: Any, expected: Any) -> None:
    if actual != expected:
        raise MismatchError(f"{what} is {actual}, expected {expected}")


# EIP-712

OFFER = (
    "Offer(address provider,uint256 serviceId,string serviceType,string model,bytes32 manifestRoot,"
    "string quantisation,string engine,uint256 contextTokens,uint256 outputTokensMax,"
    "uint256 inputPerMtok,uint256 cachedPerMtok,uint256 outputPerMtok,string verifiability,"
    "string[] endpoints,bytes32 encryptionKey,uint256 validUntil,uint256 revision,string region)"
)
REQUEST = (
    "Request(bytes32 offerHash,bytes32 bodyHash,uint256 maximumFee,bytes32 requestId,"
    "uint256 deadline)"
)
VOUCHER = (
    "Voucher(address user,address provider,uint256 cumulativeMax,uint256 sequenceMax,"
    "bytes32 requestHash)"
)
RECEIPT = (
    "Receipt(address user,address provider,address signer,uint256 sequence,bytes32 requestHash,"
    "bytes32 responseHash,uint256 inputTokens,uint256 cachedTokens,uint256 outputTokens,"
    "uint256 fee,uint256 cumulativeFee,uint256 finishReason,uint256 finishedAt,"
    "bytes32 commitmentRoot)"
)
DOMAIN = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


def _word(kind: str, value: Any) -> bytes:
    if kind == "string":
        return keccak(value.encode())
    if kind == "string[]":
        return keccak(b"".join(keccak(item.encode()) for item in value))
    if kind == "address":
        return bytes(12) + _hex(value, 20, "an address")
    if kind == "bytes32":
        return _hex(value, 32, "a hash")
    return int(value).to_bytes(32, "big")


def hash_struct(encoded_type: str, *values: Any) -> bytes:
    """EIP-712's hashStruct over the values in the type's order."""
    inside = encoded_type[encoded_type.index("(") + 1 : -1].split(",")
    words = [_word(field.split(" ")[0], v) for field, v in zip(inside, values, strict=True)]
    return keccak(keccak(encoded_type.encode()) + b"".join(words))


# the two files


def verify_receipt(document: Any) -> dict[str, Any]:
    """Check a receipt file's document; returns what sums over several files need."""
    file = _fields(document, "format domain receipt_key voucher offer receipt", "the file")
    _equal("the format", file["format"], "hanse-receipt-1")
    domain = _fields(file["domain"], "chain_id escrow", "the domain")
    chain_id = _count(domain["chain_id"], 2**256 - 1, "chain_id")
    separator = hash_struct(DOMAIN, "Hanse", "1", chain_id, _address(domain["escrow"], "escrow"))
    key = _address(file["receipt_key"], "receipt_key")

    def signed_by(struct: bytes, signature: Any) -> str:
        return recover(keccak(b"\x19\x01" + separator + struct), signature)

    offer, offer_struct = _read_offer(file["offer"])
    voucher, request_hash, voucher_struct = _read_voucher(file["voucher"])
    receipt, receipt_struct = _read_receipt(file["receipt"])
    _equal("the offer's hash", "0x" + offer_struct.hex(), voucher["offer_hash"].lower())
    _equal("the offer's signer", signed_by(offer_struct, offer["signature"]), key)
    _equal("the offer's provider", offer["provider"], voucher["provider"])
    signer = signed_by(voucher_struct, voucher["signature"])
    _equal("the voucher's signer", signer, voucher["signer"])
    _equal("the receipt's signer", signed_by(receipt_struct, receipt["signature"]), key)
    for name in ("user", "provider", "signer"):
        _equal(f"the receipt's {name}", receipt[name], voucher[name])
    _equal("the receipt's request", receipt["request_hash"].lower(), "0x" + request_hash.hex())
    kinds = ("input", "cached", "output")
    prices = [offer["prices"][f"{kind}_per_mtok"] for kind in kinds]
    total = sum(receipt[f"{k}_tokens"] * price for k, price in zip(kinds, prices, strict=True))
    most = min(-(-total // 1_000_000), voucher["maximum_fee"])
    if receipt["fee"] > most:
        raise MismatchError(f"the fee {receipt['fee']} is above {most}, its price or maximum")
    digest = keccak(b"\x19\x01" + separator + receipt_struct)
    return {**receipt, "digest": digest, "chain_id": chain_id, "escrow": domain["escrow"].lower()}


def verify_record(document: Any) -> dict[str, Any]:
    """Check a record file's document: its receipt, and its place in a root and a chain of heads."""
    file = _fields(document, "format receipt records proof", "the file")
    _equal("the format", file["format"], "hanse-record-1")
    records = _address(file["records"], "records")
    receipt = verify_receipt(file["receipt"])
    proof = _fields(
        file["proof"],
        "recorder commit user_trace_hash provider_trace_hash index siblings transaction_hash "
        "block_number",
        "the proof",
    )
    commit = _fields(
        proof["commit"], "number root count fee_total previous_head head", "the commit"
    )
    recorder = _address(proof["recorder"], "recorder")
    _hex(proof["transaction_hash"], 32, "transaction_hash")
    _count(proof["block_number"], SEQUENCE_MAX, "block_number", 0, "number")
    count = _count(commit["count"], SEQUENCE_MAX, "count", 1, "digits")
    index = _count(proof["index"], SEQUENCE_MAX, "index", 0, "digits")
    number = _count(commit["number"], SEQUENCE_MAX, "number", 1, "digits")
    fee_total = _count(commit["fee_total"], 2**256 - 1, "fee_total", 0, "digits")
    words = [_hex(commit[name], 32, name) for name in ("previous_head", "root")]
    words += [count.to_bytes(32, "big"), fee_total.to_bytes(32, "big")]
    _equal("the head", "0x" + keccak(b"".join(words)).hex(), commit["head"].lower())
    if number == 1:
        _equal("the head before the first", commit["previous_head"], ZERO)
    traces = [_hex(proof[f"{side}_trace_hash"], 32, "trace") for side in ("user", "provider")]
    leaf = keccak(receipt["digest"] + b"".join(traces))
    _equal("the root", _get_root(leaf, index, count, proof["siblings"]), commit["root"].lower())
    said = (commit["root"].lower(), count, fee_total, commit["head"].lower())
    return {**receipt, "record": ((records, recorder, number), said), "index": index}


def _get_root(value: bytes, index: int, count: int, siblings: Any) -> str:
    if not isinstance(siblings, list) or len(siblings) > SIBLINGS_MAX or index >= count:
        raise MismatchError("the proof's place or siblings are out of range")
    left = [_hex(sibling, 32, "sibling") for sibling in siblings]
    node, place, width = keccak(b"\x00" + value), index, count
    while width > 1:
        if place ^ 1 < width:
            if not left:
                raise MismatchError("the proof has too few siblings")
            pair = (left[0], node) if place & 1 else (node, left[0])
            node = keccak(b"\x01" + pair[0] + pair[1])
            left.pop(0)
        place, width = place // 2, (width + 1) // 2
    if left:
        raise MismatchError("the proof has too many siblings")
    return "0x" + keccak(b"\x02" + count.to_bytes(8, "big") + node).hex()


def _read_offer(data: Any) -> tuple[dict[str, Any], bytes]:
    offer = dict(_fields(
        data,
        "v provider service_id service_type model manifest_root quantisation engine context_tokens "
        "output_tokens_max prices verifiability endpoints encryption_key valid_until revision "
        "region signature",
        "the offer",
    ))  # fmt: skip
    _count(offer["v"], 1, "the offer's version", 1, "number")
    names = "input_per_mtok cached_per_mtok output_per_mtok"
    prices = _fields(offer["prices"], names, "the prices")
    offer["prices"] = {
        name: _count(prices[name], 2**80, name, 0, "digits") for name in names.split()
    }
    offer["provider"] = _address(offer["provider"], "the offer's provider")
    for name in ("service_type", "model", "quantisation", "engine", "verifiability", "region"):
        if not isinstance(offer[name], str):
            raise MismatchError(f"the offer's {name} is not text")
    endpoints = offer["endpoints"]
    if not isinstance(endpoints, list) or not all(isinstance(item, str) for item in endpoints):
        raise MismatchError("the offer's endpoints are not a list of texts")
    for name, most in (
        ("service_id", SEQUENCE_MAX), ("context_tokens", TOKENS_MAX), ("revision", SEQUENCE_MAX),
        ("output_tokens_max", TOKENS_MAX), ("valid_until", TIME_MAX),
    ):  # fmt: skip
        offer[name] = _count(offer[name], most, name, 0, "number")
    order = ["provider", "service_id", "service_type", "model", "manifest_root", "quantisation"]
    order += ["engine", "context_tokens", "output_tokens_max"]
    rest = ("verifiability", "endpoints", "encryption_key", "valid_until", "revision", "region")
    values = [offer[name] for name in order] + list(offer["prices"].values())
    return offer, hash_struct(OFFER, *values, *(offer[name] for name in rest))


def _read_voucher(data: Any) -> tuple[dict[str, Any], bytes, bytes]:
    voucher = dict(_fields(
        data,
        "user provider signer cumulative_max sequence_max offer_hash body_hash maximum_fee "
        "request_id deadline signature",
        "the voucher",
    ))  # fmt: skip
    for name in ("user", "provider", "signer"):
        voucher[name] = _address(voucher[name], name)
    for name in ("cumulative_max", "sequence_max", "maximum_fee", "deadline"):
        voucher[name] = _count(voucher[name], 2**256 - 1, name)
    names = ("offer_hash", "body_hash", "maximum_fee", "request_id", "deadline")
    request_hash = hash_struct(REQUEST, *(voucher[name] for name in names))
    values = [voucher[n] for n in ("user", "provider", "cumulative_max", "sequence_max")]
    return voucher, request_hash, hash_struct(VOUCHER, *values, "0x" + request_hash.hex())


def _read_receipt(data: Any) -> tuple[dict[str, Any], bytes]:
    order = (
        "user provider signer sequence request_hash response_hash input_tokens cached_tokens "
        "output_tokens fee cumulative_fee finish_reason finished_at commitment_root"
    )
    receipt = dict(_fields(data, f"v {order} signature", "the receipt"))
    _count(receipt["v"], 1, "the receipt's version", 1, "number")
    for name in ("user", "provider", "signer"):
        receipt[name] = _address(receipt[name], name)
    for name, most, least in (
        ("sequence", SEQUENCE_MAX, 1), ("input_tokens", TOKENS_MAX, 0),
        ("cached_tokens", TOKENS_MAX, 0), ("output_tokens", TOKENS_MAX, 0),
        ("fee", AMOUNT_MAX, 0), ("cumulative_fee", AMOUNT_MAX, 0), ("finished_at", TIME_MAX, 0),
    ):  # fmt: skip
        kind = "number" if name.endswith(("tokens", "_at")) else "digits"
        receipt[name] = _count(receipt[name], most, name, least, kind)
    if receipt["finish_reason"] not in FINISH_REASONS:
        raise MismatchError("the finish reason is unknown")
    values = {**receipt, "finish_reason": FINISH_REASONS.index(receipt["finish_reason"])}
    return receipt, hash_struct(RECEIPT, *(values[name] for name in order.split()))


# many files


def verify_file(content: bytes) -> dict[str, Any]:
    """Check one file of either format."""
    if len(content) > FILE_BYTES_MAX:
        raise MismatchError(f"the file has more than {FILE_BYTES_MAX} bytes")
    if _get_depth(content) > DEPTH_MAX:
        raise MismatchError(f"the file nests deeper than {DEPTH_MAX} levels")
    try:
        document = json.loads(content)
        is_record = isinstance(document, dict) and document.get("format") == "hanse-record-1"
        return verify_record(document) if is_record else verify_receipt(document)
    except MismatchError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise MismatchError(f"not a receipt or record file ({type(error).__name__})") from None


def _get_depth(content: bytes) -> int:
    """How deep the brackets nest.

    Looked at before json's parser, which recurses, and ends the process where something has raised
    Python's recursion limit.
    """
    depth = deepest = 0
    in_text = escaped = False
    for byte in content:
        if in_text:
            in_text = escaped or byte != 0x22
            escaped = not escaped and byte == 0x5C
        elif byte == 0x22:
            in_text = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def find_contradictions(receipts: Iterable[dict[str, Any]]) -> list[str]:
    """Two receipts for one sequence, and sums that do not add up, over all sub-accounts."""
    names = ("chain_id", "escrow", "user", "provider", "signer")
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    found = []
    for receipt in receipts:
        key = (*(receipt[name] for name in names), receipt["sequence"])
        other = seen.setdefault(key, receipt)
        if other["digest"] != receipt["digest"]:
            found.append(f"two receipts of {receipt['provider']} for sequence {key[-1]}")
    for key, receipt in seen.items():
        before = seen.get((*key[:-1], key[-1] - 1))
        sum_before = before["cumulative_fee"] if before else None
        if key[-1] == 1:
            sum_before = 0
        if sum_before is not None and sum_before + receipt["fee"] != receipt["cumulative_fee"]:
            found.append(f"the sum of {receipt['provider']} at sequence {key[-1]} does not add up")
    return found


COMMITTED = "Committed(address,uint256,bytes32,uint256,uint256,bytes32)"
Commits = dict[tuple[str, str, int], tuple[str, int, int, str]]


def read_commits(content: bytes) -> Commits:
    """What Records' events say: (contract, recorder, number) -> (root, count, fee total, head).

    Each recorder's heads must chain from its first commit on.
    """
    commits: Commits = {}
    heads: dict[tuple[str, str], tuple[int, bytes]] = {}
    try:
        if _get_depth(content) > DEPTH_MAX:
            raise MismatchError(f"the commits nest deeper than {DEPTH_MAX} levels")
        document = json.loads(content)
        logs = document["result"] if isinstance(document, dict) else document
        for log in logs:
            if log["topics"][0] != "0x" + keccak(COMMITTED.encode()).hex():
                continue
            recorder = "0x" + _hex(log["topics"][1], 32, "a recorder")[12:].hex()
            number = int.from_bytes(_hex(log["topics"][2], 32, "a number"), "big")
            data = _hex(log["data"], 128, "a commit")
            place = (_address(log["address"], "records"), recorder)
            before, previous = heads.get(place, (0, bytes(32)))
            _equal(f"the commit of {recorder} after {before}", number, before + 1)
            _equal(f"the head of commit {number}", data[96:], keccak(previous + data[:96]))
            heads[place] = (number, data[96:])
            root, head = ("0x" + data[at : at + 32].hex() for at in (0, 96))
            count, fee_total = (int.from_bytes(data[at : at + 32], "big") for at in (32, 64))
            commits[*place, number] = (root, count, fee_total, head)
    except MismatchError:
        raise
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise MismatchError(f"not an answer to eth_getLogs ({type(error).__name__})") from None
    return commits


def find_unrecorded(receipts: Iterable[dict[str, Any]], commits: Commits | None) -> list[str]:
    """Records that the chain does not have, and roots whose fees are not those of its receipts."""
    under: dict[Any, dict[int, int]] = {}
    found = []
    for receipt in receipts:
        if "record" not in receipt:
            continue
        key, said = receipt["record"]
        if commits is not None and commits.get(key) != said:
            found.append(f"the chain has {commits.get(key)} as commit {key[-1]}, not {said}")
        under.setdefault(receipt["record"], {})[receipt["index"]] = receipt["fee"]
    for (key, (root, count, fee_total, _)), fees in under.items():
        if len(fees) == count and sum(fees.values()) != fee_total:
            found.append(f"root {root} of commit {key[-1]} states {fee_total} in fees")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Check the files that are named; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check Hanse's receipt and record files offline.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    help_ = "a node's answer to eth_getLogs for Records: is every record on the chain?"
    parser.add_argument("--commits", metavar="LOGS", help=help_)
    asked = parser.parse_args(arguments)
    receipts: list[dict[str, Any]] = []
    failures: list[str] = []
    commits: Commits | None = None
    if asked.commits:
        try:
            with open(asked.commits, "rb") as file:
                commits = read_commits(file.read(LOGS_BYTES_MAX))
        except (MismatchError, OSError) as error:
            parser.error(f"{asked.commits}: {error}")
    for number, name in enumerate(asked.files, 1):
        try:
            with open(name, "rb") as file:
                receipts.append(verify_file(file.read(FILE_BYTES_MAX + 1)))
        except (MismatchError, OSError) as error:
            failures.append(f"{name}: {error}")
        if number % 50 == 0:
            print(f"{number} of {len(asked.files)} files", file=sys.stderr, flush=True)
    failures += find_contradictions(receipts) + find_unrecorded(receipts, commits)
    fees = sum(receipt["fee"] for receipt in receipts)
    recorded = sum("record" in receipt for receipt in receipts)
    if asked.json:
        counts = {"verified": len(receipts), "recorded": recorded, "fees": str(fees)}
        print(json.dumps({**counts, "failures": failures}))
    else:
        summary = f"{len(receipts)} verified, fees of {fees} base units; {recorded} with a record"
        if commits is not None:
            summary += f", held against {len(commits)} commits of the chain"
        print("\n".join([*failures, summary]))
    return 8 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
