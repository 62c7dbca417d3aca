"""Is a decrypted trace what was signed for? Pure; raises at the first thing that does not fit.

The trace hash only says that the object is the one that was noted, and decrypting only that it is
whole: either side could have written anything into it. What ties it to the request are the hashes
in voucher and receipt.

Source: docs/protocol.md, section "Signed messages".
"""

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import VerificationError
from hanse.protocol.hashing import hash_body, hash_response
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import Address, to_hex
from hanse.protocol.verify import verify_receipt_signature
from hanse.settlement.traces.document import Trace


def check_trace(
    trace: Trace, domain: Domain, receipt_key: Address, held: SignedReceipt | None = None
) -> None:
    """Check a trace against the receipt.

    1. Path and body hash to the request's body hash.
    2. The request hashes to what the receipt says was served.
    3. The receipt is signed by `receipt_key`, and is the one in our books, if we hold it.
    4. The answer hashes to what the receipt says was sent.

    The caller still owes: that `receipt_key` is the provider's.

    Raises:
        VerificationError: `trace_invalid`, naming the two values; `receipt_invalid` if the
            signature is not that key's; `response_mismatch` if the answer is another one.
    """
    receipt = trace.receipt.receipt
    body_hash = hash_body(trace.path, trace.body)
    _verify_equal("path and body hash to", body_hash, trace.request.body_hash, "the request says")
    request_hash = to_hex(trace.request.struct_hash())
    _verify_equal("the request hashes to", request_hash, receipt.request_hash, "the receipt says")
    verify_receipt_signature(trace.receipt, domain, receipt_key)
    if held is not None and held.receipt != receipt:
        raise VerificationError(
            "trace_invalid",
            f"the trace holds receipt {to_hex(receipt.struct_hash())}, our books "
            f"{to_hex(held.receipt.struct_hash())} for the same request: two signed receipts that "
            "differ are evidence, see hanse disputes",
        )
    response_hash = hash_response(trace.response)
    if response_hash != receipt.response_hash:
        raise VerificationError(
            "response_mismatch",
            f"the {len(trace.response)} bytes of the answer hash to {response_hash}, the receipt "
            f"says {receipt.response_hash}",
        )


def _verify_equal(what: str, actual: str, expected: str, whose: str) -> None:
    if actual != expected:
        raise VerificationError("trace_invalid", f"{what} {actual}, {whose} {expected}")
