"""Our written-out EIP-712 digests are those of eth_account's general encoder.

The reference is built from the messages' TYPE strings alone, so a field that is left out, swapped
or encoded wrongly in `struct_hash` shows.
"""

import re
from typing import Any

import msgspec
import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.protocol.eip712 import DOMAIN_TYPE, Domain
from hanse.protocol.intents import Fund, OpenIntent, authorize_open
from hanse.protocol.messages import Offer, Query, Receipt, Request, Usage, Voucher
from hanse.protocol.signatures import to_hex
from tests.protocol.made_messages import (
    addresses,
    amounts,
    counts,
    domains,
    heartbeats,
    make_offer,
    offers,
    queries,
    receipts,
    requests,
    times,
    vouchers,
)

OFFER_HASH = "0x60c4644eca1536f9b2cbcd2ab00892b3786c98ecf728de8ea44b3a7ea2382c1c"
DOMAIN_SEPARATOR = "0x9fde0aac5947027181317a3458b45a5450234dbcaf3696393c4abd2a90c576bf"


def get_fields(type_string: str) -> tuple[str, list[dict[str, str]]]:
    """`Name(type field,...)` as the name and eth_account's list of fields."""
    name, inner = re.fullmatch(r"(\w+)\((.*)\)", type_string).groups()
    pairs = [part.split(" ") for part in inner.split(",")]
    return name, [{"type": kind, "name": field} for kind, field in pairs]


def get_values(message: Any) -> list[Any]:
    """The message's values in the order of its fields; nested structs laid out flat."""
    flat: list[Any] = []
    for field in message.__struct_fields__:
        value = getattr(message, field)
        if hasattr(value, "__struct_fields__"):
            flat += get_values(value)
        else:
            flat.append(list(value) if isinstance(value, tuple) else value)
    return flat


def get_reference_digest(message: Any, domain: Domain) -> bytes:
    name, fields = get_fields(message.TYPE)
    values = get_values(message)
    assert len(values) == len(fields)
    typed = {
        "types": {"EIP712Domain": get_fields(DOMAIN_TYPE)[1], name: fields},
        "primaryType": name,
        "domain": {
            "name": "Hanse",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": domain.escrow,
        },
        "message": {
            f["name"]: int(value) if f["type"] == "uint256" else value
            for f, value in zip(fields, values, strict=True)
        },
    }
    return bytes(_hash_eip191_message(encode_typed_data(full_message=typed)))


@pytest.mark.parametrize(
    "messages",
    [offers, requests, vouchers, receipts, queries, heartbeats],
    ids=lambda s: str(s)[:16],
)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_digest_equals_eth_accounts(messages, data):
    message, domain = data.draw(messages), data.draw(domains)
    assert domain.digest(message.struct_hash()) == get_reference_digest(message, domain)


@pytest.mark.parametrize("kind", [Offer, Request, Voucher, Receipt, Query])
def test_type_names_every_field_in_order(kind):
    def flatten(struct):
        for field in struct.__struct_fields__:
            nested = {"usage": Usage, "prices": type(make_offer().prices)}.get(field)
            yield from nested.__struct_fields__ if nested else (field,)

    camel = [re.sub(r"_(\w)", lambda m: m[1].upper(), field) for field in flatten(kind)]
    assert [f["name"] for f in get_fields(kind.TYPE)[1]] == camel


@given(offer=offers, other=offers)
@settings(max_examples=30)
def test_different_offers_have_different_hashes(offer, other):
    assert (offer == other) == (offer.struct_hash() == other.struct_hash())


def test_strings_are_not_merely_joined():
    """("ab", "c") and ("a", "bc") must not collide."""
    first = make_offer(endpoints=("http://ab", "http://c"))
    second = make_offer(endpoints=("http://a", "bhttp://c"))
    assert first.struct_hash() != second.struct_hash()


def test_a_signature_counts_on_one_escrow_of_one_chain():
    message = make_offer().struct_hash()
    escrow = "0x" + "01" * 20
    digests = {
        Domain(1, escrow).digest(message),
        Domain(2, escrow).digest(message),
        Domain(1, "0x" + "02" * 20).digest(message),
    }
    assert len(digests) == 3


def test_known_digest():
    """A vector for other implementations, and a stop to changing the format by accident."""
    offer_hash = to_hex(make_offer().struct_hash())
    domain = Domain(31_337, "0x" + "e5" * 20)
    assert offer_hash == OFFER_HASH
    assert to_hex(domain.separator) == DOMAIN_SEPARATOR


intents = st.builds(
    OpenIntent,
    user=addresses,
    deposit=amounts,
    funds=st.lists(st.builds(Fund, addresses, addresses, amounts), max_size=4).map(tuple),
    nonce=counts,
    deadline=times,
)


@given(intent=intents, domain=domains)
@settings(max_examples=60, deadline=None)
def test_an_intents_digest_equals_eth_accounts(intent, domain):
    """An array of structs, which none of the messages above has."""
    open_type, fund_type = intent.TYPE.replace(")Fund(", ")|Fund(").split("|")
    assert fund_type == Fund.TYPE
    fields = get_fields(open_type)[1]
    funds = [
        {"provider": fund.provider, "signer": fund.signer, "amount": fund.amount}
        for fund in intent.funds
    ]
    values = (intent.user, intent.deposit, funds, intent.nonce, intent.deadline)
    typed = {
        "types": {
            "EIP712Domain": get_fields(DOMAIN_TYPE)[1],
            "Open": fields,
            "Fund": get_fields(fund_type)[1],
        },
        "primaryType": "Open",
        "domain": {
            "name": "Hanse",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": domain.escrow,
        },
        "message": {f["name"]: value for f, value in zip(fields, values, strict=True)},
    }
    expected = bytes(_hash_eip191_message(encode_typed_data(full_message=typed)))
    assert domain.digest(intent.struct_hash()) == expected


@given(intent=intents, domain=domains)
@settings(max_examples=30)
def test_an_authorisation_pays_for_one_intent_only(intent, domain):
    authorisation = authorize_open(intent, domain)
    other = msgspec.structs.replace(intent, nonce=intent.nonce ^ 1)
    assert authorisation.nonce != authorize_open(other, domain).nonce
    assert (authorisation.sender, authorisation.receiver) == (intent.user, domain.escrow)
    assert authorisation.amount == intent.deposit
