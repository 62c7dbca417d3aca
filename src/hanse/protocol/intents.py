"""What a wallet signs to deposit, open and fund without sending a transaction itself.

Two forms, see docs/decisions/0005-relayed-onboarding.md:

- an `OpenIntent` signed under Hanse's domain, and a `Permit` signed under the asset's;
- one `ReceiveAuthorization` (EIP-3009) signed under the asset's domain, whose nonce is the intent's
  digest; `authorize_open` builds it.

Source: EIP-712 (arrays of structs), EIP-2612, EIP-3009.
"""

from typing import ClassVar

import msgspec

from hanse.protocol.eip712 import Domain, address_word, hash_word, uint_word
from hanse.protocol.signatures import Address, Hash32, keccak, to_hex


class Fund(msgspec.Struct, frozen=True):
    """Base units to set aside for one provider under one signer."""

    TYPE: ClassVar[str] = "Fund(address provider,address signer,uint256 amount)"

    provider: Address
    signer: Address
    amount: int

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields."""
        return keccak(
            _FUND_TYPEHASH
            + address_word(self.provider)
            + address_word(self.signer)
            + uint_word(self.amount)
        )


class OpenIntent(msgspec.Struct, frozen=True):
    """A wallet's wish to deposit and to fund these sub-accounts, in this order.

    Attributes:
        user: who signs and pays.
        deposit: base units from the wallet; 0 to use the account (permit form only).
        funds: at most `SUB_ACCOUNTS_PER_OPEN_MAX`.
        nonce: permit form: `Escrow.nonces(user)`; EIP-3009 form: any number that is new.
        deadline: unix seconds; last second of the permit form, first too late of the EIP-3009 form.
    """

    TYPE: ClassVar[str] = (
        "Open(address user,uint256 deposit,Fund[] funds,uint256 nonce,uint256 deadline)" + Fund.TYPE
    )

    user: Address
    deposit: int
    funds: tuple[Fund, ...]
    nonce: int
    deadline: int

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields; `Escrow.get_open_digest` computes the same."""
        return keccak(
            _OPEN_TYPEHASH
            + address_word(self.user)
            + uint_word(self.deposit)
            + keccak(b"".join(fund.struct_hash() for fund in self.funds))
            + uint_word(self.nonce)
            + uint_word(self.deadline)
        )


class Permit(msgspec.Struct, frozen=True):
    """EIP-2612: `owner` lets `spender` take `amount` base units. Under the asset's domain."""

    TYPE: ClassVar[str] = (
        "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
    )

    owner: Address
    spender: Address
    amount: int
    nonce: int
    deadline: int

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields."""
        return keccak(
            _PERMIT_TYPEHASH
            + address_word(self.owner)
            + address_word(self.spender)
            + uint_word(self.amount)
            + uint_word(self.nonce)
            + uint_word(self.deadline)
        )


class ReceiveAuthorization(msgspec.Struct, frozen=True):
    """EIP-3009: `receiver` itself may take `amount` base units, once. Under the asset's domain."""

    TYPE: ClassVar[str] = (
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,"
        "uint256 validBefore,bytes32 nonce)"
    )

    sender: Address
    receiver: Address
    amount: int
    valid_after: int
    valid_before: int
    nonce: Hash32

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the fields."""
        return keccak(
            _RECEIVE_TYPEHASH
            + address_word(self.sender)
            + address_word(self.receiver)
            + uint_word(self.amount)
            + uint_word(self.valid_after)
            + uint_word(self.valid_before)
            + hash_word(self.nonce)
        )


def authorize_open(intent: OpenIntent, domain: Domain) -> ReceiveAuthorization:
    """The one message that pays for and orders `intent`: its nonce is the intent's digest."""
    return ReceiveAuthorization(
        sender=intent.user,
        receiver=domain.escrow,
        amount=intent.deposit,
        valid_after=0,
        valid_before=intent.deadline,
        nonce=to_hex(domain.digest(intent.struct_hash())),
    )


def get_asset_digest(separator: bytes, message: Permit | ReceiveAuthorization) -> bytes:
    """What is signed under the asset's own domain.

    Args:
        separator: the asset's `DOMAIN_SEPARATOR()`, 32 bytes.
        message: the permit or authorisation.
    """
    return keccak(b"\x19\x01" + separator + message.struct_hash())


_FUND_TYPEHASH = keccak(Fund.TYPE.encode())
_OPEN_TYPEHASH = keccak(OpenIntent.TYPE.encode())
_PERMIT_TYPEHASH = keccak(Permit.TYPE.encode())
_RECEIVE_TYPEHASH = keccak(ReceiveAuthorization.TYPE.encode())
