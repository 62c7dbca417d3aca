"""Registry: stakes and their unbonding, receipt keys and payees with their delay, services.

| state     | event             | next      |
| --------- | ----------------- | --------- |
| unknown   | register          | active    |
| active    | begin_unbonding   | unbonding |
| unbonding | cancel_unbonding  | active    |
| unbonding | finish_unbonding  | retired   |
| retired   | add_stake         | active    |

`disputes` condemns: from any state with a stake, for ever.

Source: `Registry.vy`; docs/decisions/0004-escrow-storage-and-claims.md, section "Providers".
"""

from dataclasses import replace

from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.state import (
    NO_PROVIDER,
    NO_SERVICE,
    Emitted,
    Ledger,
    Moved,
    Provider,
    Service,
    Step,
)
from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import ZERO_ADDRESS, ZERO_HASH, Address, Hash32


def is_active(ledger: Ledger, provider: Address) -> bool:
    """Whether the stake stands: at least the minimum, not unbonding, not condemned."""
    entry = ledger.providers.get(provider, NO_PROVIDER)
    return entry.stake >= ledger.rules.minimum_stake and entry.unbonding_until_s == 0


def find_payee(ledger: Ledger, provider: Address, caller: Address) -> Address | None:
    """Where the provider is paid, if `caller` may settle for it, in every state but unknown."""
    entry = ledger.providers.get(provider, NO_PROVIDER)
    if entry == NO_PROVIDER or caller not in (provider, entry.receipt_key):
        return None
    return entry.payee


def apply_register(
    ledger: Ledger, provider: Address, stake: int, receipt_key: Address, payee: Address
) -> Step:
    """Become a provider. Refuses "registered", "stake", "amount", "payee", "key"."""
    if provider in ledger.providers:
        raise refuse("registered", f"{provider} is registered; add to its stake instead")
    if stake < ledger.rules.minimum_stake:
        raise refuse("stake", f"a stake of {stake} is below {ledger.rules.minimum_stake}")
    if stake > AMOUNT_MAX:
        raise refuse("amount", f"a stake of {stake} is above {AMOUNT_MAX}")
    if payee == ZERO_ADDRESS:
        raise refuse("payee", "the payee is the zero address")
    _check_key(ledger, provider, receipt_key)
    entry = Provider(stake=stake, receipt_key=receipt_key, payee=payee)
    after = replace(
        _with(ledger, provider, entry),
        receipt_keys={**ledger.receipt_keys, receipt_key: provider},
        registry_held=ledger.registry_held + stake,
    )
    fields = {"provider": provider, "receipt_key": receipt_key, "payee": payee, "stake": stake}
    return Step(after, (Emitted("Registered", fields), Moved(provider, stake)))


def apply_add_stake(ledger: Ledger, provider: Address, amount: int) -> Step:
    """Add to a stake. Refuses "not registered", "condemned", "unbonding", "amount", "stake"."""
    entry = _get(ledger, provider)
    _check_not_condemned(entry, provider)
    if entry.unbonding_until_s:
        raise refuse("unbonding", f"the stake is unbonding until {entry.unbonding_until_s}")
    stake = entry.stake + amount
    if amount <= 0 or amount > AMOUNT_MAX or stake > AMOUNT_MAX:
        raise refuse("amount", f"{amount} more make {stake}, outside 1 .. {AMOUNT_MAX}")
    if stake < ledger.rules.minimum_stake:
        raise refuse("stake", f"a stake of {stake} is below {ledger.rules.minimum_stake}")
    after = replace(
        _with(ledger, provider, replace(entry, stake=stake)),
        registry_held=ledger.registry_held + amount,
    )
    fields = {"provider": provider, "amount": amount, "stake": stake}
    return Step(after, (Emitted("StakeAdded", fields), Moved(provider, amount)))


def apply_begin_unbonding(ledger: Ledger, provider: Address, now_s: int) -> Step:
    """Announce the whole stake's leaving.

    Refuses "not registered", "condemned", "unbonding", "stake".
    """
    entry = _get(ledger, provider)
    _check_not_condemned(entry, provider)
    if entry.unbonding_until_s:
        raise refuse("unbonding", f"the stake is unbonding until {entry.unbonding_until_s}")
    if entry.stake == 0:
        raise refuse("stake", "there is no stake to take back")
    until_s = now_s + ledger.rules.unbonding_time_s
    after = _with(ledger, provider, replace(entry, unbonding_until_s=until_s))
    fields = {"provider": provider, "stake": entry.stake, "until_s": until_s}
    return Step(after, (Emitted("UnbondingBegun", fields),))


def apply_cancel_unbonding(ledger: Ledger, provider: Address) -> Step:
    """Stay. Refuses "condemned", "not unbonding"."""
    entry = ledger.providers.get(provider, NO_PROVIDER)
    _check_not_condemned(entry, provider)
    if not entry.unbonding_until_s:
        raise refuse("not unbonding", f"the stake of {provider} is not unbonding")
    after = _with(ledger, provider, replace(entry, unbonding_until_s=0))
    return Step(
        after, (Emitted("UnbondingCancelled", {"provider": provider, "stake": entry.stake}),)
    )


def apply_finish_unbonding(ledger: Ledger, provider: Address, now_s: int) -> Step:
    """Pay the stake out to its owner. Refuses "condemned", "not unbonding", "locked"."""
    entry = ledger.providers.get(provider, NO_PROVIDER)
    _check_not_condemned(entry, provider)
    if not entry.unbonding_until_s:
        raise refuse("not unbonding", f"the stake of {provider} is not unbonding")
    if now_s < entry.unbonding_until_s:
        raise refuse("locked", f"the stake unlocks at {entry.unbonding_until_s}, it is {now_s}")
    after = replace(
        _with(ledger, provider, replace(entry, stake=0, unbonding_until_s=0)),
        registry_held=ledger.registry_held - entry.stake,
    )
    effect = Emitted("UnbondingFinished", {"provider": provider, "stake": entry.stake})
    return Step(after, (effect, Moved(provider, -entry.stake)))


def apply_announce_receipt_key(
    ledger: Ledger, provider: Address, receipt_key: Address, now_s: int
) -> Step:
    """Have another receipt key after the delay. Refuses "not registered", "key"."""
    entry = _get(ledger, provider)
    _check_key(ledger, provider, receipt_key)
    from_s = now_s + ledger.rules.key_delay_s
    changed = replace(entry, next_receipt_key=receipt_key, next_receipt_key_from_s=from_s)
    fields = {"provider": provider, "receipt_key": receipt_key, "from_s": from_s}
    return Step(_with(ledger, provider, changed), (Emitted("ReceiptKeyAnnounced", fields),))


def apply_complete_receipt_key(ledger: Ledger, provider: Address, now_s: int) -> Step:
    """Make an announced receipt key the present one. Refuses "not announced", "locked", "key"."""
    entry = ledger.providers.get(provider, NO_PROVIDER)
    _check_due(entry.next_receipt_key_from_s, now_s)
    key = entry.next_receipt_key
    _check_key(ledger, provider, key)
    changed = replace(
        entry, receipt_key=key, next_receipt_key=ZERO_ADDRESS, next_receipt_key_from_s=0
    )
    after = replace(
        _with(ledger, provider, changed), receipt_keys={**ledger.receipt_keys, key: provider}
    )
    return Step(after, (Emitted("ReceiptKeyChanged", {"provider": provider, "receipt_key": key}),))


def apply_announce_payee(ledger: Ledger, provider: Address, payee: Address, now_s: int) -> Step:
    """Be paid elsewhere after the delay. Refuses "not registered", "payee"."""
    entry = _get(ledger, provider)
    if payee == ZERO_ADDRESS:
        raise refuse("payee", "the payee is the zero address")
    from_s = now_s + ledger.rules.key_delay_s
    changed = replace(entry, next_payee=payee, next_payee_from_s=from_s)
    fields = {"provider": provider, "payee": payee, "from_s": from_s}
    return Step(_with(ledger, provider, changed), (Emitted("PayeeAnnounced", fields),))


def apply_complete_payee(ledger: Ledger, provider: Address, now_s: int) -> Step:
    """Make an announced payee the present one. Refuses "not announced", "locked"."""
    entry = ledger.providers.get(provider, NO_PROVIDER)
    _check_due(entry.next_payee_from_s, now_s)
    changed = replace(entry, payee=entry.next_payee, next_payee=ZERO_ADDRESS, next_payee_from_s=0)
    fields = {"provider": provider, "payee": entry.next_payee}
    return Step(_with(ledger, provider, changed), (Emitted("PayeeChanged", fields),))


def apply_publish_service(
    ledger: Ledger,
    caller: Address,
    provider: Address,
    service_id: int,
    revision: int,
    offer_hash: Hash32,
    service_type: str,
    uri: str,
    prices: Prices,
) -> Step:
    """Put an offer on the market. Refuses "not permitted", "provider", "revision", "offer"."""
    last = ledger.services.get((provider, service_id), NO_SERVICE).revision
    if find_payee(ledger, provider, caller) is None:
        raise refuse("not permitted", f"{caller} is no key of {provider}")
    if not is_active(ledger, provider):
        raise refuse("provider", f"the stake of {provider} does not stand")
    if revision <= last:
        raise refuse("revision", f"revision {revision} is not above {last}")
    if offer_hash == ZERO_HASH or not service_type:
        raise refuse("offer", f"offer hash {offer_hash} of type {service_type!r}")
    entry = Service(offer_hash, revision, True)
    after = replace(ledger, services={**ledger.services, (provider, service_id): entry})
    fields = {
        "provider": provider,
        "service_id": service_id,
        "revision": revision,
        "offer_hash": offer_hash,
        "service_type": service_type,
        "uri": uri,
        "input_price_per_mtok": prices.input_per_mtok,
        "cached_price_per_mtok": prices.cached_per_mtok,
        "output_price_per_mtok": prices.output_per_mtok,
    }
    return Step(after, (Emitted("ServicePublished", fields),))


def apply_retire_service(
    ledger: Ledger, caller: Address, provider: Address, service_id: int
) -> Step:
    """Take a service off the market. Refuses "not permitted", "service"."""
    entry = ledger.services.get((provider, service_id), NO_SERVICE)
    if find_payee(ledger, provider, caller) is None:
        raise refuse("not permitted", f"{caller} is no key of {provider}")
    if not entry.active:
        raise refuse("service", f"service {service_id} of {provider} is not on the market")
    retired = replace(entry, active=False)
    after = replace(ledger, services={**ledger.services, (provider, service_id): retired})
    fields = {"provider": provider, "service_id": service_id}
    return Step(after, (Emitted("ServiceRetired", fields),))


def _get(ledger: Ledger, provider: Address) -> Provider:
    if provider not in ledger.providers:
        raise refuse("not registered", f"{provider} never registered")
    return ledger.providers[provider]


def _with(ledger: Ledger, provider: Address, entry: Provider) -> Ledger:
    return replace(ledger, providers={**ledger.providers, provider: entry})


def _check_not_condemned(entry: Provider, provider: Address) -> None:
    if entry.condemned_until_s:
        raise refuse("condemned", f"{provider} was condemned; its stake is lost")


def _check_key(ledger: Ledger, provider: Address, receipt_key: Address) -> None:
    holder = ledger.receipt_keys.get(receipt_key, provider)
    if receipt_key == ZERO_ADDRESS or holder != provider:
        raise refuse("key", f"receipt key {receipt_key} is zero or belongs to {holder}")


def _check_due(from_s: int, now_s: int) -> None:
    if from_s == 0:
        raise refuse("not announced", "nothing was announced")
    if now_s < from_s:
        raise refuse("locked", f"the change waits until {from_s}, it is {now_s}")
