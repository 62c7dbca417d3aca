"""How long the protocol's pure parts take: `make bench-protocol`.

Medians of seven rounds on one core. These parts are what signatures add to a request on either
side; the books' durability is measured by bench_path.
"""

import json
import sys
import timeit
from collections.abc import Callable

from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import recover_signer, sign_digest
from hanse.protocol.verify import verify_voucher
from hanse.protocol.wire import (
    decode_receipt,
    decode_voucher_header,
    encode_receipt,
    encode_voucher_header,
)
from tests.protocol.made_messages import (
    DOMAIN,
    NOW_S,
    PROVIDER,
    SIGNER_KEY,
    make_receipt,
    make_voucher,
)

CALLS = 2_000
ROUNDS = 7


def get_cases() -> dict[str, Callable[[], object]]:
    """Name -> what is called."""
    voucher = make_voucher()
    receipt = make_receipt(voucher)
    header = encode_voucher_header(voucher, 2, bytes(32))
    receipt_header = encode_receipt(receipt)
    digest = DOMAIN.digest(voucher.voucher.struct_hash())
    messages = [{"role": "user", "content": "x" * 1_000}] * 97
    history = json.dumps({"model": "m", "messages": messages}).encode()
    return {
        "digest of a voucher": lambda: DOMAIN.digest(voucher.voucher.struct_hash()),
        "digest of a receipt": lambda: DOMAIN.digest(receipt.receipt.struct_hash()),
        "write a voucher header": lambda: encode_voucher_header(voucher, 2, bytes(32)),
        "read a voucher header": lambda: decode_voucher_header(header),
        "write a receipt": lambda: encode_receipt(receipt),
        "read a receipt": lambda: decode_receipt(receipt_header),
        "brackets of 100 kB": lambda: is_nested_too_deep(history),
        "sign a digest": lambda: sign_digest(SIGNER_KEY, digest),
        "recover a signer": lambda: recover_signer(digest, voucher.signature),
        "check a voucher": lambda: verify_voucher(voucher, DOMAIN, PROVIDER, NOW_S),
    }


def main() -> int:
    """Measure every case; a table for people, one JSON line each for programs."""
    for name, call in get_cases().items():
        rounds = sorted(timeit.repeat(call, number=CALLS, repeat=ROUNDS))
        microseconds = round(rounds[ROUNDS // 2] / CALLS * 1e6, 1)
        print(f"{name:<24} {microseconds:>7.1f} us", file=sys.stderr)
        print(json.dumps({"case": name, "us": microseconds}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
