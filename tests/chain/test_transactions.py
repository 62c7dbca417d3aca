"""Our transaction bytes equal eth_account's; fees stay under the cap; reasons are decoded."""

import pytest
import rlp
from eth_abi.abi import encode
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from hanse.chain import Call, Fee, FeePolicy, Key, get_contract_address
from hanse.chain.outbox.fees import find_fee, find_raised_fee
from hanse.chain.outbox.transactions import Transaction, encode_rlp, sign_transaction
from hanse.chain.revert import decode_revert
from hanse.contracts.deployment import get_create_address
from hanse.protocol.signatures import to_checksum

SECRET = bytes(range(1, 33))
words = st.integers(0, 2**128 - 1)
items = st.recursive(st.binary(max_size=80), lambda inner: st.lists(inner, max_size=5))


@given(
    nonce=st.integers(0, 2**64 - 2),
    tip=words,
    max_fee=words,
    gas=st.integers(21_000, 30_000_000),
    value=words,
    data=st.binary(max_size=300),
    to=st.none() | st.binary(min_size=20, max_size=20),
)
def test_signed_bytes_equal_eth_accounts(
    nonce: int, tip: int, max_fee: int, gas: int, value: int, data: bytes, to: bytes | None
) -> None:
    call = Call(to=None if to is None else "0x" + to.hex(), data=data, value=value)
    ours = sign_transaction(Key(SECRET), Transaction(31_337, nonce, tip, max_fee, gas, call))
    theirs = Account.sign_transaction(
        {
            "type": 2,
            "chainId": 31_337,
            "nonce": nonce,
            "maxPriorityFeePerGas": tip,
            "maxFeePerGas": max_fee,
            "gas": gas,
            "value": value,
            "data": data,
            **({} if to is None else {"to": to_checksum("0x" + to.hex())}),
        },
        SECRET,
    )
    assert ours.raw == bytes(theirs.raw_transaction)
    assert ours.hash == "0x" + bytes(theirs.hash).hex()


@given(items)
def test_rlp_equals_the_reference(item: object) -> None:
    assert encode_rlp(item) == rlp.encode(item)  # type: ignore[arg-type]


@given(st.integers(0, 2**64 - 1))
def test_contract_addresses_equal_those_of_the_plan(nonce: int) -> None:
    deployer = Key(SECRET).address
    assert get_contract_address(deployer, nonce) == get_create_address(deployer, nonce)


@given(base=st.integers(0, 10**12), tip=st.integers(0, 10**12), cap=st.integers(1, 10**12))
def test_a_fee_never_exceeds_the_cap_and_always_covers_the_base(
    base: int, tip: int, cap: int
) -> None:
    fee = find_fee(FeePolicy(max_fee_cap_wei=cap), base, tip)
    if fee is None:
        assert base + min(tip, cap) > cap
    else:
        assert base + fee.tip_wei <= fee.max_fee_wei <= cap


@given(tip=st.integers(0, 10**11), extra=st.integers(0, 10**11), market=st.integers(0, 10**12))
def test_a_raise_is_one_that_pools_accept(tip: int, extra: int, market: int) -> None:
    last = Fee(tip, tip + extra)
    raised = find_raised_fee(FeePolicy(max_fee_cap_wei=10**12), last, Fee(0, market))
    if raised is not None:
        assert raised.tip_wei * 1000 >= last.tip_wei * 1125
        assert raised.max_fee_wei * 1000 >= last.max_fee_wei * 1125
        assert raised.tip_wei <= raised.max_fee_wei <= 10**12
    else:
        assert max(market, last.max_fee_wei * 113 // 100 + 1) > 10**12 * 99 // 100


ERROR = bytes.fromhex("08c379a0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "reverted without a reason"),
        (ERROR + encode(("string",), ("balance",)), "balance"),
        (ERROR + encode(("string",), ("a\x1b[31mb",)), "a?[31mb"),
        (ERROR + b"\xff" * 64, "custom error 0x08c379a0" + "ff" * 60),
        (bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big"), "arithmetic overflow"),
        (bytes.fromhex("4e487b71") + (0x99).to_bytes(32, "big"), "panic 0x99"),
        (bytes.fromhex("12345678"), "custom error 0x12345678"),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    assert decode_revert(data) == reason


@given(st.binary(max_size=400))
def test_any_revert_data_gives_a_bounded_reason(data: bytes) -> None:
    assert 0 < len(decode_revert(ERROR + data)) <= 400
    assert 0 < len(decode_revert(data)) <= 400
