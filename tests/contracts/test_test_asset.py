"""The test asset behaves as real ones do: ERC-20, EIP-2612, EIP-3009. Anyone mints."""

from collections.abc import Sequence

import pytest

from hanse.protocol.eip712 import address_word, hash_word, uint_word
from hanse.protocol.signatures import CURVE_ORDER, keccak, to_bytes
from tests.contracts.local_evm import Hanse, Key, Outcome, reverts

ZERO = "0x" + "0" * 40
NONCE = "0x" + "09" * 32
TRANSFER_TYPE = (
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,"
    "uint256 validBefore,bytes32 nonce)"
)
CANCEL_TYPE = "CancelAuthorization(address authorizer,bytes32 nonce)"


def call(hanse: Hanse, caller: Key, function: str, *arguments: object) -> Outcome:
    return hanse.chain.call(caller.address, hanse.asset, function, *arguments)


def sign(hanse: Hanse, key: Key, kind: str, *words: bytes) -> tuple[int, bytes, bytes]:
    struct_hash = keccak(keccak(kind.encode()) + b"".join(words))
    separator = hanse.chain.view(hanse.asset, "DOMAIN_SEPARATOR")
    raw = to_bytes(key.sign(keccak(b"\x19\x01" + separator + struct_hash)))
    return raw[64], raw[:32], raw[32:64]


@pytest.fixture
def rich(bare: Hanse, depositor: Key) -> Hanse:
    call(bare, depositor, "mint", depositor.address, 1_000)
    return bare


def sign_transfer(
    hanse: Hanse, sender: Key, receiver: str, amount: int, window: Sequence[int]
) -> tuple[int, bytes, bytes]:
    return sign(
        hanse,
        sender,
        TRANSFER_TYPE,
        address_word(sender.address),
        address_word(receiver),
        uint_word(amount),
        uint_word(window[0]),
        uint_word(window[1]),
        hash_word(NONCE),
    )


def test_names_and_decimals(bare: Hanse) -> None:
    values = [bare.chain.view(bare.asset, name) for name in ("name", "symbol", "decimals")]
    assert values == ["Hanse Test Dollar", "tHSD", 6]


def test_anyone_mints(bare: Hanse, attacker: Key, depositor: Key) -> None:
    outcome = call(bare, attacker, "mint", depositor.address, 7)
    assert outcome.event("Transfer")["sender"] == ZERO
    assert bare.held(depositor.address) == bare.chain.view(bare.asset, "totalSupply") == 7


def test_transfer_and_allowance(rich: Hanse, depositor: Key, attacker: Key, payee: Key) -> None:
    call(rich, depositor, "transfer", payee.address, 100)
    with reverts("funds"):
        call(rich, depositor, "transfer", payee.address, 901)
    with reverts("receiver"):
        call(rich, depositor, "transfer", ZERO, 1)
    with reverts("allowance"):
        call(rich, attacker, "transferFrom", depositor.address, attacker.address, 1)
    call(rich, depositor, "approve", attacker.address, 30)
    call(rich, attacker, "transferFrom", depositor.address, payee.address, 20)
    assert rich.chain.view(rich.asset, "allowance", depositor.address, attacker.address) == 10
    assert (rich.held(depositor.address), rich.held(payee.address)) == (880, 120)


def test_permit_is_used_once_and_only_as_signed(
    rich: Hanse, depositor: Key, attacker: Key, payee: Key
) -> None:
    deadline = rich.chain.now_s
    v, r, s = rich.sign_permit(depositor, payee.address, 40, deadline)
    owner, spender = depositor.address, payee.address
    twin = (CURVE_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    for arguments in (
        (attacker.address, spender, 40, deadline, v, r, s),
        (owner, attacker.address, 40, deadline, v, r, s),
        (owner, spender, 41, deadline, v, r, s),
        (owner, spender, 40, deadline + 1, v, r, s),
        (owner, spender, 40, deadline, 55 - v, r, s),
        (owner, spender, 40, deadline, 55 - v, r, twin),
        (ZERO, spender, 40, deadline, 0, bytes(32), bytes(32)),
    ):
        with reverts("signature"):
            call(rich, attacker, "permit", *arguments)
    call(rich, attacker, "permit", owner, spender, 40, deadline, v, r, s)
    assert rich.chain.view(rich.asset, "allowance", owner, spender) == 40
    with reverts("signature"):
        call(rich, attacker, "permit", owner, spender, 40, deadline, v, r, s)
    v, r, s = rich.sign_permit(depositor, payee.address, 40, deadline)
    rich.chain.advance(1)
    with reverts("deadline"):
        call(rich, attacker, "permit", owner, spender, 40, deadline, v, r, s)


def test_authorised_transfer(rich: Hanse, depositor: Key, attacker: Key, payee: Key) -> None:
    now_s = rich.chain.now_s
    window = (now_s, now_s + 10)
    signature = sign_transfer(rich, depositor, payee.address, 40, window)
    arguments = (depositor.address, payee.address, 40, *window, to_bytes(NONCE), *signature)
    with reverts("deadline"):
        call(rich, attacker, "transferWithAuthorization", *arguments)
    rich.chain.advance(1)
    with reverts("signature"):
        call(
            rich,
            attacker,
            "transferWithAuthorization",
            depositor.address,
            attacker.address,
            *arguments[2:],
        )
    with reverts("caller"):
        call(rich, attacker, "receiveWithAuthorization", *arguments)
    with reverts("signature"):
        # a signature for the one kind is none for the other
        call(rich, payee, "receiveWithAuthorization", *arguments)
    outcome = call(rich, attacker, "transferWithAuthorization", *arguments)
    assert outcome.event("AuthorizationUsed")["authorizer"] == depositor.address
    assert rich.held(payee.address) == 40
    with reverts("used"):
        call(rich, attacker, "transferWithAuthorization", *arguments)


def test_authorisation_expires(rich: Hanse, depositor: Key, payee: Key) -> None:
    now_s = rich.chain.now_s
    signature = sign_transfer(rich, depositor, payee.address, 40, (0, now_s + 1))
    arguments = (depositor.address, payee.address, 40, 0, now_s + 1, to_bytes(NONCE), *signature)
    rich.chain.advance(1)
    with reverts("deadline"):
        call(rich, payee, "transferWithAuthorization", *arguments)


def test_cancelled_authorisation_cannot_be_used(
    rich: Hanse, depositor: Key, attacker: Key, payee: Key
) -> None:
    window = (0, rich.chain.now_s + 10)
    words = (address_word(depositor.address), hash_word(NONCE))
    forged = sign(rich, attacker, CANCEL_TYPE, *words)
    nonce = to_bytes(NONCE)
    with reverts("signature"):
        call(rich, attacker, "cancelAuthorization", depositor.address, nonce, *forged)
    signed = sign(rich, depositor, CANCEL_TYPE, *words)
    outcome = call(rich, attacker, "cancelAuthorization", depositor.address, nonce, *signed)
    assert outcome.event("AuthorizationCanceled")["nonce"] == nonce
    signature = sign_transfer(rich, depositor, payee.address, 40, window)
    arguments = (depositor.address, payee.address, 40, *window, nonce, *signature)
    with reverts("used"):
        call(rich, payee, "transferWithAuthorization", *arguments)
    with reverts("used"):
        call(rich, attacker, "cancelAuthorization", depositor.address, nonce, *signed)
