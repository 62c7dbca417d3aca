# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize gas
# pragma nonreentrancy on
"""
@title Hanse Escrow
@license Apache-2.0
@author The Hanse maintainers
@notice Holds the users' money. An account is a user's free balance; a sub-account is what the user
        set aside for one (user, provider, signer). A provider takes what the signer's vouchers
        allow, in settlement batches; what is left comes back through a refund that waits the lock
        time and that anyone may complete. Anyone who holds the provider's own signed receipts can prove
        here that it claimed too much, and have its stake slashed and the user paid back.
@dev All amounts are base units of the asset, all times Unix seconds.

     How to stop it, and what still works then: nobody can. There is no owner, pause, upgrade or
     setting. A user stops by requesting refunds: nobody's help is needed, Registry is not asked,
     and after the lock time the money is in the account, from where `withdraw` pays it out. A
     provider stops by unbonding in Registry: no new funds can be set aside for it, while `settle`
     goes on for everything already signed.

     Assumptions about the asset: a transfer moves exactly `amount` out of the sender. An asset that
     delivers less is refused at deposit ("received"). Rebasing assets are not supported.
     Signers are keys (ECDSA); contract wallets (EIP-1271) can be users, not signers.

     Word of a sub-account: balance in bits 0..95, claimed in 96..191, sequence in 192..255.
     Word of a refund: amount in bits 0..95, unlock time in 96..159.

     Source of the rules: docs/decisions/0004, 0005 and 0012; the reference ledger in
     hanse.protocol.ledger.
@custom:invariant Each is checked by name after every step of the stateful test.
     asset_held_equals_books: the asset held is at least accounts + sub-accounts, to the unit.
     no_balance_is_negative: and balance + claimed of a sub-account stays within 96 bits.
     claimed_within_highest_voucher: claimed <= the highest cumulative max that was signed.
     claimed_and_sequence_never_fall: also after a refund and new funds.
     user_can_exit_within_lock_time: unclaimed funds, with every other party gone.
     provider_can_claim_what_was_signed: until a refund asked for at least the lock time ago completes.
     only_the_signer_raises_what_is_owed: claimed grows only under a voucher of the signer.
     victim_never_paid_above_loss: the compensation of a sub-account is at most its proven loss.
     honest_provider_is_never_slashed: one receipt for each sequence, running sums that never fall,
       claims within them; whoever else signs, funds or sends what.
     no_admin_key_moves_funds: what is a user's falls only by its own act or its signer's voucher.
"""

from interfaces import IAsset
from interfaces import IRegistry


# One sub-account to fund in `open`. `amount` in base units.
struct Fund:
    provider: address
    signer: address
    amount: uint256


# One claim of a settlement batch, packed because calldata and decoding would else cost 1,000 gas a
# claim more. Amounts are cumulative base units since the sub-account began, sequences count its
# finished requests.
struct Claim:
    # user in bits 96..255, claimed in bits 0..95
    user_claimed: uint256
    # signer in bits 96..255, the voucher's cumulative max in bits 0..95
    signer_maximum: uint256
    # claimed sequence in bits 192..255, the voucher's sequence max in bits 0..63, the rest ignored
    sequences: uint256
    # the voucher's
    request_hash: bytes32
    # the voucher's EIP-2098 signature
    r: bytes32
    vs: uint256


# The provider's word on one finished request: the fields of EIP-712 message Receipt, in its order.
# `cumulative_fee` is the sum of all fees up to and with `sequence`, in base units.
struct Receipt:
    user: address
    provider: address
    signer: address
    sequence: uint256
    request_hash: bytes32
    response_hash: bytes32
    input_tokens: uint256
    cached_tokens: uint256
    output_tokens: uint256
    fee: uint256
    cumulative_fee: uint256
    finish_reason: uint256
    finished_at: uint256
    commitment_root: bytes32


event Deposited:
    user: indexed(address)
    amount: uint256


event Withdrawn:
    user: indexed(address)
    amount: uint256


# `amount` is what was asked; `from_refund` of it cancelled a pending refund, the rest came from
# the account. `refund` is what is still pending afterwards.
event Funded:
    user: indexed(address)
    provider: indexed(address)
    signer: indexed(address)
    amount: uint256
    from_refund: uint256
    refund: uint256


# `amount` is what this request added, `refund` all that is pending now, until `unlock_time_s`.
event RefundRequested:
    user: indexed(address)
    provider: indexed(address)
    signer: indexed(address)
    amount: uint256
    refund: uint256
    unlock_time_s: uint256


event RefundCancelled:
    user: indexed(address)
    provider: indexed(address)
    signer: indexed(address)
    amount: uint256


# `amount` moved to the user's account; 0 when the provider had claimed everything.
event RefundClaimed:
    user: indexed(address)
    provider: indexed(address)
    signer: indexed(address)
    amount: uint256


# What became of each claim, one word each, in the order of the claims: paid in bits 0..95, the low 32
# bits of the sub-account's sequence after the claim in 96..127, status in 128..135, the high 120
# bits of the sub-account's key in 136..255.
event Settled:
    provider: indexed(address)
    payee: indexed(address)
    records_head: bytes32
    paid: uint256
    results: DynArray[uint256, CLAIMS_PER_SETTLEMENT_MAX]


# The receipt at `sequence` says `cumulative_fee`, `claimed` was taken for no more requests. `loss` is the
# difference, `compensation` what this proof brought the user's account.
event OverclaimProven:
    user: indexed(address)
    provider: indexed(address)
    signer: indexed(address)
    sequence: uint256
    claimed: uint256
    cumulative_fee: uint256
    loss: uint256
    compensation: uint256
    reporter: address


# Two receipts for `sequence`. `loss` is how much of what was claimed only the dearer one covers.
event EquivocationProven:
    user: indexed(address)
    provider: indexed(address)
    signer: indexed(address)
    sequence: uint256
    loss: uint256
    compensation: uint256
    reporter: address


# The user's intents with a nonce up to and with this one can no longer be used.
event NonceUsed:
    user: indexed(address)
    nonce: uint256


# Status of a claim, in order of precedence.
STATUS_UNKNOWN_SUB_ACCOUNT: constant(uint256) = 1
STATUS_BAD_SIGNATURE: constant(uint256) = 2
STATUS_OVER_VOUCHER: constant(uint256) = 3
STATUS_NOTHING_NEW: constant(uint256) = 4
STATUS_PARTIAL: constant(uint256) = 5
STATUS_PAID: constant(uint256) = 6

CLAIMS_PER_SETTLEMENT_MAX: constant(uint256) = 200
SUB_ACCOUNTS_PER_OPEN_MAX: constant(uint256) = 20
AMOUNT_MAX: constant(uint256) = 2**96 - 1
SEQUENCE_MAX: constant(uint256) = 2**64 - 1
# What fits one word of a settlement's results.
KEY_PREFIX: constant(uint256) = (2**120 - 1) << 136
RESULT_SEQUENCE: constant(uint256) = 2**32 - 1
# Balance and claimed of a sub-account's word.
WORD_AMOUNTS: constant(uint256) = 2**192 - 1
LOCK_TIME_S_MIN: constant(uint256) = 3_600
LOCK_TIME_S_MAX: constant(uint256) = 7 * 86_400

# Half the order of secp256k1: a larger s is the malleable twin of a valid signature (EIP-2).
S_MAX: constant(uint256) = (
    57896044618658097711785492504343953926418782139537452191302581570759080747168
)
S_MASK: constant(uint256) = 2**255 - 1

DOMAIN_TYPEHASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
NAME_HASH: constant(bytes32) = keccak256("Hanse")
VERSION_HASH: constant(bytes32) = keccak256("1")
VOUCHER_TYPEHASH: constant(bytes32) = keccak256(
    "Voucher(address user,address provider,uint256 cumulativeMax,uint256 sequenceMax,bytes32 requestHash)"
)
RECEIPT_TYPEHASH: constant(bytes32) = keccak256(
    "Receipt(address user,address provider,address signer,uint256 sequence,bytes32 requestHash,bytes32 responseHash,uint256 inputTokens,uint256 cachedTokens,uint256 outputTokens,uint256 fee,uint256 cumulativeFee,uint256 finishReason,uint256 finishedAt,bytes32 commitmentRoot)"
)
FUND_TYPEHASH: constant(bytes32) = keccak256(
    "Fund(address provider,address signer,uint256 amount)"
)
OPEN_TYPEHASH: constant(bytes32) = keccak256(
    "Open(address user,uint256 deposit,Fund[] funds,uint256 nonce,uint256 deadline)Fund(address provider,address signer,uint256 amount)"
)

# The ERC-20 that everything is paid in.
asset: public(immutable(address))
# Who may settle for a provider, and where its money goes.
registry: public(immutable(address))
# Seconds that a refund waits, 1 hour to 7 days.
lock_time_s: public(immutable(uint256))

CHAIN_ID: immutable(uint256)
DOMAIN: immutable(bytes32)

# Free balance of a user, base units.
accounts: public(HashMap[address, uint256])
# Sub-account key -> balance, claimed, sequence.
sub_account_words: public(HashMap[bytes32, uint256])
# Sub-account key -> pending refund and its unlock time. Its amount still counts in the balance.
refund_words: public(HashMap[bytes32, uint256])
# The nonce that a user's next relayed intent must carry.
nonces: public(HashMap[address, uint256])
# Sub-account key -> base units that the provider's stake has paid its user back.
compensations: public(HashMap[bytes32, uint256])


@deploy
def __init__(asset_: address, registry_: address, lock_time_s_: uint256):
    """
    @notice Fix the asset, the registry and the lock time for good.
    @dev Registry is deployed first, with the address that this contract will get (CREATE addresses
         can be predicted), so that no admin has to join the two. A wrong prediction reverts here.
    @param asset_ The ERC-20 contract, the same that Registry holds stakes in.
    @param registry_ The Registry, which must name this contract as its escrow.
    @param lock_time_s_ Seconds that a refund waits, 3,600 to 604,800.
    """
    assert asset_.is_contract, "asset"
    assert lock_time_s_ >= LOCK_TIME_S_MIN and lock_time_s_ <= LOCK_TIME_S_MAX, "lock time"
    peer: IRegistry = IRegistry(registry_)
    assert staticcall peer.escrow() == self, "registry"
    assert staticcall peer.asset() == asset_, "registry"
    # A stake must outlast every refund that can be asked for on the last day, and its disputes.
    assert staticcall peer.unbonding_time_s() >= lock_time_s_ + staticcall peer.dispute_window_s(), "unbonding"
    asset = asset_
    registry = registry_
    lock_time_s = lock_time_s_
    CHAIN_ID = chain.id
    DOMAIN = self._domain_of(chain.id)


# ---------------------------------------------------------------- wallet <-> account


@external
def deposit(amount: uint256):
    """
    @notice Move `amount` base units from the caller's wallet to its account.
    @dev Needs an ERC-20 approval of this contract. Reverts "amount" (0 or above 2**96-1), "received"
         (the asset delivered another amount), "asset" (it refused).
    """
    self._credit(msg.sender, amount)
    self._pull(msg.sender, amount)


@external
def deposit_with_permit(amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32):
    """
    @notice `deposit` with an EIP-2612 permit over `amount` instead of an earlier approval.
    @dev A permit that somebody else already submitted is no failure: the allowance is there then.
    """
    self._credit(msg.sender, amount)
    self._permit(msg.sender, amount, deadline, v, r, s)
    self._pull(msg.sender, amount)


@external
def withdraw(amount: uint256):
    """
    @notice Move `amount` base units from the caller's account to its wallet.
    @dev Works whatever Registry, provider or anybody else does. Reverts "amount", "balance", "asset".
    """
    assert amount > 0, "amount"
    balance: uint256 = self.accounts[msg.sender]
    assert balance >= amount, "balance"
    self.accounts[msg.sender] = balance - amount
    log Withdrawn(user=msg.sender, amount=amount)
    self._push(msg.sender, amount)


# ---------------------------------------------------------------- account <-> sub-account


@external
def fund(provider: address, signer: address, amount: uint256):
    """
    @notice Make `amount` base units more available to `provider` by vouchers of `signer`.
    @dev First cancels as much of a pending refund, then takes the rest from the account. Reverts
         "provider" (no standing stake, or unbonding), "signer" (zero), "amount", "balance".
    """
    free: uint256 = self.accounts[msg.sender]
    self.accounts[msg.sender] = free - self._fund(msg.sender, provider, signer, amount, free)


@external
def open(deposit_amount: uint256, funds: DynArray[Fund, SUB_ACCOUNTS_PER_OPEN_MAX]):
    """
    @notice Deposit and fund several sub-accounts in one transaction.
    @param deposit_amount Base units from the wallet, by an earlier approval; 0 to use the account.
    @param funds Up to 20 sub-accounts with the base units for each.
    """
    self._open(msg.sender, deposit_amount, funds)
    if deposit_amount > 0:
        self._pull(msg.sender, deposit_amount)


@external
def open_with_permit(
    deposit_amount: uint256,
    funds: DynArray[Fund, SUB_ACCOUNTS_PER_OPEN_MAX],
    deadline: uint256,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice `open` with an EIP-2612 permit over `deposit_amount` instead of an earlier approval.
    """
    self._open(msg.sender, deposit_amount, funds)
    self._permit(msg.sender, deposit_amount, deadline, v, r, s)
    self._pull(msg.sender, deposit_amount)


@external
def open_relayed_with_permit(
    user: address,
    deposit_amount: uint256,
    funds: DynArray[Fund, SUB_ACCOUNTS_PER_OPEN_MAX],
    nonce: uint256,
    deadline: uint256,
    intent_r: bytes32,
    intent_vs: uint256,
    permit_deadline: uint256,
    permit_v: uint8,
    permit_r: bytes32,
    permit_s: bytes32,
):
    """
    @notice `open` for `user`, sent and paid for by anyone: the user signed the intent
            Open(user, deposit, funds, nonce, deadline) and an EIP-2612 permit over the deposit.
    @dev The relayer can change nothing: every field is signed, except the permit, without which the
         deposit fails. Reverts "deadline", "nonce", "signature" and what `open` reverts with.
    @param nonce Must equal `nonces(user)`.
    @param deadline Last Unix second at which the intent may be used.
    @param intent_r r of the intent's EIP-2098 signature, `intent_vs` the rest.
    """
    assert block.timestamp <= deadline, "deadline"
    assert self.nonces[user] == nonce, "nonce"
    digest: bytes32 = self._open_digest(user, deposit_amount, funds, nonce, deadline)
    assert user != empty(address), "signature"
    assert self._recover(digest, intent_r, intent_vs) == user, "signature"
    self.nonces[user] = nonce + 1
    log NonceUsed(user=user, nonce=nonce)
    self._open(user, deposit_amount, funds)
    if deposit_amount > 0:
        self._permit(user, deposit_amount, permit_deadline, permit_v, permit_r, permit_s)
        self._pull(user, deposit_amount)


@external
def open_relayed_with_authorization(
    user: address,
    deposit_amount: uint256,
    funds: DynArray[Fund, SUB_ACCOUNTS_PER_OPEN_MAX],
    nonce: uint256,
    deadline: uint256,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice `open` for `user` by one signature: an EIP-3009 ReceiveWithAuthorization of the asset over
            (user, this contract, deposit, 0, deadline) whose nonce is the intent's EIP-712 digest.
    @dev The asset checks the signature and that the nonce is new; the digest binds every field and
         this contract and chain, so a relayer can change nothing. `nonce` may be any number: it only
         tells equal intents apart, and `nonces` is neither read nor written.
    @param deadline The authorisation's validBefore: it is good before this Unix second.
    """
    digest: bytes32 = self._open_digest(user, deposit_amount, funds, nonce, deadline)
    assert deposit_amount > 0, "amount"
    self._open(user, deposit_amount, funds)
    before: uint256 = staticcall IAsset(asset).balanceOf(self)
    extcall IAsset(asset).receiveWithAuthorization(
        user, self, deposit_amount, 0, deadline, digest, v, r, s
    )
    assert staticcall IAsset(asset).balanceOf(self) == before + deposit_amount, "received"


@external
def invalidate_intents():
    """
    @notice Take back the caller's signed intent that nobody has relayed yet (the permit form's).
    """
    nonce: uint256 = self.nonces[msg.sender]
    self.nonces[msg.sender] = nonce + 1
    log NonceUsed(user=msg.sender, nonce=nonce)


@external
def request_refund(provider: address, signer: address, amount: uint256):
    """
    @notice Ask for `amount` more base units of a sub-account back. All that is pending then unlocks
            the lock time from now: adding restarts the wait for the whole, so that nothing leaves
            sooner than the provider was warned.
    @dev Reverts "amount" (0), "balance" (more than the balance less what is already pending).
    """
    assert amount > 0, "amount"
    key: bytes32 = self._key(msg.sender, provider, signer)
    balance: uint256 = self.sub_account_words[key] & AMOUNT_MAX
    pending: uint256 = min(self.refund_words[key] & AMOUNT_MAX, balance)
    assert amount <= balance - pending, "balance"
    unlock: uint256 = block.timestamp + lock_time_s
    self.refund_words[key] = unlock << 96 | (pending + amount)
    log RefundRequested(
        user=msg.sender,
        provider=provider,
        signer=signer,
        amount=amount,
        refund=pending + amount,
        unlock_time_s=unlock,
    )


@external
def cancel_refund(provider: address, signer: address):
    """
    @notice Cancel the whole pending refund: the money is the provider's to earn again.
    @dev Reverts "no refund" if none is pending.
    """
    key: bytes32 = self._key(msg.sender, provider, signer)
    pending: uint256 = self.refund_words[key] & AMOUNT_MAX
    assert pending > 0, "no refund"
    pending = min(pending, self.sub_account_words[key] & AMOUNT_MAX)
    self.refund_words[key] = 0
    log RefundCancelled(user=msg.sender, provider=provider, signer=signer, amount=pending)


@external
def claim_refund(user: address, provider: address, signer: address) -> uint256:
    """
    @notice Complete a refund whose time has come, to the user's account. Anyone may.
    @dev Takes at most what the provider has left. Reverts "no refund", "locked".
    @return Base units that moved.
    """
    key: bytes32 = self._key(user, provider, signer)
    refund: uint256 = self.refund_words[key]
    assert refund != 0, "no refund"
    assert block.timestamp >= refund >> 96, "locked"
    word: uint256 = self.sub_account_words[key]
    moved: uint256 = min(refund & AMOUNT_MAX, word & AMOUNT_MAX)
    self.refund_words[key] = 0
    self.sub_account_words[key] = word - moved
    self.accounts[user] += moved
    log RefundClaimed(user=user, provider=provider, signer=signer, amount=moved)
    return moved


# ---------------------------------------------------------------- settlement


@external
def settle(
    provider: address, claims: DynArray[Claim, CLAIMS_PER_SETTLEMENT_MAX], records_head: bytes32
) -> uint256:
    """
    @notice Claim what vouchers allow, for up to 200 sub-accounts of one provider; pay it to the payee.
    @dev Each claim is judged apart and never reverts the rest; the event tells each one's status. In
         order: 1 unknown sub-account (nothing held and nothing ever claimed), 2 bad signature, 3 over
         the voucher, 4 nothing new, 5 partial (all that was held; the rest stays claimable by the
         same voucher), 6 paid. Two claims on one sub-account act one after the other. Pending refunds
         count as held until they complete. Reverts "no claims", "not permitted" (the caller is neither
         the provider nor its receipt key), "asset" (the payee cannot be paid).
    @param provider Whose claims these are.
    @param claims The last voucher of each sub-account, with what the provider claims under it.
    @param records_head Head of the provider's records, passed through to the event; 0 if none.
    @return Base units paid.
    """
    assert len(claims) > 0, "no claims"
    # Only the provider's own keys: a stranger could settle an old receipt's sequence, or too little.
    payee: address = staticcall IRegistry(registry).payee_for(provider, msg.sender)
    assert payee != empty(address), "not permitted"
    domain: bytes32 = self._domain()
    results: DynArray[uint256, CLAIMS_PER_SETTLEMENT_MAX] = []
    total: uint256 = 0
    for claim: Claim in claims:
        signer: uint256 = claim.signer_maximum >> 96
        # The same bytes as `_key` hashes.
        key: bytes32 = keccak256(abi_encode(claim.user_claimed >> 96, provider, signer))
        word: uint256 = self.sub_account_words[key]
        paid: uint256 = 0
        status: uint256 = STATUS_UNKNOWN_SUB_ACCOUNT
        if word != 0:
            status = STATUS_BAD_SIGNATURE
            # `signer` is never zero in a known sub-account, so a failed recovery never matches.
            if claim.vs & S_MASK <= S_MAX and signer == convert(
                ecrecover(
                    keccak256(
                        concat(
                            0x1901,
                            domain,
                            keccak256(
                                abi_encode(
                                    VOUCHER_TYPEHASH,
                                    claim.user_claimed >> 96,
                                    provider,
                                    claim.signer_maximum & AMOUNT_MAX,
                                    claim.sequences & SEQUENCE_MAX,
                                    claim.request_hash,
                                )
                            ),
                        )
                    ),
                    unsafe_add(27, claim.vs >> 255),
                    claim.r,
                    claim.vs & S_MASK,
                ),
                uint256,
            ):
                asked: uint256 = claim.user_claimed & AMOUNT_MAX
                claimed: uint256 = (word >> 96) & AMOUNT_MAX
                if (
                    asked > claim.signer_maximum & AMOUNT_MAX
                    or claim.sequences >> 192 > claim.sequences & SEQUENCE_MAX
                ):
                    status = STATUS_OVER_VOUCHER
                elif asked <= claimed or claim.sequences >> 192 < word >> 192:
                    status = STATUS_NOTHING_NEW
                else:
                    paid = unsafe_sub(asked, claimed)
                    status = STATUS_PAID
                    if paid > word & AMOUNT_MAX:
                        paid = word & AMOUNT_MAX
                        status = STATUS_PARTIAL
                    # The sequence is the claim's; `paid` moves from balance to claimed. Their sum
                    # stays below 2**96 (`_fund` sees to it), so no field runs into the next.
                    word = (
                        (claim.sequences >> 192 << 192)
                        | unsafe_sub(unsafe_add(word & WORD_AMOUNTS, paid << 96), paid)
                    )
                    self.sub_account_words[key] = word
                    total = unsafe_add(total, paid)  # at most 200 * 2**96
        results.append(
            (convert(key, uint256) & KEY_PREFIX)
            | (status << 128)
            | ((word >> 192 & RESULT_SEQUENCE) << 96)
            | paid
        )
    log Settled(
        provider=provider, payee=payee, records_head=records_head, paid=total, results=results
    )
    if total > 0:
        self._push(payee, total)
    return total


# ---------------------------------------------------------------- disputes


@external
def prove_overclaim(receipt: Receipt, r: bytes32, vs: uint256) -> uint256:
    """
    @notice Show by the provider's own receipt that it claimed more than all it had served: a sum up to
            a sequence that its claim covers, below what it claimed. Slashes it and pays the user back.
    @dev Anyone may; only the user gains. Due is the loss, claimed - cumulative fee, less what this
         sub-account got back before. Reverts "signature" (no receipt key that the named provider has or
         ever had), "unknown" (no such sub-account), "no overclaim", and what Registry's `slash` does:
         "stake", "compensated", "window", "asset". Whoever accuses falsely has lost the gas.
    @param receipt A receipt whose sequence is at least the claimed one.
    @param r r of its EIP-2098 signature, `vs` the rest.
    @return Base units that the user's account got.
    """
    self._check_receipt(receipt, self._receipt_digest(receipt), r, vs)
    key: bytes32 = self._key(receipt.user, receipt.provider, receipt.signer)
    word: uint256 = self.sub_account_words[key]
    claimed: uint256 = (word >> 96) & AMOUNT_MAX
    assert word != 0, "unknown"
    assert receipt.sequence >= word >> 192, "no overclaim"
    assert receipt.cumulative_fee < claimed, "no overclaim"
    loss: uint256 = claimed - receipt.cumulative_fee
    compensation: uint256 = self._compensate(key, receipt.user, receipt.provider, loss)
    log OverclaimProven(
        user=receipt.user,
        provider=receipt.provider,
        signer=receipt.signer,
        sequence=receipt.sequence,
        claimed=claimed,
        cumulative_fee=receipt.cumulative_fee,
        loss=loss,
        compensation=compensation,
        reporter=msg.sender,
    )
    return compensation


@external
def prove_equivocation(
    first: Receipt, first_r: bytes32, first_vs: uint256, second: Receipt, second_r: bytes32, second_vs: uint256
) -> uint256:
    """
    @notice Show two receipts of one provider for one sequence of one sub-account that differ in any
            field. Slashes it and pays the user what was claimed on the strength of the dearer one.
    @dev Anyone may; only the user gains. Due is the loss, min(claimed, dearer) - min(claimed, cheaper)
         of the two cumulative fees, less what this sub-account got back before; 0 is enough to condemn
         a provider that is not yet. Reverts "no equivocation" (another sub-account or sequence, or the
         same receipt), and "signature", "unknown" and the rest as `prove_overclaim`.
    @param first A receipt.
    @param first_r r of its EIP-2098 signature, `first_vs` the rest.
    @param second The other; their order does not matter.
    @param second_r r of its EIP-2098 signature, `second_vs` the rest.
    @return Base units that the user's account got.
    """
    assert (
        first.user == second.user
        and first.provider == second.provider
        and first.signer == second.signer
        and first.sequence == second.sequence
    ), "no equivocation"
    digest: bytes32 = self._receipt_digest(first)
    other_digest: bytes32 = self._receipt_digest(second)
    # Of the digests, not of the signatures: one receipt may well be signed twice.
    assert digest != other_digest, "no equivocation"
    self._check_receipt(first, digest, first_r, first_vs)
    self._check_receipt(second, other_digest, second_r, second_vs)
    key: bytes32 = self._key(first.user, first.provider, first.signer)
    word: uint256 = self.sub_account_words[key]
    assert word != 0, "unknown"
    claimed: uint256 = (word >> 96) & AMOUNT_MAX
    dearer: uint256 = max(first.cumulative_fee, second.cumulative_fee)
    cheaper: uint256 = min(first.cumulative_fee, second.cumulative_fee)
    loss: uint256 = min(claimed, dearer) - min(claimed, cheaper)
    compensation: uint256 = self._compensate(key, first.user, first.provider, loss)
    log EquivocationProven(
        user=first.user,
        provider=first.provider,
        signer=first.signer,
        sequence=first.sequence,
        loss=loss,
        compensation=compensation,
        reporter=msg.sender,
    )
    return compensation


# ---------------------------------------------------------------- views


@external
@view
def get_sub_account(
    user: address, provider: address, signer: address
) -> (uint256, uint256, uint256, uint256, uint256):
    """
    @notice State of one sub-account.
    @return balance (base units, a pending refund included), claimed (base units, cumulative),
            sequence, refund (base units pending, at most the balance), refund unlock time (0 if none).
    """
    key: bytes32 = self._key(user, provider, signer)
    word: uint256 = self.sub_account_words[key]
    refund: uint256 = self.refund_words[key]
    balance: uint256 = word & AMOUNT_MAX
    return (
        balance,
        (word >> 96) & AMOUNT_MAX,
        word >> 192,
        min(refund & AMOUNT_MAX, balance),
        refund >> 96,
    )


@external
@view
def get_sub_account_key(user: address, provider: address, signer: address) -> bytes32:
    """
    @notice Key of a sub-account: keccak256 of the three addresses, 32 bytes each.
    """
    return self._key(user, provider, signer)


@external
@view
def get_open_digest(
    user: address,
    deposit_amount: uint256,
    funds: DynArray[Fund, SUB_ACCOUNTS_PER_OPEN_MAX],
    nonce: uint256,
    deadline: uint256,
) -> bytes32:
    """
    @notice EIP-712 digest of an intent: what the wallet signs, or the nonce of its EIP-3009 form.
    """
    return self._open_digest(user, deposit_amount, funds, nonce, deadline)


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    """
    @notice EIP-712 domain separator of all of Hanse's messages on this chain.
    """
    return self._domain()


# ---------------------------------------------------------------- inside


@internal
def _credit(user: address, amount: uint256):
    assert amount > 0 and amount <= AMOUNT_MAX, "amount"
    self.accounts[user] += amount
    log Deposited(user=user, amount=amount)


@internal
def _open(user: address, amount: uint256, funds: DynArray[Fund, SUB_ACCOUNTS_PER_OPEN_MAX]):
    assert amount <= AMOUNT_MAX, "amount"
    assert amount > 0 or len(funds) > 0, "amount"
    if amount > 0:
        log Deposited(user=user, amount=amount)
    free: uint256 = self.accounts[user] + amount
    for item: Fund in funds:
        free -= self._fund(user, item.provider, item.signer, item.amount, free)
    self.accounts[user] = free


@internal
def _fund(
    user: address, provider: address, signer: address, amount: uint256, free: uint256
) -> uint256:
    """
    @dev Change the sub-account and return what the account owes for it; the caller books that.
    """
    assert amount > 0 and amount <= AMOUNT_MAX, "amount"
    assert signer != empty(address), "signer"
    # Without a standing stake nothing would answer for an overclaim.
    assert staticcall IRegistry(registry).is_active(provider), "provider"
    key: bytes32 = self._key(user, provider, signer)
    word: uint256 = self.sub_account_words[key]
    balance: uint256 = word & AMOUNT_MAX
    refund: uint256 = self.refund_words[key]
    # A refund can have been overtaken by a settlement: only what is still there is pending. Else
    # new funds would fall under an old request, and leave without their own lock time.
    pending: uint256 = min(refund & AMOUNT_MAX, balance)
    from_refund: uint256 = min(pending, amount)
    cost: uint256 = amount - from_refund
    assert cost <= free, "balance"
    pending -= from_refund
    if refund != 0:
        self.refund_words[key] = (refund >> 96 << 96 | pending) if pending > 0 else 0
    if cost > 0:
        # Keeps every later claimed and balance within 96 bits.
        assert balance + ((word >> 96) & AMOUNT_MAX) + cost <= AMOUNT_MAX, "amount"
        self.sub_account_words[key] = word + cost
    log Funded(
        user=user,
        provider=provider,
        signer=signer,
        amount=amount,
        from_refund=from_refund,
        refund=pending,
    )
    return cost


@internal
def _permit(
    user: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32
):
    # Anyone can submit a permit seen in the mempool first; then this one fails and the allowance is
    # there all the same. If it is not, the transfer that follows reverts.
    success: bool = raw_call(
        asset,
        abi_encode(
            user,
            self,
            amount,
            deadline,
            v,
            r,
            s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )


@internal
def _pull(sender: address, amount: uint256):
    assert amount > 0, "amount"
    before: uint256 = staticcall IAsset(asset).balanceOf(self)
    assert extcall IAsset(asset).transferFrom(sender, self, amount, default_return_value=True), "asset"
    assert staticcall IAsset(asset).balanceOf(self) == before + amount, "received"


@internal
def _push(receiver: address, amount: uint256):
    assert extcall IAsset(asset).transfer(receiver, amount, default_return_value=True), "asset"


@internal
def _compensate(key: bytes32, user: address, provider: address, loss: uint256) -> uint256:
    """
    @dev Have the stake pay what is still due of a sub-account's loss, and credit the user's account.
         Losses of several proofs overlap: all are parts of the one `claimed`. So the highest counts,
         never their sum. All functions share a lock, so writing after the call is safe.
    """
    before: uint256 = self.compensations[key]
    due: uint256 = loss - before if loss > before else 0
    held: uint256 = staticcall IAsset(asset).balanceOf(self)
    paid: uint256 = extcall IRegistry(registry).slash(provider, due)
    assert staticcall IAsset(asset).balanceOf(self) == held + paid, "received"
    if paid > 0:
        self.compensations[key] = before + paid
        self.accounts[user] += paid
    return paid


@internal
@view
def _receipt_digest(receipt: Receipt) -> bytes32:
    # All members are static, so their ABI encoding is EIP-712's row of words.
    return keccak256(
        concat(0x1901, self._domain(), keccak256(abi_encode(RECEIPT_TYPEHASH, receipt)))
    )


@internal
@view
def _check_receipt(receipt: Receipt, digest: bytes32, r: bytes32, vs: uint256):
    receipt_key: address = self._recover(digest, r, vs)
    # No provider holds the zero key, to which a malformed signature recovers.
    holder: address = staticcall IRegistry(registry).provider_of_receipt_key(receipt_key)
    assert holder != empty(address) and holder == receipt.provider, "signature"


@internal
@pure
def _key(user: address, provider: address, signer: address) -> bytes32:
    return keccak256(abi_encode(user, provider, signer))


@internal
@view
def _open_digest(
    user: address,
    deposit_amount: uint256,
    funds: DynArray[Fund, SUB_ACCOUNTS_PER_OPEN_MAX],
    nonce: uint256,
    deadline: uint256,
) -> bytes32:
    hashes: DynArray[bytes32, SUB_ACCOUNTS_PER_OPEN_MAX] = []
    for item: Fund in funds:
        hashes.append(
            keccak256(abi_encode(FUND_TYPEHASH, item.provider, item.signer, item.amount))
        )
    # EIP-712 hashes the members alone: leave out the ABI's offset and length.
    members: Bytes[64 + 32 * SUB_ACCOUNTS_PER_OPEN_MAX] = abi_encode(hashes)
    funds_hash: bytes32 = keccak256(slice(members, 64, 32 * len(hashes)))
    return keccak256(
        concat(
            0x1901,
            self._domain(),
            keccak256(
                abi_encode(OPEN_TYPEHASH, user, deposit_amount, funds_hash, nonce, deadline)
            ),
        )
    )


@internal
@pure
def _recover(digest: bytes32, r: bytes32, vs: uint256) -> address:
    s: uint256 = vs & S_MASK
    if s > S_MAX:
        return empty(address)
    return ecrecover(digest, 27 + (vs >> 255), r, s)


@internal
@view
def _domain() -> bytes32:
    # After a fork of the chain the old signatures must not count on the new one.
    return DOMAIN if chain.id == CHAIN_ID else self._domain_of(chain.id)


@internal
@view
def _domain_of(chain_id: uint256) -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPEHASH, NAME_HASH, VERSION_HASH, chain_id, self))
