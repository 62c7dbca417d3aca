"""Signed bytes of an EIP-1559 transaction back to its sender and fields, as a node decodes them.

Source: EIP-1559, EIP-2718, the Yellow Paper's appendix B (RLP).
"""

from dataclasses import dataclass
from typing import Any

from hanse.chain.outbox.transactions import encode_rlp
from hanse.protocol.signatures import keccak, recover_signer, to_hex


@dataclass(frozen=True)
class Sent:
    """One transaction as it was broadcast. Fees are wei a gas."""

    hash: str
    raw: bytes
    sender: str
    nonce: int
    tip_wei: int
    max_fee_wei: int
    to: str
    data: bytes


def decode_transaction(raw: bytes) -> Sent:
    """Decode and recover the sender; raises ValueError for anything but type 2."""
    if raw[:1] != b"\x02":
        raise ValueError("only type 2 is known here")
    fields, _ = _decode(raw, 1)
    unsigned, (v, r, s) = fields[:9], (int.from_bytes(f, "big") for f in fields[9:])
    digest = keccak(b"\x02" + encode_rlp(unsigned))
    signature = "0x" + (r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((27 + v,))).hex()
    _, nonce, tip, max_fee, _, to, _, data, _ = unsigned
    return Sent(
        to_hex(keccak(raw)),
        raw,
        recover_signer(digest, signature),
        int.from_bytes(nonce, "big"),
        int.from_bytes(tip, "big"),
        int.from_bytes(max_fee, "big"),
        to_hex(to),
        data,
    )


def _decode(raw: bytes, at: int) -> tuple[Any, int]:
    """The item at a position, bytes or a list, and the position after it."""
    first = raw[at]
    if first < 0x80:
        return raw[at : at + 1], at + 1
    is_list = first >= 0xC0
    length, start = first - (0xC0 if is_list else 0x80), at + 1
    if length > 55:
        size = length - 55
        length, start = int.from_bytes(raw[start : start + size], "big"), start + size
    end = start + length
    if not is_list:
        return raw[start:end], end
    items: list[Any] = []
    while start < end:
        item, start = _decode(raw, start)
        items.append(item)
    return items, end
