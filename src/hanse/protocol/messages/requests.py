"""Requests, vouchers, receipts and queries: what passes for one request and after it.

Source: `docs/protocol.md`, section "Signed messages".
"""

from enum import IntEnum
from typing import ClassVar

import msgspec

from hanse.protocol.eip712 import address_word, number_words, uint_word
from hanse.protocol.messages.offers import Usage
from hanse.protocol.signatures import Address, Hash32, Signature, keccak


class FinishReason(IntEnum):
    """Why an answer ended; the number is what is signed. OpenAI's names where it has one."""

    ERROR = 0
    STOP = 1
    LENGTH = 2
    TOOL_CALLS = 3
    CONTENT_FILTER = 4
    CANCELLED = 5


class Request(msgspec.Struct, frozen=True):
    """What one voucher buys: this body, at this offer's price, once.

    Attributes:
        offer_hash: hash of the offer whose prices apply.
        body_hash: `hash_body` of path and body.
        maximum_fee: most that this request may cost, in base units.
        request_id: 32 random bytes; served once, ever.
        deadline: unix seconds after which the broker must not admit it.
    """

    TYPE: ClassVar[str] = (
        "Request(bytes32 offerHash,bytes32 bodyHash,uint256 maximumFee,bytes32 requestId,"
        "uint256 deadline)"
    )

    offer_hash: Hash32
    body_hash: Hash32
    maximum_fee: int
    request_id: Hash32
    deadline: int

    def struct_hash(self) -> bytes:
        """The request hash that voucher and receipt carry."""
        return keccak(
            _REQUEST_TYPEHASH
            + number_words(
                "%s %s %064x %s %064x",
                self.offer_hash[2:],
                self.body_hash[2:],
                self.maximum_fee,
                self.request_id[2:],
                self.deadline,
            )
        )


class Voucher(msgspec.Struct, frozen=True):
    """To this provider, up to this cumulative amount, for this request.

    Signed by the sub-account's signer.

    Attributes:
        user: whose sub-account pays.
        provider: who is paid.
        cumulative_max: base units that this provider may have claimed in all from this sub-account.
        sequence_max: highest sequence that a claim on this voucher may name: requests finished and
            acknowledged, plus those in flight, plus this one. It keeps a claim from naming a
            sequence that no receipt can contradict.
        request_hash: the request it was signed for.
    """

    TYPE: ClassVar[str] = (
        "Voucher(address user,address provider,uint256 cumulativeMax,uint256 sequenceMax,"
        "bytes32 requestHash)"
    )

    user: Address
    provider: Address
    cumulative_max: int
    sequence_max: int
    request_hash: Hash32

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields; `Escrow.settle` computes the same."""
        return keccak(
            _VOUCHER_TYPEHASH
            + address_word(self.user)
            + address_word(self.provider)
            + number_words(
                "%064x %064x %s", self.cumulative_max, self.sequence_max, self.request_hash[2:]
            )
        )


class Receipt(msgspec.Struct, frozen=True):
    """What was served and what it cost, signed by the provider's receipt key.

    Attributes:
        user: whose sub-account pays.
        provider: who served.
        signer: the sub-account's signer; the three name the sub-account.
        sequence: 1, 2, 3 ... over the sub-account's finished requests.
        request_hash: the request that was served.
        response_hash: SHA-256 over the response bytes in the order sent.
        usage: metered tokens.
        fee: of this request, base units, at most its maximum fee.
        cumulative_fee: running sum over all sequences up to this one.
        finish_reason: why the answer ended.
        finished_at: unix seconds by the provider's clock.
        commitment_root: root over the proof of inference; zero if there is none.
    """

    TYPE: ClassVar[str] = (
        "Receipt(address user,address provider,address signer,uint256 sequence,bytes32 requestHash,"
        "bytes32 responseHash,uint256 inputTokens,uint256 cachedTokens,uint256 outputTokens,"
        "uint256 fee,uint256 cumulativeFee,uint256 finishReason,uint256 finishedAt,"
        "bytes32 commitmentRoot)"
    )

    user: Address
    provider: Address
    signer: Address
    sequence: int
    request_hash: Hash32
    response_hash: Hash32
    usage: Usage
    fee: int
    cumulative_fee: int
    finish_reason: FinishReason
    finished_at: int
    commitment_root: Hash32

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields; also the leaf of the records' Merkle trees."""
        return keccak(
            _RECEIPT_TYPEHASH
            + address_word(self.user)
            + address_word(self.provider)
            + address_word(self.signer)
            + number_words(
                "%064x %s %s %064x %064x %064x %064x %064x %064x %064x %s",
                self.sequence,
                self.request_hash[2:],
                self.response_hash[2:],
                self.usage.input_tokens,
                self.usage.cached_tokens,
                self.usage.output_tokens,
                self.fee,
                self.cumulative_fee,
                self.finish_reason,
                self.finished_at,
                self.commitment_root[2:],
            )
        )


class Query(msgspec.Struct, frozen=True):
    """A signer's wish to read its sub-account's state and receipts from the broker.

    Attributes:
        user: the sub-account's user.
        provider: the broker's provider; a query for one broker opens nothing at another.
        signer: who signs, and the sub-account's signer.
        after_sequence: receipts after this one are wanted.
        deadline: unix seconds, at most `QUERY_VALID_S_MAX` ahead.
    """

    TYPE: ClassVar[str] = (
        "Query(address user,address provider,address signer,uint256 afterSequence,uint256 deadline)"
    )

    user: Address
    provider: Address
    signer: Address
    after_sequence: int
    deadline: int

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields."""
        return keccak(
            _QUERY_TYPEHASH
            + address_word(self.user)
            + address_word(self.provider)
            + address_word(self.signer)
            + uint_word(self.after_sequence)
            + uint_word(self.deadline)
        )


class SignedReceipt(msgspec.Struct, frozen=True):
    """A receipt and its receipt key's signature."""

    receipt: Receipt
    signature: Signature


class SignedVoucher(msgspec.Struct, frozen=True):
    """A voucher, the request it was signed for, and the signer with its signature."""

    voucher: Voucher
    request: Request
    signer: Address
    signature: Signature


_REQUEST_TYPEHASH = keccak(Request.TYPE.encode())
_VOUCHER_TYPEHASH = keccak(Voucher.TYPE.encode())
_RECEIPT_TYPEHASH = keccak(Receipt.TYPE.encode())
_QUERY_TYPEHASH = keccak(Query.TYPE.encode())
