"""Onboarding that a stranger relays: it can change nothing, and replay nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from hanse.protocol.intents import Fund, OpenIntent, ReceiveAuthorization, authorize_open
from hanse.protocol.signatures import to_compact
from tests.contracts.local_evm import Hanse, Key, Outcome, deploy_hanse, key_of, reverts


@dataclass(frozen=True)
class Relayed:
    """Both forms' arguments as a relayer would hold them."""

    intent: OpenIntent
    permit: Sequence[Any]
    signature: Sequence[Any]
    authorization: Sequence[Any]

    def send_permit(self, hanse: Hanse, relayer: Key, **changes: Any) -> Outcome:
        intent = OpenIntent(**{**_fields(self.intent), **changes})
        funds = [(fund.provider, fund.signer, fund.amount) for fund in intent.funds]
        arguments = (intent.user, intent.deposit, funds, intent.nonce, intent.deadline)
        return hanse.escrow_call(
            relayer, "open_relayed_with_permit", *arguments, *self.signature, *self.permit
        )

    def send_authorization(self, hanse: Hanse, relayer: Key, **changes: Any) -> Outcome:
        intent = OpenIntent(**{**_fields(self.intent), **changes})
        funds = [(fund.provider, fund.signer, fund.amount) for fund in intent.funds]
        arguments = (intent.user, intent.deposit, funds, intent.nonce, intent.deadline)
        return hanse.escrow_call(
            relayer, "open_relayed_with_authorization", *arguments, *self.authorization
        )


def _fields(intent: OpenIntent) -> dict[str, Any]:
    return {name: getattr(intent, name) for name in OpenIntent.__struct_fields__}


def sign(hanse: Hanse, user: Key, intent: OpenIntent) -> Relayed:
    r, vs = to_compact(user.sign(hanse.domain.digest(intent.struct_hash())))
    permit = hanse.sign_permit(user, hanse.escrow, intent.deposit, intent.deadline)
    authorization = hanse.sign_for_asset(user, authorize_open(intent, hanse.domain))
    signature = (r, int.from_bytes(vs, "big"))
    return Relayed(intent, (intent.deadline, *permit), signature, authorization)


@pytest.fixture
def relayer() -> Key:
    return key_of("relayer")


@pytest.fixture
def newcomer(hanse: Hanse) -> Key:
    """A wallet with 1,000 of the asset, no native coin, and no approval."""
    key = key_of("newcomer")
    hanse.chain.call(key.address, hanse.asset, "mint", key.address, 1_000)
    return key


@pytest.fixture
def relayed(hanse: Hanse, newcomer: Key, provider: Key, session: Key, payee: Key) -> Relayed:
    funds = (
        Fund(provider.address, session.address, 300),
        Fund(provider.address, payee.address, 50),
    )
    intent = OpenIntent(newcomer.address, 500, funds, 0, hanse.chain.now_s + 60)
    return sign(hanse, newcomer, intent)


def test_intents_digest_is_the_contracts(hanse: Hanse, relayed: Relayed) -> None:
    intent = relayed.intent
    for funds in (intent.funds, intent.funds[:1], ()):
        made = OpenIntent(intent.user, intent.deposit, funds, intent.nonce, intent.deadline)
        rows = [(fund.provider, fund.signer, fund.amount) for fund in funds]
        arguments = (intent.user, intent.deposit, rows, intent.nonce, intent.deadline)
        on_chain = hanse.chain.view(hanse.escrow, "get_open_digest", *arguments)
        assert on_chain == hanse.domain.digest(made.struct_hash())


def test_intents_digest_is_what_a_wallet_shows(hanse: Hanse, relayed: Relayed) -> None:
    """eth_account's general EIP-712 encoder stands for any wallet."""
    from eth_account.messages import encode_typed_data
    from sha3 import keccak_256

    intent = relayed.intent
    message = encode_typed_data(
        domain_data={
            "name": "Hanse",
            "version": "1",
            "chainId": hanse.domain.chain_id,
            "verifyingContract": hanse.escrow,
        },
        message_types={
            "Open": [
                {"name": "user", "type": "address"},
                {"name": "deposit", "type": "uint256"},
                {"name": "funds", "type": "Fund[]"},
                {"name": "nonce", "type": "uint256"},
                {"name": "deadline", "type": "uint256"},
            ],
            "Fund": [
                {"name": "provider", "type": "address"},
                {"name": "signer", "type": "address"},
                {"name": "amount", "type": "uint256"},
            ],
        },
        message_data={
            "user": intent.user,
            "deposit": intent.deposit,
            "funds": [
                {"provider": fund.provider, "signer": fund.signer, "amount": fund.amount}
                for fund in intent.funds
            ],
            "nonce": intent.nonce,
            "deadline": intent.deadline,
        },
    )
    digest = keccak_256(b"\x19" + message.version + message.header + message.body).digest()
    assert digest == hanse.domain.digest(intent.struct_hash())


def check_opened(hanse: Hanse, newcomer: Key, provider: Key, session: Key, payee: Key) -> None:
    assert hanse.held(newcomer.address) == 500
    assert hanse.account(newcomer) == 150
    assert hanse.sub_account(newcomer, provider, session)[0] == 300
    assert hanse.sub_account(newcomer, provider, payee)[0] == 50


def test_permit_form(
    hanse: Hanse,
    relayed: Relayed,
    relayer: Key,
    newcomer: Key,
    provider: Key,
    session: Key,
    payee: Key,
) -> None:
    outcome = relayed.send_permit(hanse, relayer)
    assert outcome.event("NonceUsed") == {"user": newcomer.address, "nonce": 0}
    check_opened(hanse, newcomer, provider, session, payee)
    assert hanse.chain.view(hanse.escrow, "nonces", newcomer.address) == 1


def test_authorization_form(
    hanse: Hanse,
    relayed: Relayed,
    relayer: Key,
    newcomer: Key,
    provider: Key,
    session: Key,
    payee: Key,
) -> None:
    outcome = relayed.send_authorization(hanse, relayer)
    used = outcome.event("AuthorizationUsed")
    assert used["nonce"] == hanse.domain.digest(relayed.intent.struct_hash())
    check_opened(hanse, newcomer, provider, session, payee)
    assert hanse.chain.view(hanse.escrow, "nonces", newcomer.address) == 0


def test_front_run_permit_does_not_break_the_intent(
    hanse: Hanse,
    relayed: Relayed,
    relayer: Key,
    attacker: Key,
    newcomer: Key,
    provider: Key,
    session: Key,
    payee: Key,
) -> None:
    deadline, *signature = relayed.permit
    arguments = (newcomer.address, hanse.escrow, 500, deadline, *signature)
    hanse.chain.call(attacker.address, hanse.asset, "permit", *arguments)
    relayed.send_permit(hanse, relayer)
    check_opened(hanse, newcomer, provider, session, payee)


def test_a_relayer_can_change_nothing(
    hanse: Hanse, relayed: Relayed, relayer: Key, attacker: Key, provider: Key, session: Key
) -> None:
    theirs = Fund(provider.address, attacker.address, 300)
    kept = relayed.intent.funds
    changes: list[tuple[dict[str, Any], str]] = [
        ({"user": attacker.address}, "signature"),
        ({"deposit": 501}, "signature"),
        ({"deposit": 0, "funds": ()}, "signature"),
        ({"funds": (theirs, kept[1])}, "signature"),
        ({"funds": kept[:1]}, "signature"),
        ({"funds": (*kept, kept[0])}, "signature"),
        ({"funds": kept[::-1]}, "signature"),
        ({"nonce": 1}, "nonce"),
        ({"deadline": relayed.intent.deadline + 1}, "signature"),
    ]
    for change, reason in changes:
        with reverts(reason):
            relayed.send_permit(hanse, relayer, **change)
        if change.get("deposit") != 0:
            with pytest.raises(Exception, match=r"^(signature|provider|balance)$"):
                relayed.send_authorization(hanse, relayer, **change)
    relayed.send_permit(hanse, relayer)


def test_replayed_intents(hanse: Hanse, relayed: Relayed, relayer: Key, newcomer: Key) -> None:
    relayed.send_permit(hanse, relayer)
    with reverts("nonce"):
        relayed.send_permit(hanse, relayer)
    relayed.send_authorization(hanse, relayer)
    with reverts("used"):
        relayed.send_authorization(hanse, relayer)
    assert hanse.held(newcomer.address) == 0


def test_intent_after_its_deadline(hanse: Hanse, relayed: Relayed, relayer: Key) -> None:
    hanse.chain.advance(60)
    with reverts("deadline"):
        relayed.send_authorization(hanse, relayer)
    hanse.chain.advance(1)
    with reverts("deadline"):
        relayed.send_permit(hanse, relayer)


def test_permit_form_on_its_last_second(hanse: Hanse, relayed: Relayed, relayer: Key) -> None:
    hanse.chain.advance(60)
    relayed.send_permit(hanse, relayer)


def test_invalidated_intent_is_refused(
    hanse: Hanse, relayed: Relayed, relayer: Key, newcomer: Key
) -> None:
    outcome = hanse.escrow_call(newcomer, "invalidate_intents")
    assert outcome.event("NonceUsed") == {"user": newcomer.address, "nonce": 0}
    with reverts("nonce"):
        relayed.send_permit(hanse, relayer)


def test_cross_contract_replay_of_an_intent(
    hanse: Hanse, newcomer: Key, relayer: Key, provider: Key, receipt_key: Key, relayed: Relayed
) -> None:
    other = deploy_hanse(asset=hanse.asset, chain=hanse.chain)
    other.register(provider, receipt_key)
    with reverts("signature"):
        relayed.send_permit(other, relayer)
    with reverts("signature"):
        relayed.send_authorization(other, relayer)


def test_plain_authorization_orders_nothing(
    hanse: Hanse, relayer: Key, newcomer: Key, relayed: Relayed
) -> None:
    """A wallet's authorisation with another nonce is no intent, though it pays Escrow."""
    plain = ReceiveAuthorization(
        newcomer.address, hanse.escrow, 500, 0, relayed.intent.deadline, "0x" + "07" * 32
    )
    stolen = replace(relayed, authorization=hanse.sign_for_asset(newcomer, plain))
    with reverts("signature"):
        stolen.send_authorization(hanse, relayer)


def test_authorization_form_needs_a_deposit(hanse: Hanse, relayed: Relayed, relayer: Key) -> None:
    with reverts("amount"):
        relayed.send_authorization(hanse, relayer, deposit=0)


def test_intent_without_deposit_moves_only_the_account(
    hanse: Hanse, depositor: Key, provider: Key, session: Key, relayer: Key
) -> None:
    fund = Fund(provider.address, session.address, 600)
    intent = OpenIntent(depositor.address, 0, (fund,), 0, hanse.chain.now_s)
    sign(hanse, depositor, intent).send_permit(hanse, relayer)
    assert hanse.account(depositor) == 0
    assert hanse.held(depositor.address) == 9_000


def test_zero_user_has_no_signature(hanse: Hanse, relayed: Relayed, relayer: Key) -> None:
    """A failed recovery gives the zero address, which must not count as a user."""
    broken = replace(relayed, signature=(bytes(32), 0))
    with reverts("signature"):
        broken.send_permit(hanse, relayer, user="0x" + "0" * 40)
