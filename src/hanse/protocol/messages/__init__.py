"""The signed messages: Offer, Request, Voucher, Receipt, Query, Heartbeat.

Each is a frozen struct whose `struct_hash` is the EIP-712 hash of exactly its fields. Amounts are
`int` inside and decimal strings in JSON (`hanse.protocol.wire` does the translation, and the checks
of what comes from outside).

offers     Offer, with its Prices, and Usage
requests   Request, Voucher, Receipt, Query, FinishReason
heartbeats Heartbeat

Source: `docs/protocol.md`, section "Signed messages".
"""

from hanse.protocol.messages.heartbeats import Heartbeat, SignedHeartbeat
from hanse.protocol.messages.offers import Offer, Prices, SignedOffer, Usage
from hanse.protocol.messages.requests import (
    FinishReason,
    Query,
    Receipt,
    Request,
    SignedReceipt,
    SignedVoucher,
    Voucher,
)

__all__ = [
    "FinishReason",
    "Heartbeat",
    "Offer",
    "Prices",
    "Query",
    "Receipt",
    "Request",
    "SignedHeartbeat",
    "SignedOffer",
    "SignedReceipt",
    "SignedVoucher",
    "Usage",
    "Voucher",
]
