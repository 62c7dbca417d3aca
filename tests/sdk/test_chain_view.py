"""What the user's side makes of the Registry's events."""

import pytest

from hanse.chain import Event
from hanse.protocol.signatures import ZERO_HASH
from hanse.sdk.chain_view import IndexedChain

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
