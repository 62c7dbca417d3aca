"""EIP-712 digests of Hanse's messages, without a general encoder.

Every message has a fixed type, so its encoding is a row of 32-byte words. Written out, one digest
takes about 6 us; `eth_account`'s general encoder takes 140. A property test holds the two equal.

Source: EIP-712; the types are those of `docs/protocol.md`.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from hanse.protocol.signatures import Address, keccak

DOMAIN_NAME = "Hanse"
DOMAIN_VERSION = "1"
DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
ADDRESSES_KEPT_MAX = 4_096
"""Words of addresses that are remembered, 200 bytes each: a dozen are asked for in one request, and
they are mostly those of the one before."""

_DOMAIN_PREFIX = (
    keccak(DOMAIN_TYPE.encode()) + keccak(DOMAIN_NAME.encode()) + keccak(DOMAIN_VERSION.encode())
)


@dataclass(frozen=True)
class Domain:
    """Where a signature counts: one Escrow on one chain.

    Attributes:
        chain_id: the chain's number (EIP-155).
        escrow: address of the Escrow contract, which is the domain's verifying contract.
    """

    chain_id: int
    escrow: Address

    @cached_property
    def separator(self) -> bytes:
        """The 32-byte domain separator."""
        return keccak(_DOMAIN_PREFIX + uint_word(self.chain_id) + address_word(self.escrow))

    def digest(self, struct_hash: bytes) -> bytes:
        """What is signed: the hash of 0x1901, the separator and the message's hash."""
        return keccak(b"\x19\x01" + self.separator + struct_hash)


def uint_word(value: int) -> bytes:
    """An unsigned integer as one word; raises OverflowError outside 0 .. 2**256 - 1."""
    return value.to_bytes(32, "big")


@lru_cache(ADDRESSES_KEPT_MAX)
def address_word(address: Address) -> bytes:
    """An address as one word, left-padded."""
    return bytes(12) + bytes.fromhex(address[2:])


def hash_word(hash32: str) -> bytes:
    """A 32-byte hash as its own word."""
    return bytes.fromhex(hash32[2:])


def number_words(template: str, *values: int | str) -> bytes:
    """Several words at once, in one call of C: numbers by `%064x`, hashes without 0x by `%s`.

    The template has one space between two of them. So a word that is too long cannot make up for
    one that is too short: each space has its place.

    Raises:
        OverflowError: a number is outside 0 .. 2**256 - 1.
    """
    text, count = template % values, len(values)
    if "-" in text or len(text) != 65 * count - 1 or text[64::65] != " " * (count - 1):
        raise OverflowError("a number does not fit a word, or a hash is none")
    words = bytes.fromhex(text)
    if len(words) != 32 * count:  # white space in a hash
        raise OverflowError("a hash is none")
    return words


def string_word(text: str) -> bytes:
    """A string's word: the hash of its UTF-8 bytes."""
    return keccak(text.encode())


def strings_word(texts: tuple[str, ...]) -> bytes:
    """The word of an array of strings: the hash of its items' words."""
    return keccak(b"".join(string_word(text) for text in texts))
