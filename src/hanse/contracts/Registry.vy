# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize gas
# pragma nonreentrancy on
"""
@title Hanse Registry
@license Apache-2.0
@author The Hanse maintainers
@notice Who provides: a stake, a receipt key that signs offers and receipts, a payee that is paid,
        and the services on offer. A provider is named by its owner's (cold) address.
@dev All amounts are base units of the asset, all times Unix seconds.

     States of a provider:
       unknown   --register-->          active
       active    --begin_unbonding-->   unbonding
       unbonding --cancel_unbonding-->  active
       unbonding --finish_unbonding-->  retired   (after the unbonding time; the stake goes to the owner)
       retired   --add_stake-->         active
       active, unbonding, or retired with new stake  --slash-->  condemned   (for ever)
     Active is what Escrow asks for before new funds are set aside. `payee_for`, and with it settling,
     answers in every state but unknown: a provider can always claim what was signed to it.

     How to stop it, and what still works then: nobody can. There is no owner of the contract, pause,
     upgrade or setting. A provider stops by retiring its services and unbonding. Escrow's deposits,
     refunds and withdrawals never ask this contract.

     A receipt key belongs to the provider that took it first, for ever, so that an old receipt always
     names one provider. Taking a stranger's key gains nothing (receipts name the provider) and costs
     a minimum stake; the stranger then takes another key.

     A stake is slashed only by Escrow, when somebody has proven there that the provider overclaimed or
     signed two receipts for one sequence, and by Disputes, when a panel of auditors has upheld a
     challenge of a receipt. Both addresses are fixed here, and neither has another way in than its own
     rules. The first condemns: half of the stake, rounded up, is burned at once; from the rest, the
     pool, all who are due within the dispute window are paid, in the order in which they come; what is
     left then is burned too. A condemned provider is
     never active again and gets nothing of its stake back, but still claims what was signed to it.
     Burned is what no function can move any more: it stays here and is counted in `burned`. Sending it
     to a dead address would let an asset that refuses that address shield every cheat. Why half, and
     why nobody gains from it: docs/decisions/0012-disputes-and-slashing.md; of panels: 0032.
@custom:invariant Each is checked by name after every step of the stateful test.
     asset_held_equals_books: the asset held is at least stakes + pools + burned, to the unit.
     stake_leaves_only_after_unbonding: whole, to the owner, the unbonding time after it was announced;
       or by a proof or a panel's verdict.
     stake_is_conserved: what came in is stakes + pools + burned + paid by slashing + returned to owners.
     condemned_is_for_ever: no stake, no unbonding, no new pool; what is burned never comes back.
     half_of_a_slashed_stake_is_burned: at once, rounded up, whoever accuses whom.
     receipt_key_belongs_to_one_provider: and never changes hands.
     no_admin_key_moves_funds: a stake falls only by its owner's act, its own signed receipts, or a
       panel's verdict on one of them.
"""

from interfaces import IAsset
from interfaces import IRegistry

implements: IRegistry


# Stake and pool in base units; times in Unix seconds, 0 for "nothing pending". A condemned provider has
# a `condemned_until_s`, until when victims are paid from the pool; its stake is 0 for ever.
struct Provider:
    stake: uint256
    unbonding_until_s: uint256
    receipt_key: address
    payee: address
    next_receipt_key: address
    next_receipt_key_from_s: uint256
    next_payee: address
    next_payee_from_s: uint256
    pool: uint256
    condemned_until_s: uint256


# `revision` of 0 means never published.
struct Service:
    offer_hash: bytes32
    revision: uint256
    active: bool


event Registered:
    provider: indexed(address)
    receipt_key: indexed(address)
    payee: address
    stake: uint256


# `stake` is all that stands now.
event StakeAdded:
    provider: indexed(address)
    amount: uint256
    stake: uint256


event UnbondingBegun:
    provider: indexed(address)
    stake: uint256
    until_s: uint256


event UnbondingCancelled:
    provider: indexed(address)
    stake: uint256


event UnbondingFinished:
    provider: indexed(address)
    stake: uint256


# Of `stake`, `burned` is gone at once; victims are paid from `pool` until `until_s`.
event Condemned:
    provider: indexed(address)
    stake: uint256
    burned: uint256
    pool: uint256
    until_s: uint256


# `amount` went to Escrow for a victim, or to Disputes; `pool` is what is left for others.
event Slashed:
    provider: indexed(address)
    amount: uint256
    pool: uint256


event RestBurned:
    provider: indexed(address)
    amount: uint256


event ReceiptKeyAnnounced:
    provider: indexed(address)
    receipt_key: indexed(address)
    from_s: uint256


event ReceiptKeyChanged:
    provider: indexed(address)
    receipt_key: indexed(address)


event PayeeAnnounced:
    provider: indexed(address)
    payee: indexed(address)
    from_s: uint256


event PayeeChanged:
    provider: indexed(address)
    payee: indexed(address)


# Prices are base units per million tokens (or per item or second, as the type says).
event ServicePublished:
    provider: indexed(address)
    service_id: indexed(uint256)
    revision: uint256
    offer_hash: bytes32
    service_type: String[32]
    uri: String[256]
    input_price_per_mtok: uint256
    cached_price_per_mtok: uint256
    output_price_per_mtok: uint256


event ServiceRetired:
    provider: indexed(address)
    service_id: indexed(uint256)


AMOUNT_MAX: constant(uint256) = 2**96 - 1
HOUR_S: constant(uint256) = 3_600
DAY_S: constant(uint256) = 86_400

# The ERC-20 that stakes are held in.
asset: public(immutable(address))
# The Escrow that asks this contract; it refuses to be deployed anywhere else.
escrow: public(immutable(address))
# The Disputes contract that may slash as well; it refuses to be deployed anywhere else.
disputes: public(immutable(address))
# Base units below which a provider is not active.
minimum_stake: public(immutable(uint256))
# Seconds after a claim in which it can be disputed.
dispute_window_s: public(immutable(uint256))
# Seconds from announcing to taking back a stake; Escrow sees that it is at least its lock time more
# than the dispute window.
unbonding_time_s: public(immutable(uint256))
# Seconds from announcing to having a new receipt key or payee.
key_delay_s: public(immutable(uint256))

_providers: HashMap[address, Provider]
_services: HashMap[address, HashMap[uint256, Service]]
# Receipt key, now or ever -> its provider.
provider_of_receipt_key: public(HashMap[address, address])
# Base units of all stakes that were burned: they stay here, and no function moves them.
burned: public(uint256)


@deploy
def __init__(
    asset_: address,
    escrow_: address,
    disputes_: address,
    minimum_stake_: uint256,
    dispute_window_s_: uint256,
    unbonding_time_s_: uint256,
    key_delay_s_: uint256,
):
    """
    @notice Fix everything for good.
    @param asset_ The ERC-20 contract.
    @param escrow_ Where Escrow will be: the deployer's next CREATE address.
    @param disputes_ Where Disputes will be, likewise.
    @param minimum_stake_ Base units, 1 to 2**96-1.
    @param dispute_window_s_ Seconds, 1 hour to 30 days.
    @param unbonding_time_s_ Seconds, more than the dispute window, at most 90 days.
    @param key_delay_s_ Seconds, 1 hour to 30 days.
    """
    assert asset_.is_contract, "asset"
    assert escrow_ != empty(address), "escrow"
    assert disputes_ != empty(address) and disputes_ != escrow_, "disputes"
    assert minimum_stake_ > 0 and minimum_stake_ <= AMOUNT_MAX, "stake"
    assert dispute_window_s_ >= HOUR_S and dispute_window_s_ <= 30 * DAY_S, "dispute window"
    assert unbonding_time_s_ > dispute_window_s_ and unbonding_time_s_ <= 90 * DAY_S, "unbonding"
    assert key_delay_s_ >= HOUR_S and key_delay_s_ <= 30 * DAY_S, "key delay"
    asset = asset_
    escrow = escrow_
    disputes = disputes_
    minimum_stake = minimum_stake_
    dispute_window_s = dispute_window_s_
    unbonding_time_s = unbonding_time_s_
    key_delay_s = key_delay_s_


# ---------------------------------------------------------------- stake


@external
def register(stake: uint256, receipt_key: address, payee: address):
    """
    @notice Become a provider under the caller's address.
    @dev Needs an ERC-20 approval of this contract over `stake`. Reverts "registered", "stake" (below
         the minimum), "amount", "key" (zero or another provider's), "payee" (zero), "received", "asset".
    @param stake Base units, at least `minimum_stake`.
    @param receipt_key Hot key that signs offers and receipts, publishes services and settles.
    @param payee Where settlements are paid.
    """
    assert self._providers[msg.sender].receipt_key == empty(address), "registered"
    assert stake >= minimum_stake, "stake"
    assert stake <= AMOUNT_MAX, "amount"
    assert payee != empty(address), "payee"
    self._take_key(msg.sender, receipt_key)
    self._providers[msg.sender].stake = stake
    self._providers[msg.sender].receipt_key = receipt_key
    self._providers[msg.sender].payee = payee
    log Registered(provider=msg.sender, receipt_key=receipt_key, payee=payee, stake=stake)
    self._pull(msg.sender, stake)


@external
def add_stake(amount: uint256):
    """
    @notice Add base units to the caller's stake; a retired provider is active again from the minimum.
    @dev Reverts "not registered", "condemned", "unbonding" (cancel it first), "amount", "stake" (still
         below the minimum), "received", "asset".
    """
    self._check_registered(msg.sender)
    self._check_not_condemned(msg.sender)
    assert self._providers[msg.sender].unbonding_until_s == 0, "unbonding"
    assert amount > 0 and amount <= AMOUNT_MAX, "amount"
    stake: uint256 = self._providers[msg.sender].stake + amount
    assert stake <= AMOUNT_MAX, "amount"
    assert stake >= minimum_stake, "stake"
    self._providers[msg.sender].stake = stake
    log StakeAdded(provider=msg.sender, amount=amount, stake=stake)
    self._pull(msg.sender, amount)


@external
def begin_unbonding():
    """
    @notice Announce that the caller takes its whole stake back. From now on no new funds can be set
            aside for it; it still claims what was signed to it, now and after.
    @dev Reverts "not registered", "condemned", "unbonding" (already), "stake" (none).
    """
    self._check_registered(msg.sender)
    self._check_not_condemned(msg.sender)
    assert self._providers[msg.sender].unbonding_until_s == 0, "unbonding"
    stake: uint256 = self._providers[msg.sender].stake
    assert stake > 0, "stake"
    until_s: uint256 = block.timestamp + unbonding_time_s
    self._providers[msg.sender].unbonding_until_s = until_s
    log UnbondingBegun(provider=msg.sender, stake=stake, until_s=until_s)


@external
def cancel_unbonding():
    """
    @notice Stay: the stake stands again at once.
    @dev Reverts "condemned", "not unbonding".
    """
    self._check_not_condemned(msg.sender)
    assert self._providers[msg.sender].unbonding_until_s != 0, "not unbonding"
    self._providers[msg.sender].unbonding_until_s = 0
    log UnbondingCancelled(provider=msg.sender, stake=self._providers[msg.sender].stake)


@external
def finish_unbonding(provider: address):
    """
    @notice Pay out a stake whose unbonding time has passed, to its owner. Anyone may.
    @dev Reverts "condemned", "not unbonding", "locked", "asset".
    """
    self._check_not_condemned(provider)
    until_s: uint256 = self._providers[provider].unbonding_until_s
    assert until_s != 0, "not unbonding"
    assert block.timestamp >= until_s, "locked"
    stake: uint256 = self._providers[provider].stake
    self._providers[provider].stake = 0
    self._providers[provider].unbonding_until_s = 0
    log UnbondingFinished(provider=provider, stake=stake)
    assert extcall IAsset(asset).transfer(provider, stake, default_return_value=True), "asset"


# ---------------------------------------------------------------- slashing


@external
def slash(provider: address, amount: uint256) -> uint256:
    """
    @notice Condemn `provider`, if it is not yet, and pay the caller up to `amount` for those it harmed.
    @dev By Escrow, which has checked a proof, and by Disputes, which has a panel's verdict; nobody else.
         Reverts "not permitted" (another caller), "stake"
         (nothing is left to answer with), "compensated" (nothing more is due to this victim, and the
         provider is condemned already), "window" (the time to pay victims is over), "asset".
    @param provider Whose stake answers.
    @param amount Base units that are due; 0 is enough to condemn.
    @return Base units paid to the caller: `amount`, or all that is left if that is less.
    """
    assert msg.sender == escrow or msg.sender == disputes, "not permitted"
    pool: uint256 = self._providers[provider].pool
    until_s: uint256 = self._providers[provider].condemned_until_s
    if until_s == 0:
        stake: uint256 = self._providers[provider].stake
        assert stake > 0, "stake"
        # Rounded up, so that not even one base unit can be had back whole.
        burned: uint256 = stake - stake // 2
        pool = stake - burned
        until_s = block.timestamp + dispute_window_s
        self.burned += burned
        self._providers[provider].stake = 0
        self._providers[provider].unbonding_until_s = 0
        self._providers[provider].condemned_until_s = until_s
        log Condemned(provider=provider, stake=stake, burned=burned, pool=pool, until_s=until_s)
    else:
        assert block.timestamp < until_s, "window"
        assert amount > 0, "compensated"
        assert pool > 0, "stake"
    paid: uint256 = min(amount, pool)
    self._providers[provider].pool = pool - paid
    if paid > 0:
        log Slashed(provider=provider, amount=paid, pool=pool - paid)
        assert extcall IAsset(asset).transfer(msg.sender, paid, default_return_value=True), "asset"
    return paid


@external
def burn_rest(provider: address):
    """
    @notice Burn what victims have left of a condemned provider's stake when the window is over. Anyone
            may: nobody gains by it.
    @dev Moves no asset, so no asset can stand in its way. Reverts "not condemned", "locked" (the window
         is open), "stake" (nothing is left).
    """
    until_s: uint256 = self._providers[provider].condemned_until_s
    assert until_s != 0, "not condemned"
    assert block.timestamp >= until_s, "locked"
    rest: uint256 = self._providers[provider].pool
    assert rest > 0, "stake"
    self._providers[provider].pool = 0
    self.burned += rest
    log RestBurned(provider=provider, amount=rest)


# ---------------------------------------------------------------- keys


@external
def announce_receipt_key(receipt_key: address):
    """
    @notice Have another receipt key after the delay; announcing the present one takes it back.
    @dev The delay gives users time to see it and an owner time to notice a theft. Reverts
         "not registered", "key" (zero or another provider's).
    """
    self._check_registered(msg.sender)
    self._check_key(msg.sender, receipt_key)
    from_s: uint256 = block.timestamp + key_delay_s
    self._providers[msg.sender].next_receipt_key = receipt_key
    self._providers[msg.sender].next_receipt_key_from_s = from_s
    log ReceiptKeyAnnounced(provider=msg.sender, receipt_key=receipt_key, from_s=from_s)


@external
def complete_receipt_key(provider: address):
    """
    @notice Make an announced receipt key the present one. Anyone may.
    @dev Reverts "not announced", "locked", "key" (another provider took it meanwhile).
    """
    from_s: uint256 = self._providers[provider].next_receipt_key_from_s
    assert from_s != 0, "not announced"
    assert block.timestamp >= from_s, "locked"
    receipt_key: address = self._providers[provider].next_receipt_key
    self._take_key(provider, receipt_key)
    self._providers[provider].receipt_key = receipt_key
    self._providers[provider].next_receipt_key = empty(address)
    self._providers[provider].next_receipt_key_from_s = 0
    log ReceiptKeyChanged(provider=provider, receipt_key=receipt_key)


@external
def announce_payee(payee: address):
    """
    @notice Be paid elsewhere after the delay; announcing the present payee takes it back.
    @dev Until then a thief of the owner's key cannot redirect what is settled. Reverts
         "not registered", "payee" (zero).
    """
    self._check_registered(msg.sender)
    assert payee != empty(address), "payee"
    from_s: uint256 = block.timestamp + key_delay_s
    self._providers[msg.sender].next_payee = payee
    self._providers[msg.sender].next_payee_from_s = from_s
    log PayeeAnnounced(provider=msg.sender, payee=payee, from_s=from_s)


@external
def complete_payee(provider: address):
    """
    @notice Make an announced payee the present one. Anyone may.
    @dev Reverts "not announced", "locked".
    """
    from_s: uint256 = self._providers[provider].next_payee_from_s
    assert from_s != 0, "not announced"
    assert block.timestamp >= from_s, "locked"
    payee: address = self._providers[provider].next_payee
    self._providers[provider].payee = payee
    self._providers[provider].next_payee = empty(address)
    self._providers[provider].next_payee_from_s = 0
    log PayeeChanged(provider=provider, payee=payee)


# ---------------------------------------------------------------- services


@external
def publish_service(
    provider: address,
    service_id: uint256,
    revision: uint256,
    offer_hash: bytes32,
    service_type: String[32],
    uri: String[256],
    input_price_per_mtok: uint256,
    cached_price_per_mtok: uint256,
    output_price_per_mtok: uint256,
):
    """
    @notice Publish or replace one service's offer. By the provider or its receipt key.
    @dev The offer itself is signed and lives at `uri`; its hash here makes it the provider's word, and
         the prices in the event let anyone index the market without asking. Reverts "not permitted",
         "provider" (not active), "revision" (not above the last), "offer" (zero hash, or no type).
    @param service_id The provider's own number for the service.
    @param revision Rises with every change, so that an older offer cannot come back.
    @param offer_hash EIP-712 hash of the offer.
    @param service_type Such as chat or embeddings.
    @param uri Where the signed offer is served.
    @param input_price_per_mtok Base units per million tokens; likewise cached and output.
    """
    assert self._is_key(provider, msg.sender), "not permitted"
    assert self._is_active(provider), "provider"
    assert revision > self._services[provider][service_id].revision, "revision"
    assert offer_hash != empty(bytes32) and len(service_type) > 0, "offer"
    self._services[provider][service_id] = Service(
        offer_hash=offer_hash, revision=revision, active=True
    )
    log ServicePublished(
        provider=provider,
        service_id=service_id,
        revision=revision,
        offer_hash=offer_hash,
        service_type=service_type,
        uri=uri,
        input_price_per_mtok=input_price_per_mtok,
        cached_price_per_mtok=cached_price_per_mtok,
        output_price_per_mtok=output_price_per_mtok,
    )


@external
def retire_service(provider: address, service_id: uint256):
    """
    @notice Take a service off the market. By the provider or its receipt key, in any state.
    @dev A higher revision can publish it again. Reverts "not permitted", "service" (not published).
    """
    assert self._is_key(provider, msg.sender), "not permitted"
    assert self._services[provider][service_id].active, "service"
    self._services[provider][service_id].active = False
    log ServiceRetired(provider=provider, service_id=service_id)


# ---------------------------------------------------------------- views


@external
@view
def payee_for(provider: address, caller: address) -> address:
    """
    @notice Where `provider` is paid, if `caller` may settle for it; else the zero address.
    @dev The owner and the present receipt key may, in every state: see the head of this file.
    """
    return self._providers[provider].payee if self._is_key(provider, caller) else empty(address)


@external
@view
def is_active(provider: address) -> bool:
    """
    @notice Whether the provider's stake stands: at least the minimum, not unbonding, not condemned.
    """
    return self._is_active(provider)


@external
@view
def at_stake(provider: address) -> uint256:
    """
    @notice Base units that answer for the provider now: its stake, or what is left of its pool while
            those who are due are paid. 0: `slash` would revert.
    """
    until_s: uint256 = self._providers[provider].condemned_until_s
    if until_s == 0:
        return self._providers[provider].stake
    return self._providers[provider].pool if block.timestamp < until_s else 0


@external
@view
def is_condemned(provider: address) -> bool:
    """
    @notice Whether the provider was condemned, by a proof or by a panel's verdict.
    """
    return self._providers[provider].condemned_until_s != 0


@external
@view
def get_provider(provider: address) -> Provider:
    """
    @notice All that is known of a provider; zeros if it never registered.
    """
    return self._providers[provider]


@external
@view
def get_service(provider: address, service_id: uint256) -> Service:
    """
    @notice A service's offer hash, revision and whether it is on the market.
    """
    return self._services[provider][service_id]


# ---------------------------------------------------------------- inside


@internal
@view
def _check_registered(provider: address):
    assert self._providers[provider].receipt_key != empty(address), "not registered"


@internal
@view
def _check_not_condemned(provider: address):
    assert self._providers[provider].condemned_until_s == 0, "condemned"


@internal
@view
def _check_key(provider: address, receipt_key: address):
    assert receipt_key != empty(address), "key"
    holder: address = self.provider_of_receipt_key[receipt_key]
    assert holder == empty(address) or holder == provider, "key"


@internal
def _take_key(provider: address, receipt_key: address):
    self._check_key(provider, receipt_key)
    self.provider_of_receipt_key[receipt_key] = provider


@internal
@view
def _is_key(provider: address, caller: address) -> bool:
    receipt_key: address = self._providers[provider].receipt_key
    return receipt_key != empty(address) and (caller == provider or caller == receipt_key)


@internal
@view
def _is_active(provider: address) -> bool:
    # A condemned provider has no stake, and never again gets one.
    return (
        self._providers[provider].stake >= minimum_stake
        and self._providers[provider].unbonding_until_s == 0
    )


@internal
def _pull(sender: address, amount: uint256):
    before: uint256 = staticcall IAsset(asset).balanceOf(self)
    assert extcall IAsset(asset).transferFrom(sender, self, amount, default_return_value=True), "asset"
    assert staticcall IAsset(asset).balanceOf(self) == before + amount, "received"
