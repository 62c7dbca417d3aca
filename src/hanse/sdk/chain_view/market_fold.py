"""What the Registry's events mean for the market: who sells, and what. Pure.

| document | from |
| --- | --- |
| `service:<provider>:<id>` | ServicePublished, ServiceRetired |
| `provider:<provider>` | Registered, ReceiptKeyChanged, StakeAdded, Unbonding..., Condemned |
| `receipt_key:<key>` | Registered, ReceiptKeyChanged: whose it is, for ever |

Source: `Registry.vy`.
"""

from collections.abc import Iterator, Mapping

import msgspec

from hanse.chain import Event
from hanse.market import PublishedService
from hanse.protocol.signatures import Address
from hanse.settlement.chain_state.index_storage import FindDocument

_SERVICE, _PROVIDER, _RECEIPT_KEY = "service:", "provider:", "receipt_key:"

# Whether a provider is active after the event. Registry refuses to add stake, or to cancel, where
# that would be wrong: a condemned provider never comes back.
_STAKE_STANDS = {
    "UnbondingBegun": False,
    "UnbondingCancelled": True,
    "UnbondingFinished": False,
    "StakeAdded": True,
    "Condemned": False,
}


class _Service(msgspec.Struct, frozen=True):
    revision: int
    offer_hash: str
    service_type: str
    uri: str


class _Provider(msgspec.Struct, frozen=True):
    receipt_key: str
    is_unbonding: bool = False  # also gone, or condemned: its stake does not stand


def read_services(documents: Mapping[str, bytes]) -> list[PublishedService]:
    """Every service on the market."""
    services = []
    for key, document in documents.items():
        if not key.startswith(_SERVICE):
            continue
        provider, _, service_id = key.removeprefix(_SERVICE).partition(":")
        owner = documents.get(_PROVIDER + provider)
        if owner is None:
            continue
        s = msgspec.json.decode(document, type=_Service)
        p = msgspec.json.decode(owner, type=_Provider)
        services.append(
            PublishedService(
                provider,
                int(service_id),
                s.revision,
                s.offer_hash,
                s.service_type,
                s.uri,
                p.receipt_key,
                not p.is_unbonding,
            )
        )
    return services


def is_receipt_key(documents: Mapping[str, bytes], provider: Address, key: Address) -> bool:
    """Whether a key is or ever was the provider's receipt key; a key is one provider's only."""
    return documents.get(f"{_RECEIPT_KEY}{key}") == provider.encode()


def fold_market(event: Event, find: FindDocument) -> Iterator[tuple[str, bytes | None]]:
    """The documents that one event of the Registry changes."""
    fields = event.fields
    provider = fields.get("provider")
    key = f"{_PROVIDER}{provider}"
    if event.name in ("Registered", "ReceiptKeyChanged"):
        known = find(key) if event.name == "ReceiptKeyChanged" else None  # also while unbonding
        is_unbonding = known is not None and msgspec.json.decode(known, type=_Provider).is_unbonding
        yield key, msgspec.json.encode(_Provider(fields["receipt_key"], is_unbonding))
        yield f"{_RECEIPT_KEY}{fields['receipt_key']}", str(provider).encode()
    elif event.name in _STAKE_STANDS:
        known = find(key)
        if known is not None:
            receipt_key = msgspec.json.decode(known, type=_Provider).receipt_key
            yield key, msgspec.json.encode(_Provider(receipt_key, not _STAKE_STANDS[event.name]))
    elif event.name in ("ServicePublished", "ServiceRetired"):
        service = f"{_SERVICE}{provider}:{fields['service_id']}"
        if event.name == "ServiceRetired":
            yield service, None
            return
        offer_hash = "0x" + bytes(fields["offer_hash"]).hex()
        document = _Service(fields["revision"], offer_hash, fields["service_type"], fields["uri"])
        yield service, msgspec.json.encode(document)
