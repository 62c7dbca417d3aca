# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize gas
# pragma nonreentrancy on
"""
@title Hanse Disputes
@license Apache-2.0
@author The Hanse maintainers
@notice Where a cheat is judged that only a recomputation shows. A challenger bonds and posts the hash of
        its evidence against a receipt that the provider signed. A panel drawn from staked auditors looks
        and votes; the loser pays. One appeal, by anyone, to a larger panel of others, is final.
@dev All amounts are base units of the asset, all times Unix seconds.

     States of a challenge:
       unknown --challenge-->  drawing
       drawing --draw-->       voting    (or decided without a panel, if none can be drawn)
       voting  --tally-->      decided   (all votes revealed, or the time to reveal is over)
       decided --appeal-->     drawing   (once, within the appeal time)
       decided --open_answer, close--> closed
     A verdict takes more than half of the panel's seats; else there is none, and nobody loses.

     Lots: an auditor's stake counts in lots of `lot_stake`, each as likely to be drawn as any other. The
     order of lots cannot change between a challenge and its draw: new ones come after those that were
     there, and none leaves while a draw is pending. An auditor has at most one seat on a panel.

     As many challenges are open as there are auditors, and no more. Otherwise a flood of them could fill
     the seats of all who are honest, and the next panel would be drawn of whoever joined last.

     Known answers: every challenge carries a sealed answer. Most seal "none". A planted one seals the
     right verdict, and nobody can tell until it is opened after the last vote. Then the provider is left
     alone, and whoever voted against answer and outcome pays `lot_stake // 4`. A planter cannot fine a
     panel that disagrees with it: it loses its bond instead.

     The seed of a draw is the hash of a block that did not exist at the challenge. Whoever builds that
     block can try several: docs/decisions/0032-disputes-by-panel.md says what that is worth.

     How to stop it, and what still works then: nobody can. There is no owner, pause, upgrade or
     setting. Escrow never asks this contract: settling, refunds and proofs by receipts go on without it.
     An auditor stops with `retire`, and has its stake back with `leave` when its seats are closed.

     Burned is what no function can move any more: it stays here and is counted in `burned`.
@custom:invariant Each is checked by name after every step of the stateful test.
     disputes_hold_what_they_owe: the asset held is stakes + credits + what open challenges hold + burned.
     every_lot_has_one_owner: lots are numbered without gaps, and each auditor's are as many as it bought.
     panel_is_of_others: no party sits on its own panel, nobody twice, nobody again on the appeal's.
     draw_follows_the_seed: a panel is what its seed, fixed at the challenge, gives over its lots.
     verdict_needs_half_the_seats: more than half of the seats voted for it.
     seats_are_backed: an auditor that sits somewhere cannot take its stake out.
     only_an_upheld_challenge_condemns: no other step of this contract slashes, a planted one never.
     nobody_wins_by_losing: who loses a challenge or an appeal gets back less than it put in.
     burned_never_falls: and no admin key moves anything.
     a_receipt_pays_once: its fee and a challenger's reward, however many challenge it.
     seats_are_left_for_all: as many challenges are open as there are auditors, at most, so that a court
       of up to `SEATS_PER_LOT` auditors always draws from all of them.
"""

from interfaces import IAsset
from interfaces import IEscrow
from interfaces import IRegistry


# What a deployment fixes for good. Amounts in base units.
struct Terms:
    # stake of one lot, the unit in which auditors are drawn
    lot_stake: uint256
    # what a challenger stands to lose; an appellant twice that
    bond: uint256
    # pay of one seat
    seat_fee: uint256
    # seats of a panel, and of the appeal's; both odd
    seats: uint256
    appeal_seats: uint256
    # seconds after `finished_at` in which a receipt can be challenged
    audit_window_s: uint256
    # seconds to look and seal a vote, to reveal it, to appeal, and to open the answer
    vote_time_s: uint256
    reveal_time_s: uint256
    appeal_time_s: uint256
    answer_time_s: uint256


# `eligible_from_s` of 0: retired, or never joined. Short of its lots' stake after a fine it is not drawn.
struct Auditor:
    lots: uint256
    stake: uint256
    open_seats: uint256
    eligible_from_s: uint256


# `fee` is the receipt's. `until_s` is when a decided challenge can no longer be appealed.
struct Challenge:
    challenger: address
    provider: address
    user: address
    fee: uint256
    sealed_answer: bytes32
    stage: uint256
    round: uint256
    until_s: uint256
    appellant: address


# One panel and its votes. `lots` are those that stood when the draw was asked for, at `opened_s`.
struct Round:
    seed_block: uint256
    lots: uint256
    opened_s: uint256
    draws: uint256
    vote_until_s: uint256
    reveal_until_s: uint256
    sealed: uint256
    revealed: uint256
    upheld: uint256
    verdict: uint256


struct Ballot:
    status: uint256
    sealed_vote: bytes32


# As Escrow's: the fields of EIP-712 message Receipt, in its order.
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


# `lots` and `stake` are all that the auditor has now.
event Joined:
    auditor: indexed(address)
    amount: uint256
    lots: uint256
    stake: uint256


event Retired:
    auditor: indexed(address)


# `amount` of the stake became withdrawable.
event Left:
    auditor: indexed(address)
    amount: uint256
    lots: uint256
    stake: uint256


# The evidence file has `evidence_hash` (keccak256) and lies at `uri`.
event Challenged:
    challenge: indexed(bytes32)
    provider: indexed(address)
    challenger: indexed(address)
    user: address
    receipt_hash: bytes32
    evidence_hash: bytes32
    uri: String[256]
    sealed_answer: bytes32
    seed_block: uint256


# The provider's side of it.
event Responded:
    challenge: indexed(bytes32)
    evidence_hash: bytes32
    uri: String[256]


# Nobody drew while the seed could be read; the draw begins anew with `seed_block`.
event SeedMissed:
    challenge: indexed(bytes32)
    round: uint256
    seed_block: uint256


# An empty panel: no eligible one could be drawn.
event PanelDrawn:
    challenge: indexed(bytes32)
    round: uint256
    panel: DynArray[address, SEATS_MAX]
    vote_until_s: uint256
    reveal_until_s: uint256


event VoteSealed:
    challenge: indexed(bytes32)
    auditor: indexed(address)
    round: uint256
    sealed_vote: bytes32


event VoteRevealed:
    challenge: indexed(bytes32)
    auditor: indexed(address)
    round: uint256
    verdict: uint256


event Decided:
    challenge: indexed(bytes32)
    round: uint256
    upheld: uint256
    rejected: uint256
    verdict: uint256
    until_s: uint256


event Appealed:
    challenge: indexed(bytes32)
    appellant: indexed(address)
    seed_block: uint256


# `slashed` came from the provider's stake; of it `compensation` went to the user.
event Closed:
    challenge: indexed(bytes32)
    provider: indexed(address)
    verdict: uint256
    answer: uint256
    opened: bool
    slashed: uint256
    compensation: uint256


event Fined:
    auditor: indexed(address)
    challenge: indexed(bytes32)
    amount: uint256
    stake: uint256


event Credited:
    holder: indexed(address)
    challenge: indexed(bytes32)
    amount: uint256


event Burned:
    challenge: indexed(bytes32)
    amount: uint256


event Withdrawn:
    holder: indexed(address)
    amount: uint256


STAGE_DRAWING: constant(uint256) = 1
STAGE_VOTING: constant(uint256) = 2
STAGE_DECIDED: constant(uint256) = 3
STAGE_CLOSED: constant(uint256) = 4

# Also what an answer says; 0 is no verdict, and "none" of an answer.
VERDICT_UPHELD: constant(uint256) = 1
VERDICT_REJECTED: constant(uint256) = 2

# Of a ballot; a revealed one has its verdict, 1 or 2.
BALLOT_SEATED: constant(uint256) = 3
BALLOT_SEALED: constant(uint256) = 4

FIRST_ROUND: constant(uint256) = 1
APPEAL_ROUND: constant(uint256) = 2

SEATS_MAX: constant(uint256) = 15
LOTS_PER_CALL_MAX: constant(uint256) = 20
# A call draws so often, and all calls together so often: what 640 draws do not fill has too few eligible
# auditors, or nearly all lots in one hand.
DRAWS_PER_CALL: constant(uint256) = 64
DRAWS_MAX: constant(uint256) = 640
# Blocks from the challenge to the seed: nobody can know its hash by then.
SEED_DELAY_BLOCKS: constant(uint256) = 2
# How long the EVM remembers a block's hash.
BLOCK_HASHES: constant(uint256) = 256
# So many open seats an auditor has for each lot, at most. Challenges that are open at once, one for each
# auditor, ask for half of that when all are appealed: so whoever is honest is still drawn.
SEATS_PER_LOT: constant(uint256) = 32
# Fines, as parts of a lot's stake: voting against a known answer, and not revealing a vote.
MISTAKE_PART: constant(uint256) = 4
ABSENCE_PART: constant(uint256) = 16
AMOUNT_MAX: constant(uint256) = 2**96 - 1
TIME_S_MIN: constant(uint256) = 60
TIME_S_MAX: constant(uint256) = 90 * 86_400
# For the two draws, on top of the times that are fixed.
DRAW_TIME_S: constant(uint256) = 600

# Half the order of secp256k1: a larger s is the malleable twin of a valid signature (EIP-2).
S_MAX: constant(uint256) = (
    57896044618658097711785492504343953926418782139537452191302581570759080747168
)
S_MASK: constant(uint256) = 2**255 - 1
RECEIPT_TYPEHASH: constant(bytes32) = keccak256(
    "Receipt(address user,address provider,address signer,uint256 sequence,bytes32 requestHash,bytes32 responseHash,uint256 inputTokens,uint256 cachedTokens,uint256 outputTokens,uint256 fee,uint256 cumulativeFee,uint256 finishReason,uint256 finishedAt,bytes32 commitmentRoot)"
)

# The ERC-20 that everything is paid in.
asset: public(immutable(address))
# Whose stakes answer.
registry: public(immutable(address))
# Under whose domain receipts are signed.
escrow: public(immutable(address))
terms: public(immutable(Terms))

_auditors: HashMap[address, Auditor]
# Auditors with at least one lot.
auditor_count: public(uint256)
lot_count: public(uint256)
# Number of a lot, from 0 -> its auditor in bits 96..255, which of the auditor's it is in 0..95.
lot_words: public(HashMap[uint256, uint256])
# Auditor -> which of its lots -> that lot's number.
_lot_numbers: HashMap[address, HashMap[uint256, uint256]]
# Challenges and appeals whose panel is not drawn yet.
pending_draws: public(uint256)
_challenges: HashMap[bytes32, Challenge]
_rounds: HashMap[bytes32, HashMap[uint256, Round]]
_panels: HashMap[bytes32, HashMap[uint256, DynArray[address, SEATS_MAX]]]
_ballots: HashMap[bytes32, HashMap[uint256, HashMap[address, Ballot]]]
# Challenges that are not closed yet.
open_challenges: public(uint256)
# Challenge -> EIP-712 digest of its receipt.
_receipt_hashes: HashMap[bytes32, bytes32]
# Digests of receipts for which user and challenger had their due.
paid_receipts: public(HashMap[bytes32, bool])
# Base units that an address can withdraw.
credits: public(HashMap[address, uint256])
# Base units that nobody can have any more; they stay here.
burned: public(uint256)


@deploy
def __init__(asset_: address, registry_: address, escrow_: address, terms_: Terms):
    """
    @notice Fix everything for good.
    @dev Registry is deployed before, with the address that this contract will get. The longest dispute
         over the last receipt before a stake leaves must end before it does, and half of the smallest
         stake must pay what a challenger is due.
    @param asset_ The ERC-20 contract, the same that Registry holds stakes in.
    @param registry_ The Registry, which must name this contract as its disputes.
    @param escrow_ The Registry's Escrow.
    @param terms_ Amounts in base units, times in seconds.
    """
    assert asset_.is_contract, "asset"
    assert staticcall IRegistry(registry_).disputes() == self, "registry"
    assert staticcall IRegistry(registry_).asset() == asset_, "registry"
    assert staticcall IRegistry(registry_).escrow() == escrow_, "registry"
    assert terms_.seats % 2 == 1 and terms_.appeal_seats % 2 == 1, "seats"
    assert terms_.seats < terms_.appeal_seats and terms_.appeal_seats <= SEATS_MAX, "seats"
    assert terms_.lot_stake >= ABSENCE_PART and terms_.lot_stake <= 2**80, "lot stake"
    assert terms_.seat_fee > 0 and terms_.seat_fee <= 2**64, "seat fee"
    # The half of a lost bond that is not burned pays an appeal back.
    assert terms_.bond <= 2**80 and terms_.bond >= 2 * terms_.appeal_seats * terms_.seat_fee, "bond"
    due: uint256 = terms_.bond + (terms_.seats + terms_.appeal_seats) * terms_.seat_fee
    assert staticcall IRegistry(registry_).minimum_stake() // 2 >= due, "bond"
    assert terms_.audit_window_s >= TIME_S_MIN and terms_.audit_window_s <= TIME_S_MAX, "time"
    assert terms_.vote_time_s >= TIME_S_MIN and terms_.vote_time_s <= TIME_S_MAX, "time"
    assert terms_.reveal_time_s >= TIME_S_MIN and terms_.reveal_time_s <= TIME_S_MAX, "time"
    assert terms_.appeal_time_s >= TIME_S_MIN and terms_.appeal_time_s <= TIME_S_MAX, "time"
    assert terms_.answer_time_s >= TIME_S_MIN and terms_.answer_time_s <= TIME_S_MAX, "time"
    longest_s: uint256 = (
        terms_.audit_window_s
        + 2 * (DRAW_TIME_S + terms_.vote_time_s + terms_.reveal_time_s)
        + terms_.appeal_time_s
        + terms_.answer_time_s
    )
    lock_time_s: uint256 = staticcall IEscrow(escrow_).lock_time_s()
    assert staticcall IRegistry(registry_).unbonding_time_s() >= lock_time_s + longest_s, "unbonding"
    asset = asset_
    registry = registry_
    escrow = escrow_
    terms = terms_


# ---------------------------------------------------------------- auditors


@external
def join(count: uint256):
    """
    @notice Buy `count` more lots, fill up what fines took, and be drawn for challenges that come later.
    @dev Needs an ERC-20 approval over (lots + count) * lot_stake - stake. 0 is for filling up, or coming
         back after `retire`. Reverts "lots" (above 20, or nothing to do), "received", "asset".
    """
    assert count <= LOTS_PER_CALL_MAX, "lots"
    auditor: Auditor = self._auditors[msg.sender]
    before: uint256 = auditor.lots
    asked: uint256 = (before + count) * terms.lot_stake
    amount: uint256 = asked - auditor.stake
    assert amount > 0 or (auditor.eligible_from_s == 0 and before > 0), "lots"
    # Whoever could not be drawn until now must not become so for a draw whose seed is known.
    if auditor.eligible_from_s == 0 or auditor.stake < before * terms.lot_stake:
        auditor.eligible_from_s = block.timestamp
    auditor.lots = before + count
    auditor.stake = asked
    self._auditors[msg.sender] = auditor
    if before == 0:
        self.auditor_count += 1
    number: uint256 = self.lot_count
    for more: uint256 in range(count, bound=LOTS_PER_CALL_MAX):
        self.lot_words[number + more] = convert(msg.sender, uint256) << 96 | (before + more)
        self._lot_numbers[msg.sender][before + more] = number + more
    self.lot_count = number + count
    log Joined(auditor=msg.sender, amount=amount, lots=auditor.lots, stake=asked)
    if amount > 0:
        self._pull(msg.sender, amount)


@external
def retire():
    """
    @notice Be drawn no more. Seats that the caller has must still be filled.
    @dev Reverts "lots" (no auditor, or retired already), "drawing" (a draw is pending: drawing is
         anyone's, so nobody waits long).
    """
    assert self._auditors[msg.sender].eligible_from_s != 0, "lots"
    assert self.pending_draws == 0, "drawing"
    self._auditors[msg.sender].eligible_from_s = 0
    log Retired(auditor=msg.sender)


@external
def leave(count: uint256):
    """
    @notice Give `count` lots back. What is left of their stake can be withdrawn.
    @dev Reverts "lots" (0, above 20, or more than there are), "seated" (a challenge with the caller on
         its panel is open), "drawing" (a draw is pending).
    """
    auditor: Auditor = self._auditors[msg.sender]
    assert count > 0 and count <= LOTS_PER_CALL_MAX and count <= auditor.lots, "lots"
    assert auditor.open_seats == 0, "seated"
    assert self.pending_draws == 0, "drawing"
    last: uint256 = self.lot_count
    for less: uint256 in range(count, bound=LOTS_PER_CALL_MAX):
        # The very last lot takes the place of the one that goes.
        last -= 1
        number: uint256 = self._lot_numbers[msg.sender][auditor.lots - 1 - less]
        moved: uint256 = self.lot_words[last]
        self.lot_words[number] = moved
        self._lot_numbers[convert(moved >> 96, address)][moved & AMOUNT_MAX] = number
        self.lot_words[last] = 0
    self.lot_count = last
    auditor.lots -= count
    amount: uint256 = auditor.stake - min(auditor.stake, auditor.lots * terms.lot_stake)
    auditor.stake -= amount
    if auditor.lots == 0:
        auditor.eligible_from_s = 0
        self.auditor_count -= 1
    self._auditors[msg.sender] = auditor
    self.credits[msg.sender] += amount
    log Left(auditor=msg.sender, amount=amount, lots=auditor.lots, stake=auditor.stake)


@external
def withdraw() -> uint256:
    """
    @notice Take all that the caller is credited with.
    @dev Reverts "balance" (nothing), "asset".
    @return Base units paid.
    """
    amount: uint256 = self.credits[msg.sender]
    assert amount > 0, "balance"
    self.credits[msg.sender] = 0
    log Withdrawn(holder=msg.sender, amount=amount)
    assert extcall IAsset(asset).transfer(msg.sender, amount, default_return_value=True), "asset"
    return amount


# ---------------------------------------------------------------- challenges


@external
def challenge(
    receipt: Receipt,
    r: bytes32,
    vs: uint256,
    evidence_hash: bytes32,
    uri: String[256],
    sealed_answer: bytes32,
) -> bytes32:
    """
    @notice Accuse a provider of what a recomputation of one of its answers shows. Takes the bond and the
            fees of a panel; the winner has them back, except the fees of those who are paid.
    @dev Anyone may. Reverts "evidence" (zero hash), "answer" (zero seal), "window" (the receipt is too
         old), "signature" (no receipt key that the named provider has or ever had), "condemned",
         "stake" (nothing answers), "known" (the same challenger, receipt and evidence), "auditors" (too
         few for a panel), "busy" (as many challenges are open as there are auditors), "received", "asset".
    @param receipt What the provider signed.
    @param r r of its EIP-2098 signature, `vs` the rest.
    @param evidence_hash keccak256 of the evidence file.
    @param uri Where auditors find the file.
    @param sealed_answer keccak256(abi_encode(challenger, answer, salt)): answer 0 for an honest
           accusation, 1 or 2 for a planted one whose right verdict that is.
    @return Name of the challenge: keccak256(abi_encode(receipt hash, challenger, evidence hash)).
    """
    assert evidence_hash != empty(bytes32), "evidence"
    assert sealed_answer != empty(bytes32), "answer"
    oldest_s: uint256 = block.timestamp - min(block.timestamp, terms.audit_window_s)
    assert receipt.finished_at >= oldest_s, "window"
    domain: bytes32 = staticcall IEscrow(escrow).DOMAIN_SEPARATOR()
    # All members are static, so their ABI encoding is EIP-712's row of words.
    digest: bytes32 = keccak256(
        concat(0x1901, domain, keccak256(abi_encode(RECEIPT_TYPEHASH, receipt)))
    )
    signer: address = empty(address)
    if vs & S_MASK <= S_MAX:
        signer = ecrecover(digest, 27 + (vs >> 255), r, vs & S_MASK)
    # No provider holds the zero key, to which a malformed signature recovers.
    holder: address = staticcall IRegistry(registry).provider_of_receipt_key(signer)
    assert holder != empty(address) and holder == receipt.provider, "signature"
    assert not staticcall IRegistry(registry).is_condemned(receipt.provider), "condemned"
    assert staticcall IRegistry(registry).at_stake(receipt.provider) > 0, "stake"
    name: bytes32 = keccak256(abi_encode(digest, msg.sender, evidence_hash))
    assert self._challenges[name].stage == 0, "known"
    assert self.auditor_count >= terms.seats, "auditors"
    assert self.open_challenges < self.auditor_count, "busy"
    self.open_challenges += 1
    self._receipt_hashes[name] = digest
    self._challenges[name] = Challenge(
        challenger=msg.sender,
        provider=receipt.provider,
        user=receipt.user,
        # The field is 256 bits of the provider's choice: sums with it must not overflow.
        fee=min(receipt.fee, AMOUNT_MAX),
        sealed_answer=sealed_answer,
        stage=STAGE_DRAWING,
        round=FIRST_ROUND,
        until_s=0,
        appellant=empty(address),
    )
    seed_block: uint256 = self._open_round(name, FIRST_ROUND)
    log Challenged(
        challenge=name,
        provider=receipt.provider,
        challenger=msg.sender,
        user=receipt.user,
        receipt_hash=digest,
        evidence_hash=evidence_hash,
        uri=uri,
        sealed_answer=sealed_answer,
        seed_block=seed_block,
    )
    self._pull(msg.sender, terms.bond + terms.seats * terms.seat_fee)
    return name


@external
def respond(name: bytes32, evidence_hash: bytes32, uri: String[256]):
    """
    @notice Lay the accused provider's own evidence beside the challenger's. By the provider or its
            receipt key, until the challenge is closed.
    @dev Reverts "stage", "not permitted", "evidence" (zero hash).
    """
    found: Challenge = self._challenges[name]
    assert found.stage != 0 and found.stage != STAGE_CLOSED, "stage"
    payee: address = staticcall IRegistry(registry).payee_for(found.provider, msg.sender)
    assert payee != empty(address), "not permitted"
    assert evidence_hash != empty(bytes32), "evidence"
    log Responded(challenge=name, evidence_hash=evidence_hash, uri=uri)


@external
def draw(name: bytes32) -> bool:
    """
    @notice Draw the panel, once the seed's block is there. Anyone may; who does it changes nothing.
    @dev 64 draws a call: call again while it returns False. If nobody drew for 256 blocks the seed is
         lost, and a new one is fixed. Reverts "stage", "early" (the block is not there yet).
    @return Whether drawing is over.
    """
    found: Challenge = self._challenges[name]
    assert found.stage == STAGE_DRAWING, "stage"
    round: Round = self._rounds[name][found.round]
    assert block.number > round.seed_block, "early"
    panel: DynArray[address, SEATS_MAX] = []
    if block.number > round.seed_block + BLOCK_HASHES:
        round.seed_block = block.number + SEED_DELAY_BLOCKS
        round.draws = 0
        self._rounds[name][found.round] = round
        self._panels[name][found.round] = panel
        log SeedMissed(challenge=name, round=found.round, seed_block=round.seed_block)
        return False
    seats: uint256 = terms.seats if found.round == FIRST_ROUND else terms.appeal_seats
    seed: bytes32 = keccak256(abi_encode(blockhash(round.seed_block), name, found.round))
    panel = self._panels[name][found.round]
    for _: uint256 in range(DRAWS_PER_CALL):
        if len(panel) == seats or round.draws == DRAWS_MAX:
            break
        number: uint256 = convert(keccak256(abi_encode(seed, round.draws)), uint256) % round.lots
        auditor: address = convert(self.lot_words[number] >> 96, address)
        round.draws += 1
        if auditor not in panel and self._is_eligible(name, found, round.opened_s, auditor):
            panel.append(auditor)
    done: bool = True
    if len(panel) == seats:
        for auditor: address in panel:
            self._auditors[auditor].open_seats += 1
            self._ballots[name][found.round][auditor].status = BALLOT_SEATED
        self._challenges[name].stage = STAGE_VOTING
        round.vote_until_s = block.timestamp + terms.vote_time_s
        round.reveal_until_s = round.vote_until_s + terms.reveal_time_s
    elif round.draws == DRAWS_MAX:
        # Too few are eligible. No panel, no verdict: what the appeal was about stands.
        panel = []
        self._challenges[name].stage = STAGE_DECIDED
        self._challenges[name].until_s = block.timestamp
    else:
        done = False
    self._rounds[name][found.round] = round
    self._panels[name][found.round] = panel
    if done:
        self.pending_draws -= 1
        log PanelDrawn(
            challenge=name,
            round=found.round,
            panel=panel,
            vote_until_s=round.vote_until_s,
            reveal_until_s=round.reveal_until_s,
        )
    return done


# ---------------------------------------------------------------- votes


@external
def seal_vote(name: bytes32, sealed_vote: bytes32):
    """
    @notice Fix the caller's vote without showing it.
    @dev Reverts "stage", "late", "seat" (none on this panel, or sealed already), "vote" (zero).
    @param sealed_vote keccak256(abi_encode(challenge, round, auditor, verdict, salt)), verdict 1 for
           upheld, 2 for rejected, and a salt of 32 random bytes.
    """
    found: Challenge = self._challenges[name]
    assert found.stage == STAGE_VOTING, "stage"
    assert block.timestamp < self._rounds[name][found.round].vote_until_s, "late"
    assert self._ballots[name][found.round][msg.sender].status == BALLOT_SEATED, "seat"
    assert sealed_vote != empty(bytes32), "vote"
    self._ballots[name][found.round][msg.sender] = Ballot(
        status=BALLOT_SEALED, sealed_vote=sealed_vote
    )
    self._rounds[name][found.round].sealed += 1
    log VoteSealed(challenge=name, auditor=msg.sender, round=found.round, sealed_vote=sealed_vote)


@external
def reveal_vote(name: bytes32, verdict: uint256, salt: bytes32):
    """
    @notice Show the caller's sealed vote: when the time to seal is over, or all have sealed.
    @dev Reverts "stage", "early", "late", "seat" (no sealed vote), "verdict" (neither 1 nor 2), "vote"
         (not what was sealed).
    """
    found: Challenge = self._challenges[name]
    assert found.stage == STAGE_VOTING, "stage"
    round: Round = self._rounds[name][found.round]
    seats: uint256 = terms.seats if found.round == FIRST_ROUND else terms.appeal_seats
    assert block.timestamp >= round.vote_until_s or round.sealed == seats, "early"
    assert block.timestamp < round.reveal_until_s, "late"
    ballot: Ballot = self._ballots[name][found.round][msg.sender]
    assert ballot.status == BALLOT_SEALED, "seat"
    assert verdict == VERDICT_UPHELD or verdict == VERDICT_REJECTED, "verdict"
    sealed: bytes32 = keccak256(abi_encode(name, found.round, msg.sender, verdict, salt))
    assert sealed == ballot.sealed_vote, "vote"
    self._ballots[name][found.round][msg.sender].status = verdict
    self._rounds[name][found.round].revealed = round.revealed + 1
    if verdict == VERDICT_UPHELD:
        self._rounds[name][found.round].upheld = round.upheld + 1
    log VoteRevealed(challenge=name, auditor=msg.sender, round=found.round, verdict=verdict)


@external
def tally(name: bytes32) -> uint256:
    """
    @notice Count the votes, when all are revealed or the time for it is over. Anyone may.
    @dev Reverts "stage", "early".
    @return The verdict that more than half of the seats have; 0 if none has.
    """
    found: Challenge = self._challenges[name]
    assert found.stage == STAGE_VOTING, "stage"
    round: Round = self._rounds[name][found.round]
    seats: uint256 = terms.seats if found.round == FIRST_ROUND else terms.appeal_seats
    assert block.timestamp >= round.reveal_until_s or round.revealed == seats, "early"
    rejected: uint256 = round.revealed - round.upheld
    verdict: uint256 = 0
    if round.upheld > seats // 2:
        verdict = VERDICT_UPHELD
    elif rejected > seats // 2:
        verdict = VERDICT_REJECTED
    until_s: uint256 = block.timestamp
    if found.round == FIRST_ROUND:
        until_s += terms.appeal_time_s
    self._rounds[name][found.round].verdict = verdict
    self._challenges[name].stage = STAGE_DECIDED
    self._challenges[name].until_s = until_s
    log Decided(
        challenge=name,
        round=found.round,
        upheld=round.upheld,
        rejected=rejected,
        verdict=verdict,
        until_s=until_s,
    )
    return verdict


@external
def appeal(name: bytes32):
    """
    @notice Have a larger panel of others judge, once. Takes twice the bond and the larger panel's fees;
            whoever is right gets both back, as far as the loser's half reaches for the fees.
    @dev Anyone may: the loser, or an auditor who was outvoted. Reverts "stage", "appealed", "late",
         "auditors" (too few for another panel), "received", "asset".
    """
    found: Challenge = self._challenges[name]
    assert found.stage == STAGE_DECIDED, "stage"
    assert found.round == FIRST_ROUND, "appealed"
    assert block.timestamp < found.until_s, "late"
    assert self.auditor_count >= terms.seats + terms.appeal_seats, "auditors"
    self._challenges[name].stage = STAGE_DRAWING
    self._challenges[name].round = APPEAL_ROUND
    self._challenges[name].appellant = msg.sender
    seed_block: uint256 = self._open_round(name, APPEAL_ROUND)
    log Appealed(challenge=name, appellant=msg.sender, seed_block=seed_block)
    self._pull(msg.sender, 2 * terms.bond + terms.appeal_seats * terms.seat_fee)


# ---------------------------------------------------------------- the end


@external
def open_answer(name: bytes32, answer: uint256, salt: bytes32):
    """
    @notice Open the challenge's answer and close it: 0, an honest accusation, 1 or 2, a planted one. Only
            so the challenger gets what it is due.
    @dev Anyone who knows the salt may, when nothing can be appealed any more. Reverts "stage", "early",
         "answer" (not what was sealed), and "asset", "received" if the stake cannot be moved.
    """
    found: Challenge = self._challenges[name]
    assert found.stage == STAGE_DECIDED, "stage"
    assert block.timestamp >= found.until_s, "early"
    sealed: bytes32 = keccak256(abi_encode(found.challenger, answer, salt))
    assert answer <= VERDICT_REJECTED and sealed == found.sealed_answer, "answer"
    self._close(name, found, answer, True)


@external
def close(name: bytes32):
    """
    @notice Close a challenge without its answer: at once if there is no verdict, else when the time to
            open it is over. Then it counts as an honest accusation, and what its challenger would have
            got is burned. Anyone may.
    @dev Reverts "stage", "early", and "asset", "received" if the stake cannot be moved.
    """
    found: Challenge = self._challenges[name]
    assert found.stage == STAGE_DECIDED, "stage"
    wait_s: uint256 = terms.answer_time_s if self._get_verdict(name) != 0 else 0
    assert block.timestamp >= found.until_s + wait_s, "early"
    self._close(name, found, 0, False)


# ---------------------------------------------------------------- views


@external
@view
def get_auditor(auditor: address) -> Auditor:
    """
    @notice Lots, stake, open seats, and since when it can be drawn; zeros if it never joined.
    """
    return self._auditors[auditor]


@external
@view
def get_challenge(name: bytes32) -> Challenge:
    """
    @notice All that is known of a challenge; zeros if there is none.
    """
    return self._challenges[name]


@external
@view
def get_round(name: bytes32, round: uint256) -> Round:
    """
    @notice One panel's times and votes; round 1, or 2 for the appeal.
    """
    return self._rounds[name][round]


@external
@view
def get_panel(name: bytes32, round: uint256) -> DynArray[address, SEATS_MAX]:
    """
    @notice Who sits on a panel, as far as it is drawn.
    """
    return self._panels[name][round]


@external
@view
def get_ballot(name: bytes32, round: uint256, auditor: address) -> Ballot:
    """
    @notice Status of a seat (0 none, 1 upheld, 2 rejected, 3 seated, 4 sealed), and the sealed vote.
    """
    return self._ballots[name][round][auditor]


# ---------------------------------------------------------------- inside


@internal
def _open_round(name: bytes32, round: uint256) -> uint256:
    seed_block: uint256 = block.number + SEED_DELAY_BLOCKS
    self._rounds[name][round].seed_block = seed_block
    self._rounds[name][round].lots = self.lot_count
    self._rounds[name][round].opened_s = block.timestamp
    self.pending_draws += 1
    return seed_block


@internal
@view
def _is_eligible(name: bytes32, found: Challenge, opened_s: uint256, auditor: address) -> bool:
    if (
        auditor == found.challenger
        or auditor == found.user
        or auditor == found.provider
        or auditor == found.appellant
    ):
        return False
    if found.round == APPEAL_ROUND and self._ballots[name][FIRST_ROUND][auditor].status != 0:
        return False
    known: Auditor = self._auditors[auditor]
    return (
        known.eligible_from_s != 0
        and known.eligible_from_s < opened_s
        and known.stake >= known.lots * terms.lot_stake
        and known.open_seats < known.lots * SEATS_PER_LOT
    )


@internal
@view
def _get_verdict(name: bytes32) -> uint256:
    appealed: uint256 = self._rounds[name][APPEAL_ROUND].verdict
    return appealed if appealed != 0 else self._rounds[name][FIRST_ROUND].verdict


@internal
def _close(name: bytes32, found: Challenge, answer: uint256, opened: bool):
    """
    @dev All functions share a lock, so crediting after the call of Registry is safe. Who gets what, in
         this order: seats that voted for the verdict their fee, each payer its unspent fees; then from
         the pot (half of the loser's bond, the stake, or half of fines) the user, an appellant who was
         right its fees, and the rest the winner.
    """
    self._challenges[name].stage = STAGE_CLOSED
    self.open_challenges -= 1
    verdict: uint256 = self._get_verdict(name)
    won: bool = verdict == VERDICT_UPHELD if answer == 0 else verdict == answer
    pot: uint256 = 0
    fees: uint256[3] = [0, 0, 0]
    for round: uint256 in range(FIRST_ROUND, APPEAL_ROUND + 1):
        if round <= found.round:
            paid: uint256 = 0
            fines: uint256 = 0
            paid, fines = self._pay_seats(name, round, verdict, answer != 0 and won)
            fees[round] = paid
            pot += fines
    self._credit(name, found.challenger, terms.seats * terms.seat_fee - fees[FIRST_ROUND])
    flipped: bool = False
    upheld_appeal: bool = False
    if found.round == APPEAL_ROUND:
        second: uint256 = self._rounds[name][APPEAL_ROUND].verdict
        flipped = second != 0 and second != self._rounds[name][FIRST_ROUND].verdict
        upheld_appeal = second == 0 or flipped
        self._credit(
            name, found.appellant, terms.appeal_seats * terms.seat_fee - fees[APPEAL_ROUND]
        )
    slashed: uint256 = 0
    compensation: uint256 = 0
    if verdict == 0:
        self._credit(name, found.challenger, terms.bond)
    elif not won:
        pot += self._burn_half(name, terms.bond)
    else:
        self._credit_challenger(name, found.challenger, terms.bond, opened)
        if answer == 0:
            due: uint256 = fees[FIRST_ROUND]
            fee: uint256 = 0
            # Whoever challenges a receipt that was paid for has its own back, and takes from no victim.
            if not self.paid_receipts[self._receipt_hashes[name]]:
                self.paid_receipts[self._receipt_hashes[name]] = True
                fee = found.fee
                due += terms.bond + fee
            if flipped:
                due += fees[APPEAL_ROUND]
            slashed = self._slash(found.provider, due)
            compensation = min(fee, slashed)
            self._credit(name, found.user, compensation)
            pot += slashed - compensation
    if found.round == APPEAL_ROUND:
        if upheld_appeal:
            self._credit(name, found.appellant, 2 * terms.bond)
            if flipped:
                back: uint256 = min(pot, fees[APPEAL_ROUND])
                self._credit(name, found.appellant, back)
                pot -= back
        else:
            pot += self._burn_half(name, 2 * terms.bond)
    if won:
        self._credit_challenger(name, found.challenger, pot, opened)
    else:
        self._credit(name, found.provider, pot)
    log Closed(
        challenge=name,
        provider=found.provider,
        verdict=verdict,
        answer=answer,
        opened=opened,
        slashed=slashed,
        compensation=compensation,
    )


@internal
def _pay_seats(
    name: bytes32, round: uint256, verdict: uint256, known_answer: bool
) -> (uint256, uint256):
    """
    @dev Fees that were paid, and the half of fines that is not burned. Without a verdict all who
         revealed are paid.
    """
    paid: uint256 = 0
    fines: uint256 = 0
    for auditor: address in self._panels[name][round]:
        self._auditors[auditor].open_seats -= 1
        status: uint256 = self._ballots[name][round][auditor].status
        if status >= BALLOT_SEATED:
            self._burn(name, self._fine(name, auditor, terms.lot_stake // ABSENCE_PART))
        elif verdict == 0 or status == verdict:
            self._credit(name, auditor, terms.seat_fee)
            paid += terms.seat_fee
        elif known_answer:
            fine: uint256 = self._fine(name, auditor, terms.lot_stake // MISTAKE_PART)
            fines += self._burn_half(name, fine)
    return paid, fines


@internal
def _fine(name: bytes32, auditor: address, amount: uint256) -> uint256:
    stake: uint256 = self._auditors[auditor].stake
    taken: uint256 = min(stake, amount)
    self._auditors[auditor].stake = stake - taken
    log Fined(auditor=auditor, challenge=name, amount=taken, stake=stake - taken)
    return taken


@internal
def _slash(provider: address, due: uint256) -> uint256:
    if staticcall IRegistry(registry).at_stake(provider) == 0:
        # Its stake left, or others were paid first: the verdict stands without it.
        return 0
    held: uint256 = staticcall IAsset(asset).balanceOf(self)
    paid: uint256 = extcall IRegistry(registry).slash(provider, due)
    assert staticcall IAsset(asset).balanceOf(self) == held + paid, "received"
    return paid


@internal
def _credit(name: bytes32, holder: address, amount: uint256):
    if amount > 0:
        self.credits[holder] += amount
        log Credited(holder=holder, challenge=name, amount=amount)


@internal
def _credit_challenger(name: bytes32, challenger: address, amount: uint256, opened: bool):
    # A challenger that keeps its answer sealed could sell that choice to the accused.
    if opened:
        self._credit(name, challenger, amount)
    else:
        self._burn(name, amount)


@internal
def _burn(name: bytes32, amount: uint256):
    if amount > 0:
        self.burned += amount
        log Burned(challenge=name, amount=amount)


@internal
def _burn_half(name: bytes32, amount: uint256) -> uint256:
    """
    @dev Rounded up, as Registry burns stakes. Returns the rest.
    """
    rest: uint256 = amount // 2
    self._burn(name, amount - rest)
    return rest


@internal
def _pull(sender: address, amount: uint256):
    before: uint256 = staticcall IAsset(asset).balanceOf(self)
    assert extcall IAsset(asset).transferFrom(sender, self, amount, default_return_value=True), "asset"
    assert staticcall IAsset(asset).balanceOf(self) == before + amount, "received"
