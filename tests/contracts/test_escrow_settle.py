"""Settlement batches: every status, their order, and what a batch can never do."""

from collections.abc import Callable

import pytest

from hanse.contracts.claims import ClaimResult, decode_results, get_sub_account_key
from hanse.protocol.eip712 import Domain
from hanse.protocol.ledger import ClaimStatus
from hanse.protocol.signatures import CURVE_ORDER
from tests.contracts.local_evm import Hanse, Key, LocalEvm, Outcome, deploy_hanse, key_of, reverts

UNKNOWN, BAD, OVER, NOTHING, PARTIAL, PAID = ClaimStatus


def results(outcome: Outcome) -> tuple[ClaimResult, ...]:
    return decode_results(outcome.event("Settled")["results"])


def statuses(outcome: Outcome) -> list[int]:
    return [result.status for result in results(outcome)]


def test_paid_claim_goes_to_the_payee_with_one_event(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key, payee: Key
) -> None:
    claim = hanse.claim(depositor, provider, session, 300, 120, sequence=5, sequence_max=9)
    head = b"\x77" * 32
    outcome = hanse.escrow_call(receipt_key, "settle", provider.address, [claim], head)
    assert [event.name for event in outcome.events] == ["Settled", "Transfer"]
    event = outcome.event("Settled")
    assert event["provider"] == provider.address
    assert event["payee"] == payee.address
    assert event["records_head"] == head
    assert event["paid"] == 120
    assert outcome.output == (120,)
    (result,) = results(outcome)
    key = get_sub_account_key(depositor.address, provider.address, session.address)
    assert result == ClaimResult(key[:15], PAID, 5, 120)
    assert hanse.held(payee.address) == 120
    assert hanse.sub_account(depositor, provider, session) == (280, 120, 5, 0, 0)
    on_chain = hanse.chain.view(
        hanse.escrow, "get_sub_account_key", depositor.address, provider.address, session.address
    )
    assert on_chain == key


def test_owner_and_receipt_key_may_settle(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    for number, caller in enumerate((provider, receipt_key), start=1):
        claim = hanse.claim(depositor, provider, session, 10 * number, sequence=number)
        assert statuses(hanse.settle(caller, provider, claim)) == [PAID]


def test_settle_by_a_stranger(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, payee: Key, attacker: Key
) -> None:
    claim = hanse.claim(depositor, provider, session, 100)
    for stranger in (attacker, depositor, session, payee):
        with reverts("not permitted"):
            hanse.settle(stranger, provider, claim)


def test_settle_for_a_provider_that_never_registered(
    hanse: Hanse, depositor: Key, session: Key, attacker: Key
) -> None:
    with reverts("not permitted"):
        hanse.settle(attacker, attacker, hanse.claim(depositor, attacker, session, 100))


def test_empty_batch_and_201_claims_are_refused(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    with reverts("no claims"):
        hanse.settle(receipt_key, provider)
    claim = hanse.claim(depositor, provider, session, 100)
    with reverts(""):
        hanse.settle(receipt_key, provider, *[claim] * 201)


def test_200_claims_of_one_sub_account_pay_once(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    claim = hanse.claim(depositor, provider, session, 100)
    outcome = hanse.settle(receipt_key, provider, *[claim] * 200)
    assert statuses(outcome) == [PAID] + [NOTHING] * 199
    assert outcome.output == (100,)


def test_duplicate_users_in_one_batch_act_one_after_the_other(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    claims = [
        hanse.claim(depositor, provider, session, maximum, sequence=sequence)
        for maximum, sequence in ((100, 1), (250, 2), (250, 3), (900, 4), (901, 4))
    ]
    outcome = hanse.settle(receipt_key, provider, *claims)
    assert statuses(outcome) == [PAID, PAID, NOTHING, PARTIAL, PARTIAL]
    assert [result.paid for result in results(outcome)] == [100, 150, 0, 150, 0]
    assert hanse.sub_account(depositor, provider, session) == (0, 400, 4, 0, 0)


def test_partial_leaves_the_rest_claimable_with_the_same_voucher(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    claim = hanse.claim(depositor, provider, session, 500, sequence=3)
    assert results(hanse.settle(receipt_key, provider, claim))[0].status == PARTIAL
    hanse.escrow_call(depositor, "fund", provider.address, session.address, 60)
    outcome = hanse.settle(receipt_key, provider, claim)
    assert (statuses(outcome), outcome.output) == ([PARTIAL], (60,))
    hanse.escrow_call(depositor, "fund", provider.address, session.address, 100)
    outcome = hanse.settle(receipt_key, provider, claim)
    assert (statuses(outcome), outcome.output) == ([PAID], (40,))
    assert hanse.sub_account(depositor, provider, session) == (60, 500, 3, 0, 0)


def test_one_bad_claim_never_spoils_the_others(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key, attacker: Key
) -> None:
    good = hanse.claim(depositor, provider, session, 100)
    bad = [
        hanse.claim(attacker, provider, session, 100),
        hanse.claim(depositor, provider, session, 100, signed_by=attacker),
        hanse.claim(depositor, provider, session, 100, 101),
        hanse.claim(depositor, provider, session, 0),
    ]
    outcome = hanse.settle(receipt_key, provider, *bad, good)
    assert statuses(outcome) == [UNKNOWN, BAD, OVER, NOTHING, PAID]
    assert outcome.output == (100,)


def test_nothing_is_transferred_when_nothing_is_paid(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key, attacker: Key
) -> None:
    outcome = hanse.settle(receipt_key, provider, hanse.claim(attacker, provider, session, 1))
    assert [event.name for event in outcome.events] == ["Settled"]


@pytest.mark.parametrize(
    ("claimed", "sequence", "sequence_max", "status"),
    [
        (301, 5, 5, OVER),
        (300, 6, 5, OVER),
        (301, 6, 5, OVER),
        (2**96 - 1, 2**64 - 1, 5, OVER),
        (100, 5, 5, NOTHING),
        (99, 5, 5, NOTHING),
        (0, 0, 0, NOTHING),
        (101, 2, 5, NOTHING),
        (101, 3, 5, PAID),
        (300, 5, 5, PAID),
    ],
)
def test_over_voucher_comes_before_nothing_new(
    hanse: Hanse,
    depositor: Key,
    provider: Key,
    session: Key,
    receipt_key: Key,
    claimed: int,
    sequence: int,
    sequence_max: int,
    status: ClaimStatus,
) -> None:
    """After a claim of 100 at sequence 3, under a voucher of 300."""
    hanse.settle(receipt_key, provider, hanse.claim(depositor, provider, session, 100, sequence=3))
    claim = hanse.claim(depositor, provider, session, 300, claimed, sequence, sequence_max)
    assert statuses(hanse.settle(receipt_key, provider, claim)) == [status]


def test_unknown_sub_account_comes_before_bad_signature(
    hanse: Hanse, depositor: Key, provider: Key, receipt_key: Key, attacker: Key
) -> None:
    claim = hanse.claim(depositor, provider, attacker, 100, signed_by=receipt_key)
    assert statuses(hanse.settle(receipt_key, provider, claim)) == [UNKNOWN]


def test_bad_signature_comes_before_over_voucher(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key, attacker: Key
) -> None:
    claim = hanse.claim(depositor, provider, session, 100, 101, signed_by=attacker)
    assert statuses(hanse.settle(receipt_key, provider, claim)) == [BAD]


def _high_s(r: bytes, vs: bytes) -> tuple[bytes, bytes]:
    packed = int.from_bytes(vs, "big")
    s, flipped = packed & (2**255 - 1), (packed >> 255) ^ 1
    # The twin's s needs the 256th bit unless s was just below half the order; take what fits.
    return r, ((CURVE_ORDER - s) & (2**255 - 1) | flipped << 255).to_bytes(32, "big")


@pytest.mark.parametrize(
    "change",
    [
        lambda r, vs: (bytes(32), vs),
        lambda r, vs: (r, bytes(32)),
        lambda r, vs: (bytes(32), bytes(32)),
        lambda r, vs: (b"\xff" * 32, vs),
        lambda r, vs: (CURVE_ORDER.to_bytes(32, "big"), vs),
        lambda r, vs: (r, b"\xff" * 32),
        lambda r, vs: (r, bytes([vs[0] ^ 0x80]) + vs[1:]),
        lambda r, vs: (r[:31] + bytes([r[31] ^ 1]), vs),
        _high_s,
    ],
)
def test_malformed_signatures(
    hanse: Hanse,
    depositor: Key,
    provider: Key,
    session: Key,
    receipt_key: Key,
    change: Callable[[bytes, bytes], tuple[bytes, bytes]],
) -> None:
    claim = hanse.claim(depositor, provider, session, 100, change=change)
    assert statuses(hanse.settle(receipt_key, provider, claim)) == [BAD]


def test_high_s_that_fits_255_bits(
    hanse: Hanse, depositor: Key, provider: Key, receipt_key: Key
) -> None:
    """EIP-2098 leaves 255 bits to s: a sliver above half the order fits, and must be refused.

    r and s are free and the key is recovered from them: ecrecover accepts this signature.
    """
    s = CURVE_ORDER // 2 + 1
    r = int("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798", 16)
    signers = []
    for value in (s, s - 1):
        ghost = _recovered(hanse, depositor, provider, r, value)
        signers.append(ghost)
        hanse.escrow_call(depositor, "fund", provider.address, ghost.address, 100)
    claims = [
        hanse.claim(
            depositor,
            provider,
            ghost,
            50,
            signed_by=receipt_key,
            change=lambda _r, _vs, v=value: (r.to_bytes(32, "big"), v.to_bytes(32, "big")),
        )
        for ghost, value in zip(signers, (s, s - 1), strict=True)
    ]
    assert statuses(hanse.settle(receipt_key, provider, *claims)) == [BAD, PAID]


def _recovered(hanse: Hanse, user: Key, provider: Key, r: int, s: int) -> Key:
    """The address that ecrecover finds for this r and s over the voucher that `claim` makes."""
    from coincurve import PublicKey

    from hanse.protocol.messages import Voucher
    from hanse.protocol.signatures import get_address

    voucher = Voucher(user.address, provider.address, 50, 1, "0x" + "ab" * 32)
    digest = hanse.domain.digest(voucher.struct_hash())
    low = s if s <= CURVE_ORDER // 2 else CURVE_ORDER - s
    parity = 0 if low == s else 1
    raw = r.to_bytes(32, "big") + low.to_bytes(32, "big") + bytes((parity,))
    public = PublicKey.from_signature_and_message(raw, digest, hasher=None)
    return Key(key_of("nobody").secret, get_address(public))


def test_wrong_chain_id_and_cross_contract_replay(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    domains = [
        Domain(1, hanse.escrow),
        Domain(hanse.domain.chain_id, hanse.registry),
        Domain(hanse.domain.chain_id, hanse.asset),
    ]
    claims = [hanse.claim(depositor, provider, session, 100, domain=domain) for domain in domains]
    assert statuses(hanse.settle(receipt_key, provider, *claims)) == [BAD] * 3


def test_voucher_for_another_provider_user_or_request_is_worthless(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key, attacker: Key
) -> None:
    hanse.register(attacker, key_of("attacker's receipt key"))
    hanse.escrow_call(depositor, "fund", attacker.address, session.address, 100)
    to_provider = hanse.claim(depositor, provider, session, 100)
    assert statuses(hanse.settle(attacker, attacker, to_provider)) == [BAD]
    changed = (*to_provider[:3], b"\xcd" * 32, *to_provider[4:])
    assert statuses(hanse.settle(receipt_key, provider, changed)) == [BAD]


def test_raised_maximum_is_a_bad_signature(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    claim = list(hanse.claim(depositor, provider, session, 100, 100))
    claim[0] += 50
    claim[1] += 50
    assert statuses(hanse.settle(receipt_key, provider, tuple(claim))) == [BAD]
    claim = list(hanse.claim(depositor, provider, session, 100, sequence=1))
    claim[2] = 2 << 192 | 2
    assert statuses(hanse.settle(receipt_key, provider, tuple(claim))) == [BAD]


def test_voucher_of_a_chain_before_a_fork_does_not_count_after_it(
    depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    """Escrow recomputes its domain when the chain's id is no longer the one it was deployed on."""
    chain = LocalEvm()
    hanse = deploy_hanse(chain=chain)
    hanse.register(provider, receipt_key)
    hanse.mint(depositor.address, 400)
    hanse.escrow_call(depositor, "open", 400, [(provider.address, session.address, 400)])
    before_fork = hanse.claim(depositor, provider, session, 100)
    after_fork = hanse.claim(depositor, provider, session, 100, domain=Domain(4_242, hanse.escrow))
    escrow = chain.artifacts[hanse.escrow]
    data = escrow.encode_call("settle", provider.address, [before_fork, after_fork], bytes(32))
    logs = chain.logs_on_fork(receipt_key.address, hanse.escrow, data, 4_242)
    assert [word >> 128 & 0xFF for word in logs[0].fields["results"]] == [BAD, PAID]


def test_sequence_above_32_bits_is_followed_by_its_low_bits(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, receipt_key: Key
) -> None:
    for maximum, sequence, before in ((10, 2**32 - 1, 0), (20, 2**32 + 5, 2**32 - 1)):
        claim = hanse.claim(depositor, provider, session, maximum, sequence=sequence)
        (result,) = results(hanse.settle(receipt_key, provider, claim))
        assert result.extend_sequence(before) == sequence
        assert hanse.sub_account(depositor, provider, session)[2] == sequence
