"""What the user's side makes of the Registry's events."""

import pytest

from hanse.chain import Event
from hanse.protocol.signatures import ZERO_HASH
from hanse.sdk.chain_view import IndexedChain
from hanse.sdk.chain_view.money_fold import FUNDS
from hanse.settlement import SubAccountFunds
from hanse.settlement.chain_state.sub_account_fold import encode_funds, get_document_key

PROVIDER, KEY, NEW_KEY = ("0x" + digits * 20 for digits in ("11", "22", "33"))


@pytest.mark.parametrize(
    ("after", "is_active"),
    [
        (["UnbondingBegun"], False),
        (["UnbondingBegun", "ReceiptKeyChanged"], False),
        (["UnbondingBegun", "UnbondingCancelled", "ReceiptKeyChanged"], True),
        (["UnbondingBegun", "UnbondingFinished", "StakeAdded"], True),
        (["Condemned"], False),
        (["UnbondingBegun", "Condemned", "ReceiptKeyChanged"], False),
    ],
    ids=lambda names: "-".join(names) if isinstance(names, list) else "",
)
def test_a_provider_cannot_hide_its_leaving_behind_a_new_receipt_key(after, is_active):
    chain = IndexedChain("0x" + "aa" * 20, "0x" + "bb" * 20)
    documents = {}
    for number, name in enumerate(["Registered", "ServicePublished", *after]):
        fields = {
            "provider": PROVIDER,
            "receipt_key": NEW_KEY if name == "ReceiptKeyChanged" else KEY,
            "service_id": 1,
            "revision": 1,
            "offer_hash": bytes(32),
            "service_type": "chat",
            "uri": "http://127.0.0.1:1",
        }
        event = Event("Registry", name, fields, PROVIDER, number, ZERO_HASH, 0, ZERO_HASH, number)
        documents.update(chain.fold(event, documents.get))
    chain.apply(documents, None)
    (service,) = chain.list_services()
    assert service.is_active is is_active
    assert service.receipt_key == (NEW_KEY if after[-1] == "ReceiptKeyChanged" else KEY)


def test_funds_are_those_of_the_last_document_and_of_this_signer_alone():
    user, signer, stranger = ("0x" + digits * 20 for digits in ("aa", "bb", "cc"))
    chain = IndexedChain(user, signer)

    def name(of_signer: str) -> str:
        return f"{FUNDS}{PROVIDER}/{get_document_key(user, of_signer)}"

    first, second = SubAccountFunds(10, 2, 1, 3, 4), SubAccountFunds(7, 5, 2)
    chain.apply({name(stranger): encode_funds(first)}, None)
    assert chain.find_funds(PROVIDER) is None
    assert list(chain.list_funded()) == []
    for funds in (first, second):
        chain.apply({name(signer): encode_funds(funds)}, None)
        assert chain.find_funds(PROVIDER) == funds
    assert list(chain.list_funded()) == [PROVIDER]
    chain.apply({name(signer): None}, None)  # its block is gone
    assert chain.find_funds(PROVIDER) is None
